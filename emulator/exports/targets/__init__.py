"""What a store is written as for other tools: one file a target, which registers itself."""
