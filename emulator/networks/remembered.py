"""What modules remember from call to call besides their parameters: buffers that they name in an attribute `remembers`.

Such are the running moments of a batch norm. They belong to a training's state, are averaged as its weights are, and stay
what they were where a module runs only to be looked at.
"""

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn


def remembered(module: nn.Module) -> dict[str, Tensor]:
    """These buffers by name."""
    parts = ((name, part, getattr(part, "remembers", ())) for name, part in module.named_modules())
    return {f"{name}.{kind}".lstrip("."): part.get_buffer(kind) for name, part, kinds in parts for kind in kinds}


def moving(module: nn.Module) -> dict[str, Tensor]:
    """All that a training changes, by name: parameters and these buffers."""
    return dict(module.named_parameters()) | remembered(module)


@contextlib.contextmanager
def unmoved(*modules: nn.Module) -> Iterator[None]:
    """Within it modules may run; these buffers are afterwards what they were."""
    buffers = [buffer for module in modules for buffer in remembered(module).values()]
    kept = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, before in zip(buffers, kept, strict=True):
            buffer.copy_(before)
