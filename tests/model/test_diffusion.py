"""Diffusion of a rollout: each degree by its rate, winds as vectors, the same over processes, and what refuses it."""

import json

import numpy as np
import pytest
import torch
from small_store import store_of
from small_training import samples_of, trainer
from together import together

import emulator as em
from emulator.model.assemble import states_of
from emulator.model.diffusion import Diffusion, decay_of, with_diffusion
from emulator.networks.signature import Channel
from emulator.planet.grid import Grid

GRID = Grid.gaussian(12)
NAMES = ("temperature", "u_component_of_wind", "v_component_of_wind", "surface_pressure")
CHANNELS = [Channel(name, "state") for name in NAMES]


def harmonics() -> dict[str, tuple[int, np.ndarray]]:
    """By variable a degree, and fields that have no other: zonal, sectoral, and a wind without divergence."""
    latitude, longitude = (np.radians(angle) for angle in GRID.mesh())
    s, c = np.sin(latitude), np.cos(latitude)
    return {
        "temperature": (3, (5 * s**3 - 3 * s) / 2),
        "surface_pressure": (5, c**5 * np.cos(5 * longitude)),
        # of the stream function sin(latitude) cos(latitude) cos(longitude)
        "u_component_of_wind": (2, (s**2 - c**2) * np.cos(longitude)),
        "v_component_of_wind": (2, -s * np.sin(longitude)),
    }


def state(dtype=torch.float64):
    return torch.from_numpy(np.stack([harmonics()[name][1] for name in NAMES]))[None].to(dtype)


def held_by(layer, maps):
    """What the transform's degrees hold of maps."""
    transform = layer.scalars
    return transform.to_maps(transform.synthesise(transform.analyse(transform.from_maps(maps))))


def test_decay_is_that_of_the_diffusion_equation():
    decay = decay_of(12, hours=40, order=4, degree=8, seconds=6 * 3600)
    assert decay[0] == 0
    assert decay[8] == pytest.approx(1 - np.exp(-6 / 40), rel=1e-6)
    assert decay[4] == pytest.approx(1 - np.exp(-6 / 40 * (4 * 5 / (8 * 9)) ** 2), rel=1e-6)
    # two steps of three hours take off what one of six does
    half = decay_of(12, hours=40, order=4, degree=8, seconds=3 * 3600)
    torch.testing.assert_close(1 - (1 - half) ** 2, decay)
    assert decay_of(12, hours=40, order=2, degree=None, seconds=6 * 3600)[11] == pytest.approx(
        1 - np.exp(-6 / 40), rel=1e-6
    )


def test_each_degree_is_damped_by_its_rate_and_winds_are_vectors():
    decay = torch.rand(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer, fields = Diffusion(CHANNELS, GRID, decay).double(), state()
    found = layer(fields, torch.zeros_like(fields[0]))
    for n, name in enumerate(NAMES):
        degree, pattern = harmonics()[name]
        np.testing.assert_allclose(found[0, n], (1 - decay[degree]) * pattern, rtol=0, atol=1e-12)


def test_a_state_at_rest_stays_and_its_mean_is_kept():
    generator = torch.Generator().manual_seed(1)
    layer = Diffusion(CHANNELS, GRID, decay_of(12, 20, 4, None, 21600.0)).double()
    fields = torch.randn(1, 4, *GRID.shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(layer(fields, fields[0]), fields, rtol=0, atol=0)
    resting = torch.randn(4, *GRID.shape, generator=generator, dtype=torch.float64)
    found = layer(fields, resting)
    scalars = [0, 3]
    # of what degrees the grid holds; noise between the points has more, which is damped as the highest
    smooth = layer.scalars.to_maps(
        layer.scalars.synthesise(layer.scalars.analyse(layer.scalars.from_maps(fields[:, scalars])))
    )
    rest = torch.zeros_like(resting)
    whole = fields.clone()
    whole[:, scalars] = smooth
    area = torch.from_numpy(GRID.area)
    mean = ((layer(whole, rest) - whole)[:, scalars] * area).sum((-2, -1))
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-12)
    assert ((found - resting).square() * area).sum() < ((fields - resting).square() * area).sum()


def test_noise_between_the_degrees_is_damped_as_the_highest():
    """A checkerboard, of which the transform holds nothing but little."""
    rows, columns = np.indices(GRID.shape)
    board = torch.from_numpy(np.where((rows + columns) % 2, 1.0, -1.0))[None, None]
    layer = Diffusion(CHANNELS[:1], GRID, decay_of(12, 6, 4, None, 21600.0)).double()
    held = held_by(layer, board)
    rest = torch.zeros_like(board[0])
    found = layer(board - held, rest)
    torch.testing.assert_close(found, (1 - layer.decay[-1]) * (board - held), rtol=0, atol=1e-12)


def in_bands(space, fields, resting, decay):
    layer = Diffusion(CHANNELS, GRID, decay, space).double()
    return space.whole(layer(space.cut(fields), space.cut(resting)), 12)


def test_two_processes_give_what_one_gives():
    fields, resting = torch.randn(2, 2, 4, 12, 24, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    decay = decay_of(12, 20, 4, None, 21600.0).double()
    alone = Diffusion(CHANNELS, GRID, decay).double()(fields, resting[0])
    for part in together(2, in_bands, fields, resting[0], decay):
        torch.testing.assert_close(part, alone, rtol=1e-12, atol=1e-12)


def test_a_step_is_diffused_and_the_one_that_was_given_is_not(planet, tmp_path):
    step = trainer(planet, tmp_path).step.eval()
    samples = samples_of(planet)
    batch = samples.batch([4], 1)
    given = batch.state[:, 0], batch.forcing[:, 0], batch.clock[:, 0]
    with torch.no_grad():
        before = step(*given).state
        none = with_diffusion(step, states_of(samples.layout), samples.grid, torch.zeros(12))
        torch.testing.assert_close(none(*given).state, before, rtol=0, atol=1e-3)
        strong = with_diffusion(step, states_of(samples.layout), samples.grid, torch.full((12,), 0.5))
        assert (strong(*given).state - before).abs().max() > 0.1
        torch.testing.assert_close(step(*given).state, before, rtol=0, atol=0)


def test_budgets_close_and_a_forecast_says_how_it_was_diffused(planet, tmp_path):
    paths = store_of(tmp_path, planet)
    network = {"kind": "unet", "width": 4, "depth": 1}
    em.train(*paths, tmp_path / "out", network=network, phases=[{"updates": 2, "batch_size": 2}])
    model, analysis = em.load_model(tmp_path / "out" / "checkpoint", "cpu"), em.open_analysis(paths[0])
    init, hours = analysis["time"].values[0], {"hours": 6.0, "degree": 8}
    plain, smooth = em.forecast(model, analysis, init, 2), em.forecast(model, analysis, init, 2, diffusion=hours)
    assert "diffusion" not in plain.attrs and json.loads(smooth.attrs["diffusion"]) == hours | {"order": 4}
    assert np.abs(smooth["temperature"] - plain["temperature"]).max() > 1e-3
    for name in ("dry_air", "water", "energy"):
        ours, theirs = (np.abs(each[f"residual_after_{name}"].values[:, 1:]).max() for each in (smooth, plain))
        assert ours < 5 * theirs < 1e-3 * np.abs(smooth[f"residual_before_{name}"].values[:, 1:]).max()
    output = tmp_path / "forecast.zarr"
    written = em.forecast(model, analysis, init, 2, diffusion=hours, output=output)
    np.testing.assert_array_equal(written["temperature"].values, smooth["temperature"].values)
    other = em.forecast(
        model, analysis, init, 2, diffusion={"hours": 24.0}, output=output
    )  # not taken for the one before
    assert json.loads(other.attrs["diffusion"])["hours"] == 24
    with pytest.raises(
        ValueError, match=r"Expected a degree of diffusion from 1 to 11, .* got 12 \(rollout.diffusion\)"
    ):
        em.forecast(model, analysis, init, 2, diffusion={"hours": 12.0, "degree": 12})


@pytest.mark.parametrize("degree", [0, 12, 40])
def test_degrees_that_a_grid_lacks_are_refused(degree):
    with pytest.raises(ValueError, match="Expected a degree of diffusion from 1 to 11, as the grid holds them, got"):
        decay_of(12, 20, 4, degree, 21600.0)


def test_a_region_is_refused():
    region = Grid.from_coordinates(GRID.latitude[2:8], GRID.longitude[:10])
    with pytest.raises(ValueError, match="Expected a global Gaussian or equiangular grid to transform"):
        Diffusion(CHANNELS, region, torch.zeros(6))
