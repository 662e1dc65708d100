"""Memory of large tensors: never handed out while anything in it is alive, and handed out again afterwards."""

import pickle

import torch

from emulator.kernels import freed_memory, reused
from emulator.kernels.reused import ReusedMemory


def test_what_is_held_is_not_handed_out():
    memory = ReusedMemory()
    first = memory.tensor((3, 4))
    view = first.fill_(7.0)[1:, 2]
    address = first.data_ptr()
    del first  # the view holds it
    second = memory.tensor((3, 4)).fill_(1.0)
    assert second.data_ptr() != address and (view == 7).all()
    del view
    assert memory.tensor((2, 5)).data_ptr() == address  # a little less fits too
    assert (second == 1).all()


def test_blocks_do_not_pile_up():
    """Of the lengths that are asked for one after another only the last stays."""
    memory = ReusedMemory()
    for length in (10, 100, 1000, 10_000, 50):
        memory.tensor((length,))
        assert len(memory._blocks) == 1
    held = [memory.tensor((50,)) for _ in range(3)]
    assert len({tensor.data_ptr() for tensor in held}) == 3


def test_it_is_plain_memory():
    memory = ReusedMemory()
    assert memory.tensor((2, 0, 3)).shape == (2, 0, 3)
    tensor = memory.tensor((4,))
    assert tensor.dtype == torch.float32 and tensor.is_contiguous()
    assert pickle.loads(pickle.dumps(memory)).tensor((4,)).shape == (4,)


def test_memory_of_one_size_is_lent_again_once_nothing_needs_it():
    size = freed_memory.LARGEST // 4  # floats, more than what the C library keeps
    first = reused.lend(size)
    place, part = first.data_ptr(), first[3:5]
    assert place % 64 == 0
    del first
    second = reused.lend(size)
    assert second.data_ptr() != place  # a part of the first is still there
    del part
    assert reused.lend(2, size).shape == (2, size)  # another size has memory of its own, and free memory of others goes
    sizes = [length for _, length, _ in reused._LARGE._blocks]
    assert sizes.count(size) == 1 and second.shape == (size,)


def test_the_same_memory_serves_the_same_size_again():
    size = freed_memory.LARGEST // 4 + 3000
    place = (first := reused.lend(size)).data_ptr()
    del first
    assert reused.lend(size).data_ptr() == place


def test_small_tensors_are_left_to_the_c_library(monkeypatch):
    """Which gives what they leave behind to tensors of any size; where it returns that to the system, it is kept here."""
    before = len(reused._LARGE._blocks)
    tensor = reused.lend(10, 30)
    assert tensor.shape == (10, 30) and tensor.dtype == torch.float32 and tensor.data_ptr() % 64 == 0
    assert len(reused._LARGE._blocks) == before or not freed_memory.keep()
    monkeypatch.setattr(freed_memory, "keep", lambda: False)
    kept = reused.lend(10, 30)
    assert any(length == 300 and array() is not None for _, length, array in reused._LARGE._blocks)
    assert kept.shape == (10, 30)
