"""Numbers too small for the format's whole precision, which processors take many times as long for."""

import contextlib
from collections.abc import Iterator

import torch


@contextlib.contextmanager
def flushed() -> Iterator[None]:
    """Have float32 below 1.2e-38 count as zero meanwhile, where the processor can; with it or as a decorator.

    The gradient of GELU is such a number from 13 below zero on. An update of a network without norms took six times as long
    without this. Threads that begin meanwhile keep the setting, and those of torch that ran before do not have it: their
    numbers differ by what counts as zero.
    """
    before = flushes()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def flushes() -> bool:
    """Whether this thread takes such numbers for zero."""
    return not bool((torch.tensor([1e-30], dtype=torch.float32, device="cpu") * 1e-10).any())
