#!/usr/bin/env bash
# torch.set_flush_denormal(True) in torch 2.13.0 is of one thread: threads that computed before it go on with denormal numbers,
# and threads that begin after it keep the setting when it is taken back. One product of one tensor then has both.
#
# What one would expect: the switch is of the process, as the other torch.set_* of CPUs are, and as its documentation reads
# ("Disables denormal floating numbers on CPU"). What happens: the bit lies in a register of each thread. With two threads whose pool has been used once
# before, half of the elements of `x * 1` are denormal still; set first it is none, and after set_flush_denormal(False) half of
# them are zero, since the pool's threads inherited the setting from the one that made them.
# Whoever sets it for speed (an update of a network without norms took six times as long without it, by gradients of GELU far
# below zero) has to do so before the first operation that uses the pool, or the slow numbers stay on all threads but one; a comparison of runs with
# one and with several threads can differ by what counts as zero.
#
# Output seen:
#   pool first, then set: 0.5 of the elements are zero
#   set first, then pool: 1.0 of the elements are zero
#   set first, taken back: 0.5 of the elements are zero
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2>/dev/null
cat > "$folder/zeros.py" <<'PYTHON'
import sys

import torch

torch.set_num_threads(2)


def share() -> float:
    """Of elements of 1e-40, as integers so that the count itself does not flush, which a product by 1 leaves at zero."""
    small = torch.full((4_000_000,), 71362, dtype=torch.int32).view(torch.float32)
    return ((small * 1.0).view(torch.int32) == 0).double().mean().item()


if sys.argv[1] == "pool":
    share()
assert torch.set_flush_denormal(True)
found = share()
if sys.argv[1] == "back":
    torch.set_flush_denormal(False)
    found = share()
print(found)
PYTHON
run() { "$folder/env/bin/python" "$folder/zeros.py" "$1"; }
pool="$(run pool)"; first="$(run first)"; back="$(run back)"
echo "pool first, then set: $pool of the elements are zero"
echo "set first, then pool: $first of the elements are zero"
echo "set first, taken back: $back of the elements are zero"
[ "$pool" = 0.5 ] && [ "$first" = 1.0 ] && [ "$back" = 0.5 ] || { echo "this has changed"; exit 1; }
