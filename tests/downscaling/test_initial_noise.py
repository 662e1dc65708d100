"""The noise that samples begin as: its spectra, that it is alike everywhere, and what the coarse means leave of it."""

import numpy as np
import pytest
import torch
from fake_gpu import CUDA, fake_gpu
from pair_of_stores import COARSE, FINE, SMALL, Nothing, coarsened, fine_planet, two_stores
from small_store import write_store

from emulator.downscaling.downscaler import make_downscaler
from emulator.downscaling.measuring import fit_noise, measured
from emulator.downscaling.noise import InitialNoise, degrees_of
from emulator.downscaling.options import DownscalingOptions
from emulator.downscaling.pairs import Pairs
from emulator.downscaling.plan import Plan
from emulator.downscaling.saved import load_downscaler
from emulator.downscaling.training import DownscalingTraining, train_downscaling
from emulator.model import checkpoint
from emulator.planet.grid import Grid
from emulator.sphere.cell_means import CellMeans
from emulator.store.analysis import open_analysis

DEGREES = degrees_of(FINE)
OPTIONS = {"network": SMALL, "kind": "generative", "updates": 2, "batch_size": 4, "scale_samples": 8}


@pytest.fixture(scope="module")
def drawn(stores, tmp_path_factory):
    """The checkpoint of a network that draws samples, hardly trained."""
    folder = tmp_path_factory.mktemp("drawn")
    train_downscaling(*stores, folder, **OPTIONS)
    return folder / "checkpoint"


@pytest.mark.parametrize(
    "grid", [FINE, Grid.equiangular(17, 32, poles=True), Grid.equiangular(16, 32)], ids=Grid.describe
)
def test_noise_has_its_spectra_and_is_alike_everywhere(grid):
    degrees, count = degrees_of(grid), 4000
    noise = InitialNoise(grid, 2, degrees)
    white = noise.power.clone()
    noise.power = torch.stack([torch.linspace(0.1, 1, degrees + 1), torch.linspace(1, 0.1, degrees + 1) ** 2]).double()
    drawn = noise(count, torch.Generator().manual_seed(0), torch.device("cpu"))
    assert drawn.shape == (count, 2, *grid.shape)
    # a degree has 2l + 1 numbers of one variance, whose mean square strays by sqrt(2 / (2l + 1) / count)
    strays = np.sqrt(2 / (2 * np.arange(degrees + 1) + 1) / count)
    assert np.all(np.abs((noise.measured(drawn).mean(0) / noise.power - 1).numpy()) < 5 * strays)
    # the variance of a cell is the sum of the powers, at the poles too, but for what is beyond all degrees
    noise.power[:, -1] = 0
    variance = noise(count, torch.Generator().manual_seed(1), torch.device("cpu")).double().square().mean(0)
    assert float((variance / noise.power.sum(1)[:, None, None] - 1).abs().max()) < 6 * np.sqrt(2 / count)
    cells = torch.randn((count, 1, *grid.shape), generator=torch.Generator().manual_seed(2))
    assert float(white.sum()) == pytest.approx(2)
    assert np.all(np.abs(noise.measured(cells).mean(0)[0] / white[0] - 1).numpy() < 5 * strays)


def test_noise_is_drawn_and_fitted_on_the_device_of_its_fields(drawn):
    step = load_downscaler(drawn, "cpu")
    with fake_gpu() as copies:
        there = step.to(CUDA)
        assert there.drawn(2, None, CUDA).device == CUDA
        assert there.initial_noise.measured(there.left_open(there.initial_noise(2, None, CUDA))).device == CUDA
    assert not copies.down


def test_white_noise_where_there_are_no_spectra():
    generator = torch.Generator().manual_seed(1)
    drawn = InitialNoise(FINE, 2, 0)(3, generator, torch.device("cpu"))
    assert torch.equal(drawn, torch.randn((3, 2, *FINE.shape), generator=torch.Generator().manual_seed(1)))
    region = Grid.from_coordinates(np.linspace(60.0, 40.0, 11), np.linspace(0.0, 30.0, 16))
    assert degrees_of(region) == 0


def test_samples_of_a_network_of_zeros_have_the_power_of_what_interpolation_lacks(stores):
    fine, coarse = map(open_analysis, stores)
    pairs = Pairs(fine, coarse, Plan.of(fine, coarse, None, ()), (None, None), stores)
    scales = measured(pairs, torch.zeros(0, *FINE.shape), 99, DEGREES)
    step = load_like(pairs, scales)
    step.network = Nothing()
    batch = pairs.batch(pairs.some_starts())
    given, truth = batch.forcing[:, 0], batch.diagnostic[:, 0]
    about = step.centre(given, batch.clock[:, 0], batch.coarse)
    lacks = (truth - about[0].flatten(1, 2)) / step.residual_std.flatten(0, 1)
    generator = torch.Generator().manual_seed(2)
    added = [step.sample(about, batch.coarse, generator, 1) - about[0] for _ in range(40)]
    added = (torch.cat(added) / step.residual_std).flatten(1, 2)
    noise = step.initial_noise
    wanted, got = (noise.measured(fields).mean(0).numpy() for fields in (lacks, added))
    assert got.sum(1) == pytest.approx(wanted.sum(1), rel=0.06)  # fitted on 32 draws
    wanted, got = (
        power[:, COARSE.shape[0] :] for power in (wanted, got)
    )  # which coarse cells do not resolve, and beyond
    held = wanted > 0.05  # of one pattern of mountains, at whose weakest degrees others leak
    assert held.sum() > 12
    np.testing.assert_allclose(got[held], wanted[held], rtol=0.15)


@pytest.mark.parametrize("rain", [0.0, 1e-14], ids=["none", "little"])
def test_a_channel_of_which_little_or_nothing_is_missing(tmp_path, rain):
    """Noise is in units of what is missing, however small these are, and there is none of nothing."""
    planet, name = fine_planet(9), "mean_total_precipitation_rate"
    planet[name] = planet[name] * np.float32(rain)
    planet[name].attrs = fine_planet(9)[name].attrs
    stores = write_store(tmp_path, planet, "fine.zarr"), write_store(tmp_path, coarsened(planet), "coarse.zarr")
    step = measured_on(stores)
    power, wanted = step.initial_noise.power, torch.ones(step.plan.made.count)
    names, widths = step.plan.targets.names, step.plan.targets.widths
    wanted[sum(widths[: names.index(name)])] *= rain > 0
    fields = step.drawn(40, torch.Generator().manual_seed(6), torch.device("cpu"))
    assert power.isfinite().all() and torch.equal(power.sum(1) > 0, wanted > 0)
    torch.testing.assert_close(step.initial_noise.measured(fields).sum(-1).mean(0), wanted.double(), rtol=0.1, atol=0)


def test_of_several_steps_in_an_interval_noise_leaves_alone_what_the_coarse_fields_tell(tmp_path):
    """Of means their mean over the steps, of instants the last one; every step has unit variance nevertheless."""
    step = measured_on(two_stores(tmp_path, steps=4, times=25))
    drawn = step.drawn(60, torch.Generator().manual_seed(7), torch.device("cpu"))
    power = step.initial_noise.measured(drawn).sum(-1).mean(0)
    torch.testing.assert_close(power, torch.ones_like(power), rtol=0.15, atol=0)
    free = step.initial_noise.power.unflatten(0, (4, -1))[:3, step.instant].sum(-1)
    torch.testing.assert_close(free, torch.ones_like(free), rtol=1e-5, atol=0)  # nothing lost, nothing raised
    fields = drawn.unflatten(1, (4, -1)).double() * step.residual_std
    means = torch.from_numpy(CellMeans.of(FINE, COARSE)((fields / fields.std((0, 1, 3, 4), keepdim=True)).numpy()))
    assert step.instant.any() and not step.instant.all()
    assert float(means[:, -1, step.instant].abs().max()) < 1e-6 < 0.1 < float(means[:, 0, step.instant].std())
    assert float(means[:, :, ~step.instant].mean(1).abs().max()) < 1e-6 < 0.1 < float(means[:, 0, ~step.instant].std())


def measured_on(stores):
    """A downscaler with the scales of two stores."""
    fine, coarse = map(open_analysis, stores)
    pairs = Pairs(fine, coarse, Plan.of(fine, coarse, None, ()), (None, None), stores)
    return load_like(pairs, measured(pairs, torch.zeros(0, *FINE.shape), 99, DEGREES))


def load_like(pairs, scales):
    """A downscaler with these scales, as a training makes it."""
    config = {"network": SMALL, "kind": "generative", "objective": {"kind": "edm", "path": "angle"}}
    return make_downscaler(config, pairs.plan, pairs.grid, pairs.coarse.grid, scales)


def test_noise_leaves_the_coarse_means_alone_and_has_the_power_of_such_fields(drawn):
    step = load_downscaler(drawn, "cpu")
    noise, shape = step.initial_noise, (2000, step.plan.made.count, *FINE.shape)
    white = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    wanted = noise.measured(step.left_open(white)).mean(0)
    fit_noise(step, wanted)
    fields = step.drawn(2000, torch.Generator().manual_seed(3), torch.device("cpu"))
    assert float(np.abs(CellMeans.of(FINE, COARSE)(fields.numpy())).max()) < 1e-6
    with torch.autocast("cpu", torch.bfloat16):  # of a training whose network computes in half precision
        assert torch.equal(step.drawn(2000, torch.Generator().manual_seed(3), torch.device("cpu")), fields)
    got, held = noise.measured(fields).mean(0), wanted > 0.02 * wanted.sum(1, keepdim=True)
    assert held.sum(1).min() >= 8
    torch.testing.assert_close(got.sum(1), wanted.sum(1), rtol=0.02, atol=0)
    torch.testing.assert_close(got[held], wanted[held], rtol=0.2, atol=0)
    assert (noise.power.sum(1) > 1.2 * wanted.sum(1)).all()  # as the coarse means take the rest


def test_checkpoints_from_before_noise_had_spectra_draw_what_they_drew(drawn, tmp_path):
    tensors, told = checkpoint.load(drawn)
    assert told["degrees"] == DEGREES and "initial_noise.power" in tensors
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("initial_noise.")}
    checkpoint.save(tmp_path / "older", tensors, {name: value for name, value in told.items() if name != "degrees"})
    step = load_downscaler(tmp_path / "older", "cpu")
    drawn = step.drawn(2, torch.Generator().manual_seed(4), torch.device("cpu"))
    white = torch.randn((2, step.plan.made.count, *FINE.shape), generator=torch.Generator().manual_seed(4))
    assert torch.equal(drawn, white)


def test_a_finished_training_from_before_noise_had_spectra_is_left_alone(stores, drawn, tmp_path):
    given = dict(zip(("fine", "coarse"), stores, strict=True)) | {"output": tmp_path} | OPTIONS
    training = DownscalingTraining(DownscalingOptions.of(given))
    tensors, told = checkpoint.load(drawn)
    older = training.identity(*map(open_analysis, stores), degrees=0)
    assert older != told["identity"] == training.identity(*map(open_analysis, stores))
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("initial_noise.")}
    told = {name: value for name, value in told.items() if name != "degrees"} | {"identity": older}
    checkpoint.save(tmp_path / "checkpoint", tensors, told)
    before = checkpoint.describe(tmp_path / "checkpoint")
    assert "white noise" in training.describe()
    assert train_downscaling(**given).metadata == before
    with pytest.raises(ValueError, match="other settings or data"):
        train_downscaling(**given | {"seed": 3})
    assert train_downscaling(**given | {"overwrite": True}).metadata["degrees"] == DEGREES
