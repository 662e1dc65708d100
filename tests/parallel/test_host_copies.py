"""Copies to and from a device: none on a CPU; where there is a GPU, the numbers as they were when the copy was asked for."""

import pytest
import torch

from emulator.parallel.host_copies import HostCopies, pinned, to_device

CPU = torch.device("cpu")


def test_on_a_cpu_tensors_stay_what_they_are():
    first, second = torch.ones(3), torch.zeros(2, 0)
    landing = HostCopies(CPU).begin([first, second])
    assert landing.tensors[0] is first and landing.arrive()[1] is second
    assert to_device(first, CPU) is first
    assert pinned(first) is first or torch.cuda.is_available()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_what_lands_is_what_was_there_when_it_was_asked_for():
    device = torch.device("cuda", 0)
    copies, expected, landings = HostCopies(device), [], []
    for number in range(8):
        field = to_device(torch.full((64, 512, 512), float(number)), device)
        for _ in range(20):  # the copy must wait for what the device has still to do
            field = field + 1
        expected.append(number + 20.0)
        landings.append(copies.begin([field, field[:, 3]]))
        del field  # its memory may serve the next one only after the copy
    for value, landing in zip(expected, landings, strict=True):
        whole, part = landing.arrive()
        assert whole.is_pinned() and (whole == value).all() and (part == value).all()
