"""States of JAX models in restart files: their arrays, without pickling, and nothing else."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np


def save(state: Any, path: Path) -> None:
    """Writes a state's arrays to an `.npz` file."""
    import jax

    leaves = jax.tree_util.tree_flatten_with_path(state)[0]
    arrays = {f"{i:03d}{jax.tree_util.keystr(key)}": np.asarray(leaf) for i, (key, leaf) in enumerate(leaves)}
    with open(path, "wb") as file:
        np.savez(file, **arrays)


def load(path: Path, like: Any) -> Any:
    """The state of an `.npz` file, of the same arrays as another state: those of NumPy stay NumPy's, with all their digits.

    Raises `ValueError` when it is damaged or its arrays are others.
    """
    import jax
    import jax.numpy as jnp

    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    expected = [f"{index:03d}{jax.tree_util.keystr(key)}" for index, (key, _) in enumerate(leaves)]
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names, values = arrays.files, list(arrays.values())
    except (EOFError, ValueError, zipfile.BadZipFile):
        raise ValueError(f"Expected a model's state in {path}, it is damaged: delete it to go on without") from None
    if names != expected:
        raise ValueError(f"Expected the arrays of this model's state in {path}, got {names[:3]}, ...")
    for name, value, (_, leaf) in zip(expected, values, leaves, strict=True):
        if value.shape != np.shape(leaf):
            raise ValueError(f"Expected {name} of shape {np.shape(leaf)} in {path}, got {value.shape}")
    as_it_was = [
        value if isinstance(leaf, np.ndarray) else jnp.asarray(value)
        for value, (_, leaf) in zip(values, leaves, strict=True)
    ]
    return jax.tree_util.tree_unflatten(structure, as_it_was)
