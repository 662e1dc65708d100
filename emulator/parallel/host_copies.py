"""Copies between the host's memory and a GPU that nobody waits for: beside the GPU's work, through page-locked memory.

On a CPU there is nothing to copy, and tensors stay what they are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Landing:
    """Tensors on their way to the host's memory.

    Attributes:
      tensors: in the host's memory; what they hold counts after `arrive` alone.
    """

    def __init__(self, tensors: Sequence[Tensor], event: torch.cuda.Event | None = None):
        self.tensors, self._event = list(tensors), event

    def arrive(self) -> list[Tensor]:
        """The tensors, once they are there; another thread than the one that computes may wait here."""
        if self._event is not None:
            self._event.synchronize()
        return self.tensors


class HostCopies:
    """Copies from one device, on a stream of their own while the device computes what comes next.

    Torch keeps page-locked memory that nobody has any more, and lends it again to copies of that size.
    """

    def __init__(self, device: torch.device):
        self._device, self._stream = device, None

    def begin(self, tensors: Sequence[Tensor]) -> Landing:
        """Copies of tensors as the work that has been asked of the device so far leaves them; does not wait for it.

        The tensors may be let go of at once, but not written over.
        """
        if self._device.type != "cuda":
            return Landing(tensors)
        if self._stream is None:
            self._stream = torch.cuda.Stream(self._device)
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            landed = [tensor.to("cpu", non_blocking=True) for tensor in tensors]  # page-locked, by torch's own doing
            for tensor in tensors:
                tensor.record_stream(self._stream)
            event = torch.cuda.Event(blocking=True)  # who waits sleeps, and leaves the processor to others
            event.record(self._stream)
        return Landing(landed, event)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device, without waiting for what the device is doing; itself where it is there already."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return pinned(tensor).to(device, non_blocking=True)


def pinned(tensor: Tensor) -> Tensor:
    """In page-locked memory, from which copies to a GPU run beside its work; itself on a machine without one."""
    return tensor.pin_memory() if torch.cuda.is_available() else tensor
