"""A small configuration of every kind of network but the external one, for tests that ask something of all of them."""

TINY = {
    "sfno": dict(kind="sfno", embed_dim=8, blocks=2),
    "graph": dict(kind="graph", width=8, rounds=2, refinement=1),
    "hierarchical": dict(kind="hierarchical", width=8, rounds=1, refinement=1, levels=2),
    "unet": dict(kind="unet", width=8, depth=2),
    "samudra": dict(kind="samudra", widths=(8, 8), dilations=(1, 2)),
    "attention_unet": dict(kind="attention_unet", width=8, depth=2),
    "mgno": dict(kind="mgno", width=8, layers=2, depth=2),
    "fno": dict(kind="fno", width=8, blocks=2, modes=(4, 4)),
    "fuxi": dict(kind="fuxi", width=8, blocks=2, heads=2, window=2, groups=2),
    "wxformer": dict(
        kind="wxformer",
        widths=(8, 16),
        depths=(1, 1),
        strides=(2, 2),
        stencils=(2, 4),
        far=(2, 3),
        near=3,
        head_width=4,
    ),
    "aurora": dict(kind="aurora", embed_dim=16, depths=[1, 1], up_depths=[1, 1], heads=[2, 4]),
    "column": dict(kind="column", width=16),
    "vector_cnn": dict(kind="vector_cnn", width=8, vectors=3, blocks=2),
    "torch_harmonics": dict(kind="torch_harmonics", embed_dim=8, num_layers=2),
}
