"""Samples about the field of a network of the mean: what they are of in closed form, what is kept, and what is refused."""

import contextlib
import dataclasses
import shutil

import numpy as np
import pytest
import torch
from pair_of_stores import COARSE, FINE, SMALL, Nothing, coarsened, fine_planet
from small_store import write_store

import emulator as em
from emulator.downscaling.apply import downscale
from emulator.downscaling.downscaler import Downscaler, Scales
from emulator.downscaling.fields import Interpolation, clock_of
from emulator.downscaling.mean import find_mean
from emulator.downscaling.options import DownscalingOptions
from emulator.downscaling.saved import load_downscaler
from emulator.downscaling.training import DownscalingTraining, train_downscaling
from emulator.files.interruption import Interrupted
from emulator.generative.objectives import EDM, spread_over
from emulator.model import checkpoint
from emulator.model.checkpoint import CheckpointError
from emulator.planet.grid import Grid
from emulator.sphere.cell_means import CellMeans
from emulator.training.run import StageHooks

OPTIONS = {"network": SMALL, "updates": 30, "batch_size": 4, "scale_samples": 64, "optimizer": {"warmup_steps": 5}}
DRAWN = OPTIONS | {"kind": "generative", "objective": {"kind": "edm"}, "updates": 9, "ema": 0.9}
RAIN, PRESSURE = "mean_total_precipitation_rate", "surface_pressure"


@pytest.fixture(scope="module")
def mean(stores, tmp_path_factory):
    """The checkpoint of a network of the mean."""
    folder = tmp_path_factory.mktemp("mean")
    train_downscaling(*stores, folder, **OPTIONS)
    return folder / "checkpoint"


@pytest.fixture(scope="module")
def drawn(stores, mean, tmp_path_factory):
    """The checkpoint of a network that draws about it."""
    folder = tmp_path_factory.mktemp("drawn")
    train_downscaling(*stores, folder, **DRAWN, mean=mean)
    return folder / "checkpoint"


def test_without_noise_and_with_an_output_of_zero_the_sample_is_the_field_of_the_mean(
    stores, mean, drawn, tmp_path, monkeypatch
):
    step = load_downscaler(drawn)
    step.network = Nothing()
    monkeypatch.setattr(torch, "randn", lambda shape, **_: torch.zeros(shape))
    downscale(step, stores[1], tmp_path / "samples.zarr")
    downscale(mean, stores[1], tmp_path / "mean.zarr")
    made, expected = (em.open_analysis(tmp_path / f"{name}.zarr") for name in ("samples", "mean"))
    for name in ("temperature", PRESSURE, RAIN):
        np.testing.assert_allclose(made[name].values, expected[name].values, rtol=3e-7, atol=1e-12, err_msg=name)


def test_the_residual_has_unit_spread_in_the_units_of_its_own_of_every_channel(stores, mean, drawn, tmp_path):
    downscale(mean, stores[1], tmp_path / "mean.zarr")
    made, truth = em.open_analysis(tmp_path / "mean.zarr"), em.open_analysis(stores[0])
    step = load_downscaler(drawn)
    spread = step.plan.targets.unpack(step.residual_std[:, :, 0, 0], axis=1)
    for name in ("temperature", PRESSURE):
        lacking = (truth[name] - made[name]).values[1:].astype(np.float64)  # the first time is in no interval
        squares, means = FINE.mean(lacking**2).mean(0), FINE.mean(lacking).mean(0)
        np.testing.assert_allclose(spread[name][0], np.sqrt(squares - means**2), rtol=1e-4, err_msg=name)


class OfGaussian(torch.nn.Module):
    """The best network of EDM for targets of zero mean and independent amplitudes of given sizes at zonal wavenumbers.

    With the covariance C it is `C / (C + sigma^2)` that takes noisy targets to their mean.
    """

    def __init__(self, sizes):
        super().__init__()
        self.variance = sizes**2

    def forward(self, noisy, time, condition):
        sigma = spread_over(torch.exp(4 * time.double()), noisy.double())
        total = torch.sqrt(sigma**2 + 1)
        x = noisy.double() * total
        spectrum = torch.fft.rfft(x)
        best = torch.fft.irfft(spectrum * self.variance / (self.variance + sigma**2), n=x.shape[-1])
        return ((best - x / total**2) * total / sigma).float()


def test_samples_of_a_gaussian_residual_have_its_covariance_but_for_the_coarse_means(stores, mean):
    """Their covariance is P C P^T, with P the projection on fields whose coarse means are zero."""
    plan, count = load_downscaler(mean, "cpu").plan, 1000
    sizes = torch.linspace(1.5, 0.2, FINE.shape[1] // 2 + 1, dtype=torch.float64)
    blank = Scales.blank(plan, 0, FINE)
    spread = torch.arange(1.0, plan.made.count + 1)
    centre = find_mean(mean, plan, FINE, COARSE)
    step = Downscaler(OfGaussian(sizes), plan, FINE, COARSE, dataclasses.replace(blank, residual=spread), EDM(), centre)
    coarse = torch.zeros(1, plan.targets.count, *COARSE.shape)
    given = Interpolation(COARSE, FINE)(coarse)
    clock = clock_of([np.datetime64("2001-01-05", "ns")], plan, FINE)
    everywhere = [x.expand(count, *x.shape[1:]) for x in (given, clock, coarse)]
    fine = step.sample(step.centre(*everywhere), everywhere[-1], torch.Generator().manual_seed(0), steps=32)
    away = (fine - centre(given, clock, coarse))[:, 0] / spread[:, None, None]
    cells = FINE.shape[0] * FINE.shape[1]
    one = torch.eye(cells, dtype=torch.float64).reshape(cells, 1, 1, *FINE.shape)
    root = torch.fft.irfft(torch.fft.rfft(one) * sizes, n=FINE.shape[1])  # of C, column by column
    flags, none = torch.tensor([True]), torch.zeros(cells, 1, *COARSE.shape)
    expected = torch.fft.rfft(step.keep(root, none, flags)[:, 0, 0]).abs().square().sum((0, 1))
    got = torch.fft.rfft(away).abs().square().sum(2).mean(0)  # (channel, wavenumber), over rows and samples
    assert float(expected[0]) < 0.7 * cells * float(sizes[0] ** 2)  # what the coarse means hold is no longer free
    # of so many rows, two amplitudes each, the power of one wavenumber strays by about a hundredth
    torch.testing.assert_close(got, expected.expand_as(got), rtol=0.05, atol=0)
    assert float(np.abs(CellMeans.of(FINE, COARSE)(away.numpy())).max()) < 1e-6


def test_members_have_the_coarse_means_and_move_with_their_checkpoint(stores, mean, drawn, tmp_path):
    asked, means = em.open_analysis(stores[1]), CellMeans.of(FINE, COARSE)
    downscale(drawn, stores[1], tmp_path / "here.zarr", members=2, sampling_steps=3)
    here = em.open_analysis(tmp_path / "here.zarr")
    for name in ("temperature", PRESSURE, RAIN):
        given = asked[name].values[:, None]
        assert np.abs(means(here[name].values) - given).max() < 1e-6 * np.abs(given).max(), name
    assert float(here[PRESSURE].std("member").mean()) > 1
    em.publish(drawn, tmp_path / "model.tar", licence="cc-by-4.0")
    copied = tmp_path / "copied"
    shutil.copytree(mean, copied)
    train_downscaling(*stores, tmp_path / "again", **DRAWN | {"updates": 2}, mean=copied)
    shutil.rmtree(copied)  # of which a checkpoint has no more need
    load_downscaler(tmp_path / "again" / "checkpoint")
    folder = em.fetch(tmp_path / "model.tar", tmp_path / "fetched")
    downscale(folder, stores[1], tmp_path / "there.zarr", members=2, sampling_steps=3)
    there = em.open_analysis(tmp_path / "there.zarr")
    for name in ("temperature", PRESSURE, RAIN):
        np.testing.assert_array_equal(there[name].values, here[name].values)
    card = (folder / "README.md").read_text()
    assert checkpoint.describe(mean)["sha256"] in card and "members=" in card


def test_the_field_of_the_mean_is_made_once_for_all_members(stores, drawn, tmp_path):
    step, made = load_downscaler(drawn), []
    step.mean.network.register_forward_hook(lambda *_: made.append(1))
    counts = []
    for members in (1, 3):
        downscale(step, stores[1], tmp_path / f"{members}.zarr", members=members, sampling_steps=1)
        counts.append(len(made))
        made.clear()
    assert counts[0] == counts[1] > 0
    one, several = (em.open_analysis(tmp_path / f"{members}.zarr")[PRESSURE].values for members in (1, 3))
    np.testing.assert_array_equal(several[:, 0], one)  # the first of several, and the others are not it
    assert np.abs(several[:, 1] - several[:, 0]).mean() > 1


def test_a_stopped_training_ends_with_the_bits_of_one_that_ran_through(stores, mean, drawn, tmp_path):
    given = dict(zip(("fine", "coarse"), stores, strict=True)) | {"output": tmp_path, "mean": mean, "save_every": 4}
    options, asked = DownscalingOptions.of(given | DRAWN), iter([False] * 5 + [True])
    hooks = StageHooks(stopping=lambda: contextlib.nullcontext(lambda: next(asked)))
    with pytest.raises(Interrupted):
        DownscalingTraining(options, hooks).run()
    DownscalingTraining(options).run()
    whole, parts = checkpoint.load(drawn)[0], checkpoint.load(tmp_path / "checkpoint")[0]
    assert whole.keys() == parts.keys()
    for name, tensor in parts.items():
        torch.testing.assert_close(tensor, whole[name], rtol=0, atol=0, msg=name)
    kept = checkpoint.load(mean)[0]
    for name, tensor in whole.items():
        if name.startswith("mean."):  # is not trained further
            torch.testing.assert_close(tensor, kept[name.removeprefix("mean.")], rtol=0, atol=0, msg=name)


def test_a_finished_training_needs_its_mean_no_more_and_another_one_does(stores, mean, tmp_path):
    shutil.copytree(mean, tmp_path / "mean")
    given = dict(zip(("fine", "coarse"), stores, strict=True)) | {"mean": tmp_path / "mean", "output": tmp_path / "run"}
    given |= DRAWN | {"updates": 1}
    first = train_downscaling(**given)
    shutil.rmtree(tmp_path / "mean")
    again = train_downscaling(**given)
    assert again.metadata == first.metadata
    assert "complete in" in DownscalingTraining(DownscalingOptions.of(given)).describe()
    with pytest.raises(ValueError, match="other settings or data"):
        train_downscaling(**given | {"seed": 3})
    for more in ({"output": tmp_path / "elsewhere"}, {"seed": 3, "overwrite": True}):
        with pytest.raises(CheckpointError, match="Expected a checkpoint in .*mean"):
            train_downscaling(**given | more)


def test_another_mean_is_another_training(stores, mean, drawn, tmp_path):
    other = train_downscaling(*stores, tmp_path / "other", **OPTIONS | {"updates": 1})
    assert other.metadata["sha256"] != checkpoint.describe(mean)["sha256"]
    shutil.copytree(mean, tmp_path / "moved")
    where = dict(zip(("fine", "coarse"), stores, strict=True)) | {"output": drawn.parent}

    def describe(path):
        return DownscalingTraining(DownscalingOptions.of(where | DRAWN | {"mean": path})).describe()

    assert "about the mean of" in describe(tmp_path / "moved")  # the same one, elsewhere
    with pytest.raises(ValueError, match="other settings or data"):
        describe(tmp_path / "other" / "checkpoint")


def test_a_mean_that_does_not_fit_is_refused_in_a_sentence(stores, mean, drawn, tmp_path):
    def refused(path, said, kind=ValueError, fine=stores[0], coarse=stores[1], **more):
        given = {"fine": fine, "coarse": coarse, "output": tmp_path / "r", "mean": path}
        with pytest.raises(kind, match=said):
            DownscalingTraining(DownscalingOptions.of(given | DRAWN | more)).describe()

    whole = fine_planet(25)
    refused(drawn, "kind deterministic as the mean, got one of kind generative in .*checkpoint")
    refused(tmp_path, "Expected a checkpoint in", CheckpointError)
    names = "of the targets surface_pressure as this training has, got .*temperature of 2 levels.* in .*checkpoint"
    refused(mean, names, targets=[PRESSURE])
    refused(mean, "given .*land_sea_mask as this training has, got ", inputs=["land_sea_mask"])
    other = write_store(tmp_path, coarsened(whole, grid=Grid.gaussian(12)), "other.zarr")
    refused(mean, "from the grid 12 x 24 .* got 8 x 16", coarse=other)
    finer = write_store(tmp_path, fine_planet(25, Grid.gaussian(24)), "finer.zarr")
    refused(mean, "to the grid 24 x 48 .* got 16 x 32", fine=finer)
    longer = write_store(tmp_path, coarsened(whole, 4), "longer.zarr")
    refused(mean, "with steps of 6 h in 24 h as this training has, got 6 h in 6 h", coarse=longer)

    def changed(name, change):
        """The fine and the coarse store after a change to both."""
        pair = zip(("fine", "coarse"), (whole, coarsened(whole)), strict=True)
        return {kind: write_store(tmp_path, change(each), f"{kind}_{name}.zarr") for kind, each in pair}

    def attribute(name, **more):
        return lambda planet: planet.assign({name: planet[name].assign_attrs(more)})

    celsius = changed("celsius", attribute("temperature", units="degC"))
    refused(mean, "with temperature in degC as this training has, got K in .*checkpoint", **celsius)
    upward = changed("upward", attribute(RAIN, sign="negative"))
    refused(mean, f"with {RAIN} in kg m-2 s-1, negative as this training has, got kg m-2 s-1, positive", **upward)
    levels = changed("higher", lambda planet: planet.assign(half_level_b=planet["half_level_b"] ** 2))
    refused(mean, "with temperature on levels 125, 625 as this training has, got 250, 750 in", **levels)
    saved = checkpoint.load(mean)
    older = {name: value for name, value in saved[1]["plan"].items() if name != "levels"}
    checkpoint.save(tmp_path / "older", saved[0], saved[1] | {"plan": older})  # as written before levels were told
    given = {"output": tmp_path / "r", "mean": tmp_path / "older"}
    assert "about the mean" in DownscalingTraining(DownscalingOptions.of(given | levels | DRAWN)).describe()
    with pytest.raises(ValueError, match="kind: generative beside mean, got deterministic"):
        DownscalingOptions.of({"fine": "f", "coarse": "c", "output": "o", "mean": mean})
