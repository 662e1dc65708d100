#!/usr/bin/env bash
# The relative position bias of CrossFormer in vit-pytorch 1.26.14, and in miles-credit 2026.2.0 (CREDIT's WXFormer), is the
# bias of other offsets than those between the two cells: a cell's bias with itself is not that of offset (0, 0).
#
# What one would expect: the bias of a pair of cells is what the perceptron gives for their offset in rows and columns. What
# happens: the perceptron is asked for offsets -w..w, a table of 2w+1 columns, and the table is read with a stride of
# 2w-1. For windows of 4 cells no pair gets its own offset, and, since
# the wrong stride runs on into the next row, offsets that are neighbours need not be asked for as neighbours.
# Nothing fails: all pairs of one offset still share one number, so training works, but the smoothness in distance that the perceptron is there for is lost, what was learned for a
# window of one size means something else in another, and an implementation that follows the paper (Wang et al. 2022, arXiv
# 2108.00154) does not give the same output with the same weights. To carry weights over, ask the perceptron for the
# offsets that are listed here.
#
# Output seen:
#   window 4: 0 of 49 offsets get their own bias; (0, 0) gets (-2, 2); (0, 1) gets (-2, 3); (1, 0) gets (-1, 0)
#   miles-credit 2026.2.0 builds and reads its table by the same two expressions: True
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
pip() { "$folder/env/bin/pip" "$@" --quiet --disable-pip-version-check 2>/dev/null; }
pip install torch==2.13.0 numpy==2.4.6 einops==0.8.2
pip install --no-deps vit-pytorch==1.26.14
pip download --no-deps --dest "$folder" miles-credit==2026.2.0
"$folder/env/bin/python" - "$folder" <<'PYTHON'
import importlib.util
import re
import sys
import zipfile
from pathlib import Path

import torch

# The file alone: the package's __init__ imports networks that need more packages.
place = next(Path(sys.argv[1]).glob("env/lib/python3*/site-packages/vit_pytorch/crossformer.py"))
spec = importlib.util.spec_from_file_location("crossformer", place)
crossformer = importlib.util.module_from_spec(spec)
spec.loader.exec_module(crossformer)

w = 4
attention = crossformer.Attention(dim=32, attn_type="short", window_size=w, dim_head=16)
asked = []
attention.dpb.register_forward_pre_hook(lambda module, inputs: asked.append(inputs[0]))
attention(torch.randn(1, 32, 8, 8))
used = asked[0][attention.rel_pos_indices].long()  # (cells, cells, 2)
cells = torch.stack(torch.meshgrid(torch.arange(w), torch.arange(w), indexing="ij"), -1).reshape(-1, 2)
true = cells[:, None] - cells[None, :]
pairs = {}
for offset, got in zip(true.reshape(-1, 2).tolist(), used.reshape(-1, 2).tolist()):
    pairs.setdefault(tuple(offset), set()).add(tuple(got))
assert all(len(got) == 1 for got in pairs.values())
pairs = {offset: got.pop() for offset, got in pairs.items()}
own = sum(offset == got for offset, got in pairs.items())
shown = "; ".join(f"{offset} gets {pairs[offset]}" for offset in ((0, 0), (0, 1), (1, 0)))
print(f"window {w}: {own} of {len(pairs)} offsets get their own bias; {shown}")

wheel = zipfile.ZipFile(next(Path(sys.argv[1]).glob("miles_credit-*.whl")))
text = re.sub(r"\s", "", wheel.read("credit/models/crossformer.py").decode())
same = "[2*window_size-1,1]" in text and "torch.arange(-wsz,wsz+1" in text
print(f"miles-credit 2026.2.0 builds and reads its table by the same two expressions: {same}")
assert pairs[0, 0] != (0, 0) and own == 0 and same, "this has changed"
PYTHON
