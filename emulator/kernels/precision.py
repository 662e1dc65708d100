"""Matrix products of float32 in full precision, by whichever library is fastest at it."""

import contextlib
import functools
import threading

import torch

# Allowed to reduce float32 to bfloat16, torch hands matrix products on CPU to oneDNN instead of MKL. oneDNN then does
# reduce where the processor multiplies bfloat16 in tiles (AMX), and elsewhere does not: on a Zen 5 its float32 products
# are exact and run at 120 to 180 GFLOP/s a core where MKL's run at 60 to 80. So the permission is given only where a
# trial shows that nothing is lost.
_ON_CPU = torch.backends.mkldnn.matmul
_ON_CUDA = torch.backends.cuda.matmul
_EXACT = "ieee"
_lock = threading.Lock()
_nested = {"depth": 0}


@functools.cache
def onednn_is_exact() -> bool:
    """Whether float32 products stay in full precision when oneDNN may reduce them, tried in several shapes."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    before = _ON_CPU.fp32_precision
    _ON_CPU.fp32_precision = "bf16"
    try:
        for shape in ((), (8,)):
            for m, k, n in ((64, 64, 512), (512, 64, 128), (128, 512, 64), (33, 47, 65)):
                a = torch.randn(*shape, m, k, generator=generator)
                b = torch.randn(*shape, k, n, generator=generator)
                expected = a.double() @ b.double()
                if (torch.matmul(a, b).double() - expected).abs().max() > 1e-6 * expected.abs().max():
                    return False
    finally:
        _ON_CPU.fp32_precision = before
    return True


@contextlib.contextmanager
def exact_products(small: bool = False):
    """Float32 matrix products inside are exact, whatever the process allows outside (TF32, bfloat16).

    `small`: products too small for oneDNN to gain, left to MKL.
    """
    wanted = "bf16" if not small and onednn_is_exact() else _EXACT
    with _lock:
        if _nested["depth"] == 0:
            _nested["outside"] = (_ON_CPU.fp32_precision, _ON_CUDA.fp32_precision)
        _nested["depth"] += 1
        _ON_CPU.fp32_precision, _ON_CUDA.fp32_precision = wanted, _EXACT
    try:
        yield
    finally:
        with _lock:
            _nested["depth"] -= 1
            if _nested["depth"] == 0:
                _ON_CPU.fp32_precision, _ON_CUDA.fp32_precision = _nested["outside"]
