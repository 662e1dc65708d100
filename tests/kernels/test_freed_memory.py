"""Memory of tensors that come again at every step."""

import subprocess
import sys
import textwrap

import pytest

from emulator.kernels import freed_memory


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts page faults of glibc's memory")
def test_pages_are_not_mapped_again_at_every_step():
    """In a process of its own, since nothing takes the setting back."""
    program = """
        import resource, sys, torch
        from emulator.kernels import freed_memory

        def faults(steps):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(steps):
                tensors = [torch.ones(1 << 20) for _ in range(8)]  # 4 MiB each
                del tensors
            return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / steps

        torch.set_num_threads(1)
        print(int(freed_memory.keep()))
        faults(10)  # until the heap has grown to what a step takes
        print(faults(10))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    kept, faults = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    if not int(kept):
        pytest.skip("another C library than glibc")
    assert float(faults) < 100  # 8192 pages otherwise


def test_where_the_c_library_has_no_such_setting_nothing_happens(monkeypatch):
    monkeypatch.setattr(freed_memory.ctypes, "CDLL", lambda name: object())
    assert freed_memory.keep.__wrapped__() is False
