"""What modules remember from call to call besides their parameters: buffers that they name in an attribute `remembers`.

Such are the running moments of a batch norm. They belong to a training's state, are averaged as its weights are, and stay
what they were where a module runs only to be looked at.

Other buffers go after weights, as singular vectors do, in an attribute `follows`. They are saved, taken by a start from
weights and left alone likewise, but not averaged.
"""

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn


def remembered(module: nn.Module) -> dict[str, Tensor]:
    """These buffers by name."""
    return _buffers(module, "remembers")


def learned(module: nn.Module) -> dict[str, Tensor]:
    """Parameters, these buffers, and those by which modules follow their weights, which they name in `follows`."""
    return dict(module.named_parameters()) | _all(module)


def _buffers(module, attribute):
    parts = ((name, part, getattr(part, attribute, ())) for name, part in module.named_modules())
    return {f"{name}.{kind}".lstrip("."): part.get_buffer(kind) for name, part, kinds in parts for kind in kinds}


def moving(module: nn.Module) -> dict[str, Tensor]:
    """All that a training changes, by name: parameters and these buffers."""
    return dict(module.named_parameters()) | remembered(module)


@contextlib.contextmanager
def unmoved(*modules: nn.Module) -> Iterator[None]:
    """Within it modules may run; all such buffers are afterwards what they were."""
    kept = [{name: tensor.clone() for name, tensor in _all(module).items()} for module in modules]
    try:
        yield
    finally:
        for module, before in zip(modules, kept, strict=True):
            for name, buffer in _all(module).items():  # looked up anew: some are replaced and not written to
                buffer.copy_(before[name])


def _all(module):
    return _buffers(module, "remembers") | _buffers(module, "follows")
