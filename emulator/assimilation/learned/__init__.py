"""Analyses by a network that is trained on its own backgrounds: what it is given, what it is, and how it learns."""
