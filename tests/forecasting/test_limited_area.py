"""A limited area with driving data at its boundary: what it is given, what it prescribes, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import xarray as xr
from limited_area_stores import COLUMNS, GLOBE, ROWS, box, globe, stores
from small_store import write_store

import emulator as em
from emulator.data.border import Border
from emulator.data.boundary import Boundary
from emulator.forecasting.driving import Forecasts, driven
from emulator.forecasting.forecaster import Forecaster
from emulator.forecasting.options import DrivingOptions
from emulator.forecasting.schedule import Schedule
from emulator.model.nudging import Nudging
from emulator.planet.frame import Frame
from emulator.planet.grid import Grid
from emulator.store.analysis import open_analysis
from emulator.store.schema import grid_of
from emulator.training.boundary import border_of
from emulator.training.options.sections import BoundaryOptions
from emulator.verify.driving import on_domain

NAMES, LEVELS = ("temperature", "surface_pressure"), (2, 0)
OUTSIDE, INSIDE = Border(NAMES, LEVELS, 2), Border(NAMES, LEVELS, 2, "inside")
DOMAIN = grid_of(box(globe(2)))
STEPS = 3
NUDGING = {"length_km": 6000, "hours": 0}
WINDOWED = {
    "fuxi": dict(kind="fuxi", width=8, blocks=2, heads=2, window=2, groups=2),
    "wxformer": dict(kind="wxformer", widths=(8, 16), depths=(1, 1), strides=(2, 2), stencils=(2, 4), far=(2, 3))
    | dict(near=3, head_width=4),
    "aurora": dict(kind="aurora", embed_dim=16, depths=[1, 1], up_depths=[1, 1], heads=[2, 4], window=[2, 2, 2]),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Paths of the stores, and of a trained limited area by the place of its boundary."""
    folder = tmp_path_factory.mktemp("limited")
    driving, store = stores(folder)
    em.statistics(store, folder / "statistics.nc")
    for place in ("outside", "inside"):
        em.train(
            store,
            folder / "statistics.nc",
            folder / place,
            network={"kind": "unet", "width": 4, "depth": 1},
            boundary={"store": driving, "width": 2, "place": place},
            conservation={"kind": "none"},
            phases=[{"updates": 2, "batch_size": 2, "rollout_steps": 2}],
        )
    return driving, store, folder


def as_forecasts(dataset: xr.Dataset, inits, leads: int) -> xr.Dataset:
    """Perfect forecasts: the analysis at its valid times."""
    step = np.timedelta64(6, "h")
    runs = [dataset.sel(time=init + np.arange(leads) * step) for init in inits]
    lead = (np.arange(leads) * step).astype("timedelta64[ns]")
    runs = [run.assign_coords(time=lead).rename(time="lead_time") for run in runs]
    return xr.concat(runs, "init_time").assign_coords(init_time=np.array(inits))


def test_domain_and_frame_make_up_the_whole():
    frame = Frame.of(DOMAIN, 2)
    assert frame.whole.shape == (DOMAIN.shape[0] + 4, DOMAIN.shape[1] + 4)
    assert len(frame.index) == np.prod(frame.whole.shape) - np.prod(DOMAIN.shape)
    assert frame.points.cell_area.sum() + DOMAIN.cell_area.sum() == pytest.approx(
        frame.whole.cell_area.sum(), rel=1e-12
    )
    inside = Frame.of(DOMAIN, 2, inside=True)
    assert inside.interior.sum() == (DOMAIN.shape[0] - 4) * (DOMAIN.shape[1] - 4)
    assert inside.interior.sum() + len(inside.index) == DOMAIN.area.size


def test_driving_data_on_the_same_cells_come_as_they_are_and_between_times_as_their_mean():
    dataset = globe(9)
    time = dataset["time"].values
    given = Boundary(dataset, OUTSIDE, DOMAIN).given([None], [time[2]], [time[3]])
    rows, columns = (slice(part.start - 2, part.stop + 2) for part in (ROWS, COLUMNS))
    around = dataset.isel(latitude=rows, longitude=columns)
    index = Frame.of(DOMAIN, 2).index
    for half, at in ((0, 2), (1, 3)):
        expected = np.concatenate(
            [around[n].isel(time=at).values.reshape(max(1, count), -1) for n, count in zip(NAMES, LEVELS, strict=True)]
        )[:, index]
        np.testing.assert_array_equal(given[0, 3 * half : 3 * half + 3].numpy(), expected)
    sparse = Boundary(dataset.isel(time=slice(None, None, 2)).assign_attrs(time_step_seconds=43200.0), OUTSIDE, DOMAIN)
    exact = Boundary(dataset, OUTSIDE, DOMAIN)
    between = sparse.given([None], [time[3]], [time[4]])[0, :3]
    ends = exact.given([None], [time[2]], [time[4]])[0]
    torch.testing.assert_close(between, (ends[:3] + ends[3:]) / 2, rtol=1e-6, atol=0)


def test_a_frame_on_another_grid_is_interpolated_bilinearly():
    dataset = globe(3)
    linear = dataset["latitude"] * xr.ones_like(dataset["longitude"])
    dataset["surface_pressure"] = (dataset["surface_pressure"] * 0 + linear + dataset["time"].dt.hour).astype(
        np.float32
    )
    fine = Grid.box(12, 16, (20.0, 50.0, 100.0, 140.0))
    boundary = Boundary(dataset, Border(("surface_pressure",), (0,), 3), fine)
    time = dataset["time"].values
    given = boundary.given([None], [time[0]], [time[1]])[0]
    torch.testing.assert_close(
        given[0].double(), torch.from_numpy(boundary.frame.points.latitude), rtol=1e-6, atol=1e-5
    )


REFUSED = {
    "variable": (lambda d: d.drop_vars("temperature"), "Expected temperature at the boundary"),
    "levels": (lambda d: d.isel(level=[0]), "on 2 levels"),
    "coverage": (box, "that cover the boundary"),
    "time": (lambda d: d.isel(time=slice(0, 3)), "reach as far"),
    "missing": (lambda d: d.assign(missing=("time", np.arange(8) == 3)), "no values at"),
    "gap": (
        lambda d: d.assign(temperature=d["temperature"].where(d["time"] != d["time"][3])),
        "lacks some of temperature",
    ),
    "still": (lambda d: d.isel(time=[0] * 8).assign_coords(time=d["time"]), "the same values"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_driving_data_that_do_not_do_are_refused_in_a_sentence(kind):
    change, words = REFUSED[kind]
    time = globe(8)["time"].values
    with pytest.raises(ValueError, match=words):
        Boundary(change(globe(8)), OUTSIDE, DOMAIN).given([None], [time[3]], [time[4]])


def test_driving_data_on_other_levels_than_those_of_the_training_are_refused(trained):
    """As many of them, which a count does not tell."""
    driving, _, folder = trained
    border = em.load_model(folder / "outside" / "checkpoint", "cpu").layout.border
    assert {name: border.at_of(name) for name in border.names} == {
        "temperature": (500.0, 850.0),
        "surface_pressure": (),
    }
    other = open_analysis(driving).assign_coords(level=("level", [700.0, 850.0], {"units": "hPa"}))
    with pytest.raises(
        ValueError, match="temperature at the boundary on the levels 500, 850, the store has it on 700, 850"
    ):
        Boundary(other, border, DOMAIN)
    layout = em.load_model(folder / "inside" / "checkpoint", "cpu").layout
    moved = dataclasses.replace(layout, border=None, at={"temperature": [700.0, 850.0]})
    with pytest.raises(
        ValueError, match="own levels for a boundary inside the domain, 700, 850, .* has it on 500, 850"
    ):
        border_of(BoundaryOptions(store=driving, width=2, place="inside"), moved, DOMAIN)


def test_forecasts_that_do_not_start_or_reach_as_far_are_refused():
    dataset = globe(12)
    time = dataset["time"].values
    boundary = Boundary(as_forecasts(dataset, time[[0, 2]], 4), OUTSIDE, DOMAIN)
    analysed = Boundary(dataset, OUTSIDE, DOMAIN)
    for init, at in ((0, 2), (2, 4)):
        steps = [time[init]], [time[at]], [time[at + 1]]
        torch.testing.assert_close(boundary.given(*steps), analysed.given(*steps), rtol=0, atol=0)
    with pytest.raises(ValueError, match="Expected a driving forecast from"):
        boundary.given([time[1]], [time[1]], [time[2]])
    with pytest.raises(ValueError, match="reach as far as the forecast, lead 24 h"):
        boundary.given([time[0]], [time[3]], [time[4]])
    late = Boundary(boundary.dataset, OUTSIDE, DOMAIN, delay=21600.0)
    torch.testing.assert_close(
        late.given([time[1]], [time[1]], [time[2]]), analysed.given([None], [time[1]], [time[2]]), rtol=0, atol=0
    )


def test_frames_that_do_not_fit_are_refused():
    for grid, width, words in (
        (GLOBE, 2, "a box or a map"),
        (DOMAIN, 9, "before the poles"),
        (Grid.box(8, 30, (-20.0, 20.0, 10.0, 310.0)), 4, "sides do not meet"),
    ):
        with pytest.raises(ValueError, match=words):
            Frame.of(grid, width)
    with pytest.raises(ValueError, match="cells inside a frame"):
        Frame.of(DOMAIN, 5, inside=True)


@pytest.mark.parametrize("place", ["outside", "inside"])
def test_what_passes_the_boundary_matters_and_a_frame_inside_is_prescribed_bit_for_bit(trained, place):
    driving, store, folder = trained
    dataset, init = open_analysis(store), "2001-01-03T06"
    whole = open_analysis(driving)
    model = em.load_model(folder / place / "checkpoint", "cpu")
    found = em.forecast(model, dataset, init, lead="18 hours")
    time = dataset["time"].values
    at = int(np.searchsorted(time, np.datetime64(init)))
    moved = as_forecasts(whole + 0, time[[at]], STEPS + 1)
    moved["temperature"] = moved["temperature"] + np.float32(2)
    moved.attrs = dict(whole.attrs) | {"fingerprint": "warmer"}
    boundary = Boundary(moved, model.layout.border, grid_of(dataset), "warmer")
    forecaster = Forecaster([model], dataset).driven_by(boundary)
    blocks = [block.fields() for _, block in forecaster.blocks(time[[at]], Schedule.every(STEPS))]
    warmer = np.concatenate([block["temperature"][0] for block in blocks])
    assert np.abs(warmer[1:] - found["temperature"].values[0, 1:]).max() > 1e-4
    record = json.loads(found.attrs["boundary"])
    assert record["kind"] == "analysis" and record["place"] == place
    frame = ~boundary.frame.interior
    assert frame.any() == (place == "inside")
    truth = box(whole)["temperature"].values[at : at + STEPS + 1]
    np.testing.assert_array_equal(found["temperature"].values[0][..., frame], truth[..., frame])
    np.testing.assert_array_equal(warmer[1:][..., frame], (truth[1:] + np.float32(2))[..., frame])


@pytest.mark.parametrize("kind", WINDOWED)
def test_a_windowed_transformer_is_trained_with_a_boundary_and_keeps_its_frame(tmp_path, kind):
    driving, store = stores(tmp_path)
    em.statistics(store, tmp_path / "statistics.nc")
    em.train(
        store,
        tmp_path / "statistics.nc",
        tmp_path / "out",
        network=WINDOWED[kind],
        boundary={"store": driving, "width": 2, "place": "inside"},
        conservation={"kind": "none"},
        phases=[{"updates": 2, "batch_size": 2, "rollout_steps": 2}],
    )
    init = "2001-01-03T06"
    found = em.forecast(tmp_path / "out" / "checkpoint", store, init, lead="12 hours")["temperature"].values[0]
    truth = open_analysis(store)["temperature"].sel(time=slice(init, "2001-01-03T18")).values
    frame = ~Frame.of(DOMAIN, 2, inside=True).interior
    np.testing.assert_array_equal(found[..., frame], truth[..., frame])
    assert np.abs(found[1:] - truth[:1])[..., ~frame].max() > 0 and np.isfinite(found).all()


@pytest.mark.parametrize("place", ["outside", "inside"])
def test_nudged_forecasts_have_the_large_scales_of_what_drives_them(trained, place):
    """Within the bounds of the training, which are let go here; a frame inside keeps the driving bits."""
    driving, store, folder = trained
    path, init = folder / place / "checkpoint", "2001-01-03T06"

    def run(**more):
        return em.forecast(path, store, init, lead="18 hours", bounds="none", boundary={"store": driving, **more})

    plain, nudged = run(), run(nudging=NUDGING)
    truth = open_analysis(store).sel(time=slice(init, "2001-01-04T00"))
    frame = Frame.of(DOMAIN, 2, inside=place == "inside")
    large = Nudging(DOMAIN, [0], 6e6, 1.0, frame.interior).large
    inner = slice(None) if place == "outside" else slice(2, -2)
    errors = []
    for found in (plain, nudged):
        departure = (found["temperature"].values[0] - truth["temperature"].values)[..., inner, inner]
        errors.append(large(torch.from_numpy(departure))[1:].abs().max().item())
    assert errors[1] < 1e-3 < 0.02 < errors[0]
    if place == "inside":
        np.testing.assert_array_equal(
            nudged["temperature"].values[0][..., ~frame.interior], truth["temperature"].values[..., ~frame.interior]
        )
    told = json.loads(nudged.attrs["boundary"])["nudging"]
    assert told == {**NUDGING, "variables": ["surface_pressure", "temperature"]}
    assert "nudging" not in json.loads(plain.attrs["boundary"])
    warm = run(nudging={**NUDGING, "variables": ["temperature"]}).isel(lead_time=1)
    np.testing.assert_array_equal(warm["surface_pressure"], plain["surface_pressure"].isel(lead_time=1))
    np.testing.assert_array_equal(warm["temperature"], nudged["temperature"].isel(lead_time=1))


def test_nudging_of_what_the_boundary_lacks_and_to_data_on_other_levels_is_refused(trained, tmp_path):
    driving, store, folder = trained
    model = folder / "outside" / "checkpoint"

    def run(path=driving, **more):
        given = {"store": path, "nudging": NUDGING | more}
        em.forecast(model, store, "2001-01-03T06", lead="6 hours", boundary=given)

    with pytest.raises(
        ValueError, match="both the state and its boundary, surface_pressure, temperature, got humidity"
    ):
        run(variables=["humidity"])
    with pytest.raises(ValueError, match=r"length_km above \d+, the shortest wave"):
        run(length_km=100)
    other = globe().assign_coords(level=[300.0, 700.0])
    path = write_store(tmp_path, other, "other.zarr")
    with pytest.raises(ValueError, match="temperature at the boundary on the levels 500, 850, .* has it on 300, 700"):
        run(path, variables=["temperature"])


def test_a_rollout_that_starts_again_has_the_same_bits(trained):
    driving, store, folder = trained
    dataset = open_analysis(store)
    model, times = em.load_model(folder / "outside" / "checkpoint", "cpu"), dataset["time"].values[[4, 9]]
    forecasts = Forecasts(times, Forecaster([model], dataset).forcing.step, STEPS)

    def run(position=None, steps=STEPS):
        boundary, _ = driven(DrivingOptions(store=driving), model, grid_of(dataset), forecasts)
        forecaster = Forecaster([model], dataset).driven_by(boundary)
        return list(forecaster.blocks(times, Schedule.every(steps), position))

    whole, first = run(), run(steps=1)
    again = run(position=first[-1][0])
    expected = np.concatenate([block.fields()["temperature"] for _, block in whole], 1)
    rest = np.concatenate([block.fields()["temperature"] for _, block in again], 1)
    np.testing.assert_array_equal(rest, expected[:, -rest.shape[1] :])


def test_a_network_without_its_boundary_is_refused(trained):
    _, store, folder = trained
    dataset, model = open_analysis(store), em.load_model(folder / "outside" / "checkpoint", "cpu")
    with pytest.raises(ValueError, match="Expected driving data for the boundary"):
        Forecaster([model], dataset).driven_by(None)
    with pytest.raises(ValueError, match="the driving data|driving data that reach"):
        em.forecast(model, dataset, str(dataset["time"].values[-2]), lead="18 hours")


def test_the_loss_leaves_a_prescribed_frame_out(trained):
    from emulator.losses.build import Weighted

    driving, store, folder = trained
    from emulator.data.channels import Layout
    from emulator.data.normalisation import open_statistics
    from emulator.data.samples import Samples

    dataset = open_analysis(store)
    layout = Layout.of(dataset)
    border = Border(layout.prognostic.names, layout.prognostic.levels, 2, "inside")
    boundary = Boundary(open_analysis(driving), border, grid_of(dataset))
    samples = Samples(dataset, layout, boundary=boundary)
    error = Weighted(samples, open_statistics(folder / "statistics.nc"), {}).error()
    state = torch.zeros(1, 3, *samples.shape)
    state[..., torch.from_numpy(~boundary.frame.interior)] = 1e6
    none = torch.zeros(1, 0, *samples.shape)
    assert error(state, none, torch.zeros_like(state), none) == 0
    state[0, 0, 4, 5] = 1.0
    assert error(state, none, torch.zeros_like(state), none) > 0


def test_a_driving_forecast_on_the_domain_keeps_cells_that_are_the_same():
    dataset = globe(6)
    forecasts = as_forecasts(dataset, dataset["time"].values[[0, 1]], 3)
    found = on_domain(forecasts, DOMAIN)
    for name in NAMES:
        np.testing.assert_array_equal(found[name].values, box(forecasts)[name].values)
    with pytest.raises(ValueError, match="driving data that cover"):
        on_domain(box(forecasts), grid_of(dataset.isel(latitude=slice(1, 15), longitude=slice(4, 24))))
