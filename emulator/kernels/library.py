"""How the functions of the compiled kernels are called on torch's threads."""

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import torch

from emulator.kernels.compiled import LIBRARY

ENDS = "seats taken front back"  # of the blocks of column integrals, as in structures.h


def task(
    name: str, pointers: str, whole: str, long: str, portions: str = "next", double: str = ""
) -> type[ctypes.Structure]:
    """A structure of structures.h: pointers, ints, longs, doubles, and last longs that count what threads have taken."""
    fields = [(field, ctypes.c_void_p) for field in pointers.split()]
    fields += [(field, ctypes.c_int) for field in whole.split()]
    fields += [(field, ctypes.c_long) for field in long.split()]
    fields += [(field, ctypes.c_double) for field in double.split()]
    fields += [(field, ctypes.c_long) for field in portions.split()]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


@functools.cache
def _region() -> ctypes.c_void_p | None:
    """What starts a parallel region on torch's own threads; without it one thread does all.

    Where torch keeps its OpenMP to itself (wheels for ARM), it is the one in its folder that is loaded: another one
    would have threads of its own.
    """
    torchs = Path(torch.__file__).parent
    files = [*torchs.glob("lib/lib*omp.*"), *torchs.parent.glob("torch.libs/lib*omp*")]
    for name, mode in ((None, ctypes.DEFAULT_MODE), *((str(file), os.RTLD_NOLOAD) for file in sorted(files))):
        with contextlib.suppress(AttributeError, OSError, TypeError):
            return ctypes.cast(ctypes.CDLL(name, mode).GOMP_parallel, ctypes.c_void_p)
    return None


def takes(*tensors: torch.Tensor | None, fits: bool = True, half: bool = False) -> bool:
    """Whether compiled kernels take these tensors: the one place where that is decided.

    They do where a library is there, neither `torch.jit` nor `torch.compile` records what happens, and all tensors (None for
    absent ones) are float32 in the processor's memory. `fits`: what a kernel asks of shapes besides; `half`: with products of
    bfloat16, which not every processor has.
    """
    if LIBRARY is None or not fits or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if not all(x is None or (x.dtype is torch.float32 and x.is_cpu) for x in tensors):
        return False
    return not half or knows_half()


def alone(*tensors: torch.Tensor | None) -> bool:
    """Whether kernels take these tensors, and nobody wants gradients or to see torch's operations but a recording."""
    if torch.is_grad_enabled() or not takes(*tensors):
        return False
    return not torch._C._len_torch_dispatch_stack() or getattr(RECORDING, "to", None) is not None


@functools.cache
def _check(function: str, structure: type[ctypes.Structure]) -> None:
    """Raises `RuntimeError` where the library was compiled from another version, before it reads a structure wrongly."""
    try:
        size = ctypes.c_long.in_dll(LIBRARY, f"{function}_size").value
    except ValueError:
        size = None
    if size != ctypes.sizeof(structure):
        raise RuntimeError(
            "Expected compiled kernels of this version of the package, got those of another one: install the package again"
        )


RECORDING = threading.local()  # `to`: the `emulator.kernels.recording.Recording` of this thread, where there is one


def call(function: str, argument: ctypes.Structure, *kept) -> None:
    """Run a function of the library on torch's number of threads.

    `kept`: what the argument points to, for the life of a recording; tensors from `empty` need not be named.
    """
    _check(function, type(argument))
    entry = getattr(LIBRARY, function)
    entry(ctypes.byref(argument), _region(), ctypes.c_uint(torch.get_num_threads()))
    if (recording := getattr(RECORDING, "to", None)) is not None:
        recording.add(entry, argument, kept)


def has_threads() -> bool:
    """Whether kernels run on more than one thread."""
    return _region() is not None and torch.get_num_threads() > 1


def run(calls: ctypes.Array) -> None:
    """Make recorded calls once more: pairs of a function of the library and an argument."""
    LIBRARY.emulator_run(calls, ctypes.c_long(len(calls) // 2), _region(), ctypes.c_uint(torch.get_num_threads()))


def empty(*shape: int) -> torch.Tensor:
    """Float32 in the processor's memory for a kernel to fill; in a recording it belongs to that."""
    recording = getattr(RECORDING, "to", None)
    return torch.empty(shape, dtype=torch.float32, device="cpu") if recording is None else recording.empty(shape)


def plain(function: str, *arguments: int) -> int:
    """Run a function of the library that takes addresses and numbers, on this thread."""
    return getattr(LIBRARY, function)(*(ctypes.c_long(x) for x in arguments))


@functools.cache
def knows_half() -> bool:
    """Whether the library and this processor have products of bfloat16."""
    return bool(plain("emulator_has_half"))


ASIDE = False  # whether torch's own operations are asked for, in place of gradients in one piece too


@contextlib.contextmanager
def set_aside() -> Iterator[None]:
    """Torch's own operations in place of the kernels for the time of a `with` block.

    As an oracle, to be counted, or to be differentiated twice.
    """
    global LIBRARY, ASIDE
    kept, LIBRARY, ASIDE = (LIBRARY, ASIDE), None, True
    try:
        yield
    finally:
        LIBRARY, ASIDE = kept
