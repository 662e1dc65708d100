"""Numbers below the format's whole precision count as zero where networks run, and nowhere else."""

import threading

import pytest
import torch
from small_planet import small_planet
from small_store import NETWORK, store_of

import emulator as em
from emulator.kernels.denormals import flushed, flushes


@pytest.fixture(autouse=True)
def _where_that_can_be():
    with flushed():
        if not flushes():
            pytest.skip("this processor does not take such numbers for zero")


def test_small_numbers_are_zero_meanwhile_and_as_before_afterwards():
    before, small = flushes(), torch.tensor([1.5e-38, 1.1e-38])
    with flushed():
        assert flushes() and (small * 1.0).tolist() == [small[0].item(), 0.0]
        with flushed():
            assert flushes()
        assert flushes()
    assert flushes() == before
    with pytest.raises(KeyError), flushed():
        raise KeyError
    assert flushes() == before


def test_threads_that_begin_meanwhile_flush_too():
    with flushed():
        found = torch.empty(0)

        def work():
            nonlocal found
            found = torch.full((100,), 1e-30) * 1e-10

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert not found.any()


def test_a_training_and_its_forecasts_flush(tmp_path, monkeypatch):
    """Seen from inside a step; the process is as it was afterwards."""
    seen, before = [], flushes()
    call = em.Step.__call__

    def told(self, *given, **more):
        seen.append(flushes())
        return call(self, *given, **more)

    monkeypatch.setattr(em.Step, "__call__", told)
    store, statistics = store_of(tmp_path, small_planet(times=12))
    em.train(store, statistics, tmp_path / "out", network=NETWORK, phases=[{"updates": 2, "batch_size": 2}])
    trained = len(seen)
    em.forecast(tmp_path / "out" / "checkpoint", store, em.open_analysis(store)["time"].values[0], days=1)
    assert 0 < trained < len(seen) and all(seen) and flushes() == before
