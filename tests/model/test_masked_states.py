"""Fields that do not exist everywhere: nothing under a mask changes anything, and nothing that is missing gets in."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch.testing import assert_close

from emulator.data.channels import Layout, More
from emulator.data.samples import Samples
from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.options import EnsembleOptions
from emulator.forecasting.schedule import Schedule
from emulator.losses.build import Weighted
from emulator.losses.options import LossOptions, RegionWeight
from emulator.model.assemble import buffers, input_count, make_step
from emulator.planet.grid import Grid
from emulator.store.statistics import STATISTICS
from emulator.training.window import StepLoss, Window, WindowOptions

NETWORK = {"kind": "unet", "width": 4, "depth": 1}


def ocean(planet, under=np.nan, seed=0):
    """A two-level ocean: potential temperature of two depths, the lower one smaller, and a flux; `under`: what lies there.

    `under` is a number, or "noise".
    """
    rng = np.random.default_rng(seed)
    land = planet["land_sea_mask"].values > 0.5
    shelf = land | (np.abs(planet["latitude"].values) > 50)[:, None]
    exists = np.stack([~land, ~shelf])
    warmth = 10 + planet["temperature"].values[:, :2].astype(np.float32) / 30
    flux, co2 = planet["mean_surface_sensible_heat_flux"].values, planet["sea_surface_temperature"].values
    moving = ("time", "depth", "latitude", "longitude")

    def filled(values, where):
        other = 1e4 * rng.standard_normal(values.shape) if under == "noise" else np.full(values.shape, under)
        return np.where(where, values, other).astype(np.float32)

    about = {"units": "K", "role": "prognostic", "domain": "ocean_mask", "cell_methods": "time: point"}
    flat = {"units": "W m-2", "role": "diagnostic", "domain": "ocean", "cell_methods": "time: mean"}
    given = {"units": "K", "role": "forcing", "domain": "ocean", "cell_methods": "time: point"}
    fields = {
        "thetao": (moving, filled(warmth, exists), about),
        "hfds": (moving[:1] + moving[2:], filled(flux, ~land), flat),
        "tos_given": (moving[:1] + moving[2:], filled(co2, ~land), given),
        "bathymetry": (
            moving[2:],
            filled(1e3 + 0 * flux[0], ~land),
            {"units": "m", "role": "static", "domain": "ocean"},
        ),
        "ocean_mask": (moving[1:], exists.astype(np.float32), {"units": "1", "role": "static"}),
    }
    kept = planet[["land_sea_mask"]].assign_coords(time=planet["time"], depth=("depth", [5.0, 100.0], {"units": "m"}))
    return kept.assign(fields).assign_attrs(time_step_seconds=21600.0)


def statistics_of(data):
    """Of the cells that exist, straight from the definition."""
    area = Grid.from_coordinates(data["latitude"], data["longitude"]).area
    out = {}
    for name in ("thetao", "hfds", "tos_given"):
        values = data[name].values.astype(np.float64)

        def mean(x):
            weights = np.where(np.isfinite(x), area, 0.0)
            return np.nansum(x * weights, (-2, -1)).sum(0) / weights.sum((-2, -1)).sum(0)

        rows = {"difference_mean": mean(np.diff(values, axis=0)), "mean": mean(values)}
        rows["std"] = np.sqrt(mean((values - rows["mean"][..., None, None]) ** 2))
        change = np.diff(values, axis=0)
        rows["difference_std"] = np.sqrt(mean((change - rows["difference_mean"][..., None, None]) ** 2))
        own = values - values.mean(0)
        rows["std_about_time_mean"] = np.sqrt(mean(own**2))
        dims = ("statistic", *data[name].dims[1:-2])
        out[name] = (dims, np.stack([rows.get(each, rows["mean"]) for each in STATISTICS]))
        if name == "thetao":
            for label, found in (("time_mean", values.mean(0)), ("lowest", values.min(0)), ("highest", values.max(0))):
                out[f"{name}:{label}"] = (data[name].dims[1:], found.astype(np.float32))
    return xr.Dataset(out, {"statistic": list(STATISTICS)})


@pytest.fixture(scope="module")
def statistics(planet):
    return statistics_of(ocean(planet))


def made(data, statistics, more=None, network=None, loss="mse"):
    """A step with its samples and loss."""
    layout = Layout.of(data, name="the ocean", more=more or More())
    samples = Samples(data, layout)
    torch.manual_seed(0)
    constants = buffers(samples, statistics)
    step = make_step(NETWORK | (network or {}), layout, samples.grid, constants, None)
    error = Weighted(samples, statistics, {}).loss(LossOptions.of({"kind": loss}))
    return step, samples, StepLoss(error)


def test_a_region_has_its_share_of_the_loss_of_every_field(planet, statistics):
    """Where fields are: the region's share of the weights of a field would else be that of all its cells."""
    data = ocean(planet)
    samples = Samples(data, Layout.of(data, name="the ocean"))
    region = RegionWeight(share=0.4, box=(0, 60, 100, 280))
    weights = Weighted(samples, statistics, {}, region=region).error().weights.double()
    latitude, longitude = map(torch.from_numpy, samples.grid.mesh())
    inside = (latitude >= 0) & (latitude <= 60) & (longitude >= 100) & (longitude <= 280)
    exists = weights > 0
    assert not exists.all() and not torch.equal(exists[0], exists[1])
    shares = (weights * inside).sum((1, 2)) / weights.sum((1, 2))
    assert_close(shares, torch.full_like(shares, 0.4), rtol=1e-6, atol=0)


def test_a_region_of_land_alone_is_refused_for_an_ocean(planet, statistics):
    """Its share was 0 without a word."""
    data = ocean(planet)
    samples = Samples(data, Layout.of(data, name="the ocean"))
    latitude, longitude = samples.grid.latitude, samples.grid.longitude
    row, column = np.argwhere(data["ocean_mask"].values[0] == 0)[0]
    box = (latitude[row] - 1, latitude[row] + 1, longitude[column] - 1, longitude[column] + 1)
    with pytest.raises(ValueError, match="region_weight.*got fields outside alone"):
        Weighted(samples, statistics, {}, region=RegionWeight(share=0.4, box=tuple(map(float, box))))


UNDER = [np.nan, 0.0, 1e30, "noise", np.inf]


@pytest.mark.parametrize("loss", ["mse", "l1", "huber", "spectral", "crps", "energy"])
@pytest.mark.parametrize("more", [More(), More(history=2, mask_channels=True)], ids=["plain", "history and masks"])
def test_no_value_under_a_mask_changes_a_bit_of_losses_and_gradients(planet, statistics, loss, more):
    found = []
    for under in UNDER if loss == "mse" else [np.nan, "noise"]:
        network = {"noise": {"channels": 1}} if loss in ("crps", "energy") else {}
        step, samples, error = made(ocean(planet, under), statistics, more, network, loss)
        batch = samples.batch([4, 9], 2)
        if network:
            noise = torch.randn(4, 2, step.noise.count, 12, 24, generator=torch.Generator().manual_seed(1))
            batch = batch.for_members(2, noise)
        value, _ = Window(step, error)(batch, WindowOptions())
        value.backward()
        found.append([value.detach(), *(p.grad for p in step.parameters())])
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            assert torch.isfinite(ours).all()
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert any((gradient != 0).any() for gradient in found[0][1:])


@pytest.mark.parametrize(
    "ensemble", [None, EnsembleOptions(members=2, kind="noise"), EnsembleOptions(members=2, kind="bred", cycles=2)]
)
def test_forecasts_are_missing_where_a_field_does_not_exist_and_the_same_bits_elsewhere(planet, statistics, ensemble):
    blocks = []
    for under in (np.nan, "noise", 1e30):
        data = ocean(planet, under)
        step, *_ = made(data, statistics)
        forecaster = Forecaster([step.eval()], data, 2, ensemble)
        ((_, block),) = forecaster.blocks(list(data["time"].values[[8, 12]]), Schedule.every(4))
        blocks.append(block.fields())
    inside, land = data["ocean_mask"].values > 0.5, data["land_sea_mask"].values > 0.5
    for name, where in (("thetao", inside), ("hfds", ~land)):
        for block in blocks:
            np.testing.assert_array_equal(np.isfinite(block[name]), np.broadcast_to(where, block[name].shape))
            np.testing.assert_array_equal(block[name], blocks[0][name])
    if ensemble is None:  # lead 0 is the analysis
        start = ocean(planet)["thetao"].values[[8, 12]]
        np.testing.assert_array_equal(blocks[0]["thetao"][:, 0], start)


def test_a_step_shows_zeros_and_masks_and_gives_zeros(planet, statistics):
    step, samples, _ = made(ocean(planet, np.nan), statistics, More(mask_channels=True))
    seen = []
    step.network.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    batch = samples.batch([3], 1)
    poisoned = torch.where(step.exists, batch.start(), torch.nan)
    with torch.no_grad():
        result = step(poisoned, batch.forcing[:, 0], batch.clock[:, 0])
    inside = samples.dataset["ocean_mask"].values > 0.5
    (x,) = seen
    assert x.shape[1] == input_count(step.layout) and torch.isfinite(x).all()
    assert (x[0, :2].numpy()[~inside] == 0).all() and (x[0, :2].numpy()[inside] != 0).any()
    masks = x[0, 3 + 5 + step.layout.static.count :][: step.layout.masks].numpy()
    assert step.layout.masks == 2 and {m.tobytes() for m in masks} == {m.astype(np.float32).tobytes() for m in inside}
    assert (result.state[0].numpy()[~inside] == 0).all() and torch.isfinite(result.state).all()


def test_errors_are_means_over_the_cells_where_a_field_exists(planet, statistics):
    """One standard deviation of the change everywhere costs one, whatever share of the sphere a channel covers."""
    step, samples, error = made(ocean(planet), statistics)
    batch = samples.batch([3], 1)
    state, diagnostic = batch.truth(0)
    off = torch.where(step.exists, step.change_std, 0.0)
    only = torch.zeros(2, 1, 1)
    for channel in range(2):
        only.zero_()[channel] = 1
        value = error.error(state + only * off, diagnostic, state, diagnostic)
        assert float(value) == pytest.approx(1 / 2.2, rel=1e-4)  # two channels of weight 1, a diagnostic of 0.2


def test_a_mask_that_does_not_fit_is_refused(planet):
    data = ocean(planet)
    other = data.assign(thetao=data["thetao"].assign_attrs(domain="nowhere"))
    with pytest.raises(ValueError, match="static field nowhere for the domain 'nowhere' of thetao"):
        Layout.of(other)
    deeper = data.drop_vars("ocean_mask").assign(ocean_mask=(("layer", "latitude", "longitude"), np.ones((3, 12, 24))))
    with pytest.raises(ValueError, match="mask ocean_mask of thetao.*layer"):
        Layout.of(deeper)
