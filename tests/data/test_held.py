"""A period held in memory: every field is the store's, before, while and after it is filled."""

import threading

import numpy as np
import pytest

from emulator.data.channels import Layout
from emulator.data.held import Held
from emulator.data.samples import Samples

SHAPES = {"prognostic": (9, 2, 3, 4), "forcing": (9, 0, 3, 4)}
VALUES = np.arange(9 * 2 * 3 * 4, dtype=np.float32).reshape(SHAPES["prognostic"])


class Disk:
    """Reads as many times as it is allowed to."""

    def __init__(self):
        self.allowed, self.broken = threading.Semaphore(0), None

    def __call__(self, group, times, out):
        if group == "prognostic":
            self.allowed.acquire()
            if self.broken is not None:
                raise self.broken
            out[:] = VALUES[times]


def held(disk, monkeypatch):
    monkeypatch.setattr("emulator.data.held.BLOCK_BYTES", 2 * VALUES[0].nbytes)
    return Held(SHAPES, disk)


def test_times_are_given_once_they_are_there_and_not_before(monkeypatch):
    disk = Disk()
    found = held(disk, monkeypatch)
    early, late = np.array([[1, 0]]), np.array([[0, 8]])
    assert found.fields("prognostic", early) is None
    disk.allowed.release(2)  # of blocks of two times
    while (first := found.fields("prognostic", early)) is None:
        pass
    np.testing.assert_array_equal(first, VALUES[early])
    assert found.fields("prognostic", late) is None
    disk.allowed.release(3)
    found.wait()
    for times in (early, late):
        np.testing.assert_array_equal(found.fields("prognostic", times), VALUES[times])
    assert found.fields("forcing", late).shape == (1, 2, 0, 3, 4)


def test_what_cannot_be_read_is_told_to_whoever_asks_next(monkeypatch):
    disk = Disk()
    found = held(disk, monkeypatch)
    disk.broken = ValueError("a broken chunk in the file x")
    disk.allowed.release()
    found.wait()
    for _ in range(2):
        with pytest.raises(ValueError, match="the file x"):
            found.fields("prognostic", np.array([[0]]))


def test_a_batch_is_the_same_bits_whether_or_not_its_times_are_held_yet(planet, monkeypatch):
    go = threading.Event()
    advance = Held._advance
    monkeypatch.setattr(Held, "_advance", lambda self: (go.wait(), advance(self))[1])
    layout = Layout.of(planet, {"prognostic": ["temperature", "surface_pressure"]})
    samples, plain = Samples(planet, layout), Samples(planet, layout, cache_bytes=0)
    expected = plain.batch([40, 2, 17], 3)
    for holding in (False, True):
        if holding:
            go.set()
            samples._held.wait()
        for one, other in zip(samples.batch([40, 2, 17], 3)._tensors(), expected._tensors(), strict=True):
            assert one.numpy().tobytes() == other.numpy().tobytes()
        assert (samples._held.fields("prognostic", np.array([[40]])) is None) != holding


def test_nothing_is_read_for_nobody(planet, monkeypatch):
    """What fills a period ends with the samples: a notebook that makes others must not read on for the first ones."""
    monkeypatch.setattr("emulator.data.held.BLOCK_BYTES", 1)  # a time at once
    go, read = threading.Semaphore(0), []
    advance = Held._advance
    monkeypatch.setattr(Held, "_advance", lambda self: (go.acquire(), read.append(1), advance(self))[2])
    samples = Samples(planet, Layout.of(planet, {"prognostic": ["temperature"]}))
    thread = samples._held._thread
    go.release()
    while samples._held is not None and samples._held._filled < 1:
        pass
    del samples
    go.release()  # of the block that was waited for
    thread.join(timeout=20)
    assert not thread.is_alive() and len(read) <= 2
