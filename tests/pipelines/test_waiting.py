"""How threads wait for each other is set before torch is loaded, and only where the user has not set it."""

import os
import subprocess
import sys

import pytest

PROGRAM = "import sys, pipelines, os; print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT'))"


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "None")],
    ids=["unset", "spincount", "policy"],
)
def test_waiting_threads_spin_for_long_only_where_asked(given, expected):
    unset = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=unset | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", expected]
