"""Noise for a network that is trained already: all else frozen, a small file, forecasts that are functions of the seed."""

import numpy as np
import pytest
import torch
from small_planet import small_planet
from small_store import FREE, store_of

import emulator as em
from emulator.model import checkpoint
from emulator.training.options import TrainOptions
from emulator.training.run import Training

NETWORKS = {
    "sfno": {"kind": "sfno", "embed_dim": 8, "blocks": 2},
    "vector_cnn": {"kind": "vector_cnn", "width": 8, "vectors": 4, "blocks": 2},
    "unet": {"kind": "unet", "width": 8, "depth": 1},
    "graph": {"kind": "graph", "width": 16, "rounds": 1},
}
NOISE = {"length_scales": [3000.0], "channels": 2, "correlation": 0.5, "style": 2}
NAMES = ["temperature", "surface_pressure", "u_component_of_wind", "v_component_of_wind"]
INITS = ["2001-01-01T00", "2001-01-01T06"]


def train(paths, output, network, **more):
    options = {
        "network": network,
        "conservation": FREE,
        "prognostic": NAMES,
        "phases": [{"updates": 4, "batch_size": 2}],
        "optimizer": {"warmup_steps": 1, "lr": 0.02},
        "seed": 1,
    }
    return em.train(*paths, output, **options | more)


def cheap(stored, output, name, **more):
    start = {"checkpoint": stored[1] / name / "checkpoint", "statistics": "old", "freeze": ["*", "!*noise*"]}
    loss = {"kind": "crps", "members": 2, "alpha": 0.95}
    return train(stored[0], output, NETWORKS[name] | {"noise": NOISE}, start=start, loss=loss, **more)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Paths of a store and its statistics, and a folder with deterministic networks and those with noise layers."""
    folder = tmp_path_factory.mktemp("noise")
    found = store_of(folder, small_planet(times=12, nlat=8, levels=2)), folder
    train(found[0], folder / "sfno", NETWORKS["sfno"])
    cheap(found, folder / "sfno_noise", "sfno")
    return found


def states(model, stored, **more):
    return em.forecast(model, stored[0][0], INITS, days=0.75, **more)


def close(a, b, same):
    for name in a.data_vars:
        if "lead_time" in a[name].dims:
            assert np.array_equal(a[name].values, b[name].values) == same, name


def test_all_but_the_noise_layers_stays_and_their_file_is_small(stored, name="sfno"):
    base = checkpoint.load(stored[1] / name / "checkpoint")[0]
    own, alone = (checkpoint.load(stored[1] / f"{name}_noise" / part) for part in ("checkpoint", "changes"))
    new = own[0].keys() - base.keys()
    assert new and all("noise" in key for key in new) and any(own[0][key].any() for key in new)
    assert all(torch.equal(own[0][key], tensor) for key, tensor in base.items())
    assert alone[0].keys() == new
    one, other = (em.load_model(stored[1] / f"{name}_noise" / part, "cpu") for part in ("checkpoint", "changes"))
    assert all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in one.state_dict().items())
    with pytest.raises(checkpoint.CheckpointError, match="the changes in .* were trained on"):
        em.load_model(stored[1] / f"{name}_noise" / "changes", base=stored[1] / f"{name}_noise" / "checkpoint")


def test_noise_layers_alone_are_refused_in_phases_of_single_forecasts(stored, tmp_path):
    phases = [{"updates": 1, "batch_size": 2, "single": single} for single in (True, False)]
    refused = pytest.raises(ValueError, match=r"Expected phases of members alone where start.freeze leaves .*noise")
    with refused:
        cheap(stored, tmp_path, "sfno", phases=phases)
    noisy = NETWORKS["sfno"] | {"noise": NOISE}
    start = {
        "checkpoint": stored[1] / "sfno" / "checkpoint",
        "statistics": "old",
        "freeze": ["*", "!*noise*", "!decoder*"],
    }
    train(stored[0], tmp_path, noisy, start=start, loss={"kind": "crps"}, phases=phases)
    assert checkpoint.describe(tmp_path / "checkpoint")["update"] == 2
    paths = dict(zip(("store", "statistics"), stored[0], strict=True)) | {"output": tmp_path / "checked"}
    own = {"network": noisy, "start": start | {"freeze": ["*", "!*noise*"]}, "prognostic": NAMES, "conservation": FREE}
    with refused:
        Training(TrainOptions.of(paths | own | {"loss": {"kind": "crps"}, "phases": phases})).describe()


def test_without_amplitude_members_are_the_deterministic_forecast_bit_for_bit(stored, name="sfno"):
    plain = states(stored[1] / name / "checkpoint", stored)
    noisy = stored[1] / f"{name}_noise" / "changes"
    ensemble = {"members": 2, "kind": "none"}
    silent = states(noisy, stored, ensemble=ensemble | {"noise_amplitude": 0.0})
    for member in range(2):
        close(silent.isel(member=member), plain, True)
    half, full = (states(noisy, stored, ensemble=ensemble | {"noise_amplitude": a}) for a in (0.5, 1.0))
    spreads = [float(each["temperature"].std("member").isel(lead_time=1).mean()) for each in (half, full)]
    assert 0.4 < spreads[0] / spreads[1] < 0.6
    late = full.isel(lead_time=slice(1, None))
    close(late.isel(member=0), late.isel(member=1), False)


def test_neither_batches_nor_other_members_change_a_forecast(stored):
    noisy, ensemble = stored[1] / "sfno_noise" / "changes", {"members": 3, "kind": "none", "seed": 4}
    one, other = (states(noisy, stored, ensemble=ensemble, batch_size=size) for size in (1, 6))
    fewer = states(noisy, stored, ensemble=ensemble | {"members": 2})
    for name in NAMES:
        np.testing.assert_allclose(one[name], other[name], rtol=2e-5, atol=1e-4)
        np.testing.assert_allclose(one[name].isel(member=slice(2)), fewer[name], rtol=2e-5, atol=1e-4)
    later, seed = slice(1, None), ensemble | {"seed": 5}
    close(one.isel(lead_time=later), states(noisy, stored, ensemble=seed).isel(lead_time=later), False)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["unet", "vector_cnn", "graph"])
def test_other_kinds_take_noise_layers_too(stored, tmp_path, name):
    train(stored[0], stored[1] / name, NETWORKS[name])
    cheap(stored, tmp_path, name)
    plain = states(stored[1] / name / "checkpoint", stored)
    silent = {"members": 2, "kind": "none", "noise_amplitude": 0.0}
    close(states(tmp_path / "changes", stored, ensemble=silent).isel(member=1), plain, True)


@pytest.mark.slow
def test_a_training_without_frozen_parts_leaves_no_file_of_one_before(stored, tmp_path):
    cheap(stored, tmp_path, "sfno", phases=[{"updates": 1, "batch_size": 1}])
    assert (tmp_path / "changes").exists()
    train(stored[0], tmp_path, NETWORKS["sfno"], phases=[{"updates": 1, "batch_size": 1}], overwrite=True)
    assert (tmp_path / "checkpoint").exists() and not (tmp_path / "changes").exists()
