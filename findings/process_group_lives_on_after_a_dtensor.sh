#!/usr/bin/env bash
# In torch 2.13.0 (and 2.14.1) torch.distributed.destroy_process_group() ends a gloo group of a device mesh only as long as no
# DTensor was ever made on that mesh: after one distribute_tensor the group and its threads live on to the end of the process.
#
# What one would expect: destroy_process_group() joins the threads of the backend, whether the group was used by
# all_reduce or by a DTensor that has been deleted and collected long ago; is_initialized() says False in both cases. What
# happens: something in torch keeps a reference to the mesh's group once a DTensor was spread over it (a weak reference to
# the group still answers after destroy_process_group() and gc.collect()), so its threads are there when the
# interpreter ends. What such a thread does then (it may still have to let go of a tensor, for which it needs the interpreter) races
# with the interpreter's end: we have seen processes that had done all their work be aborted at exit on a busy machine. A
# program that looks at is_initialized(), or counts on destroy_process_group() as a barrier for threads, is told the wrong thing.
#
# Output seen (threads of the process before and after destroy_process_group, the group, is_initialized):
#   mesh, all_reduce alone: 5 -> 2 threads, group freed, initialized False
#   mesh, a DTensor of 4 numbers, deleted: 5 -> 5 threads, group alive, initialized False
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6 2>/dev/null
cat >"$folder/try.py" <<'PYTHON'
import gc
import os
import sys
import weakref

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

spread = sys.argv[1] == "dtensor"
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))
group = weakref.ref(mesh.get_group())
dist.all_reduce(torch.ones(3), group=mesh.get_group())
if spread:
    tensor = distribute_tensor(torch.ones(4), mesh, [Shard(0)])
    del tensor
del mesh
before = len(os.listdir("/proc/self/task"))
dist.destroy_process_group()
gc.collect()
after = len(os.listdir("/proc/self/task"))
alive = group() is not None
what = "a DTensor of 4 numbers, deleted" if spread else "all_reduce alone"
print(f"mesh, {what}: {before} -> {after} threads, group {'alive' if alive else 'freed'}, ", end="")
print(f"initialized {dist.is_initialized()}")
assert not dist.is_initialized()
assert alive == spread and (after == before) == spread, "this has changed"
PYTHON
"$folder/env/bin/python" "$folder/try.py" reduce "$folder/rendezvous1"
"$folder/env/bin/python" "$folder/try.py" dtensor "$folder/rendezvous2"
