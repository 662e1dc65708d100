"""Fields of a whole period in memory, filled by a thread of its own while the first updates read what they need."""

import inspect
import logging
import threading
import weakref
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

BLOCK_BYTES = 32 << 20  # read at a time: so often is looked whether the process ends

log = logging.getLogger(__name__)


class Held:
    """Groups of fields `(time, channel, *space)`, float32, filled from the first time to the last.

    The thread uses no operation of torch: those would start a team of threads of their own beside the training's. It ends
    with the process, and once nobody has the object whose method `read` is, whatever is still to be read.

    Args:
      shapes: of each group, `(time, channel, *space)`, with as many times in all.
      read: `(group, positions in time, out)` reads into `out`, `(position, channel, *space)`.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], read: Callable[[str, np.ndarray, np.ndarray], None]):
        self._arrays = {group: np.empty(shape, np.float32) for group, shape in shapes.items()}
        self._tensors = {group: torch.from_numpy(array) for group, array in self._arrays.items()}
        self._count = next(iter(shapes.values()))[0]
        self._filled = 0  # times of which all groups are there
        self._error: Exception | None = None
        self._read = weakref.WeakMethod(read) if inspect.ismethod(read) else lambda: read
        self._thread = threading.Thread(target=self._fill, name="held", daemon=True)
        self._thread.start()

    def fields(self, group: str, times: np.ndarray) -> Tensor | None:
        """A group's fields at positions `(batch, time)`, `(batch, time, channel, *space)`; None while some are not there yet.

        Raises what reading has raised, be it at other times.
        """
        if self._error is not None:
            raise self._error
        if self._filled < self._count and times.size and times.max() >= self._filled:
            return None
        return self._tensors[group][torch.from_numpy(times)]

    def wait(self) -> "Held":
        """Itself once all is there, or reading has failed."""
        self._thread.join()
        return self

    def _fill(self) -> None:
        while self._advance():
            pass

    def _advance(self) -> bool:
        """Reads the next block of times; whether more of them are left for somebody."""
        one = max(1, sum(array[0].nbytes for array in self._arrays.values()))
        last = min(self._filled + max(1, BLOCK_BYTES // one), self._count)
        if (read := self._read()) is None:
            return False
        try:
            for group, array in self._arrays.items():
                read(group, np.arange(self._filled, last), array[self._filled : last])
        except Exception as error:  # of whatever kind: it is raised in the thread that asks next
            self._error = error
            return False
        self._filled = last
        if last == self._count:
            log.debug("all %d times are held in memory", self._count)  # no line behind the last word of a stage
        return last < self._count
