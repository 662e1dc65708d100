"""Models of earth2studio write our forecast store, with the numbers of earth2studio's own workflow."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
import xarray as xr
from small_planet import small_planet
from small_store import NETWORK, store_of, write_store

import emulator as em
from emulator.bridges.analysis_source import AnalysisSource
from emulator.bridges.foreign.registry import ForeignError

pytest.importorskip("earth2studio", reason="earth2studio is not installed; the extra earth2studio brings it")
from earth2studio.io import XarrayBackend
from earth2studio.models.batch import batch_coords, batch_func
from earth2studio.models.px import Persistence
from earth2studio.models.px.utils import PrognosticMixin
from earth2studio.run import deterministic

HOUR = np.timedelta64(1, "h")
TEXTS = ["t0k", "t1k", "t2k", "t3k", "sp"]


def persistence(source, history=2):
    return Persistence(TEXTS, OrderedDict(lat=source.lat, lon=source.lon), history=history)


class Convolution(torch.nn.Module, PrognosticMixin):
    """Random weights on a grid whose rows run northward, an output that no lexicon has, and precipitation."""

    def __init__(self, lat, lon):
        super().__init__()
        torch.manual_seed(4)
        self.lat, self.lon = lat[::-1].copy(), lon
        self.network = torch.nn.Conv2d(5, 7, 3, padding=1).requires_grad_(False)

    def _coords(self, hours, texts):
        free = OrderedDict(batch=np.empty(0))
        leads = np.array([hours]) * HOUR
        return free | OrderedDict(lead_time=leads, variable=np.array(texts), lat=self.lat, lon=self.lon)

    def input_coords(self):
        return self._coords(0, TEXTS)

    @batch_coords()
    def output_coords(self, input_coords):
        found = self._coords(6, [*TEXTS, "tp06", "mystery"])
        found["batch"] = input_coords["batch"]
        found["lead_time"] = found["lead_time"] + input_coords["lead_time"][-1]
        return found

    @batch_func()
    def __call__(self, x, coords):
        return self._step(x), self.output_coords(coords)

    def _step(self, x):
        out = self.network(x[:, 0] / 1e3)
        return torch.cat([x[:, 0] + out[:, :5], 1e-3 * out[:, 5:]], 1)[:, None]

    @batch_func()
    def _default_generator(self, x, coords):
        first = torch.cat([x, torch.full_like(x[:, :, :2], torch.nan)], 2)
        found = self.output_coords(coords)
        yield first, found | {"lead_time": coords["lead_time"]}
        while True:
            out, found = self._step(x), self.output_coords(coords)
            yield out, found
            x, coords = out[:, :, :5], coords | {"lead_time": found["lead_time"]}

    def create_iterator(self, x, coords):
        yield from self._default_generator(x, coords)


def convolution(source):
    return Convolution(source.lat, source.lon)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("foreign"), small_planet(times=12))


def section(factory, **options):
    return {"kind": "earth2studio", "factory": f"{__name__}:{factory}", "options": options, "device": "cpu"}


def test_persistence_of_earth2studio_stays_what_it_is(store, tmp_path):
    times = em.open_analysis(store).time.values[2:4]
    found = em.foreign_forecast(section("persistence"), store, times, days=1, output=tmp_path / "p.zarr")
    given = em.open_analysis(store).sel(time=times)
    for lead in range(5):
        np.testing.assert_array_equal(found.temperature.isel(lead_time=lead), given.temperature)
        np.testing.assert_array_equal(found.surface_pressure.isel(lead_time=lead), given.surface_pressure)
    assert found.attrs["model"] == "earth2studio"


def test_a_model_gives_what_the_workflow_of_earth2studio_gives(store, caplog):
    source = AnalysisSource(store)
    times = source.dataset.time.values[2:4]
    with caplog.at_level("WARNING"):
        found = em.foreign_forecast(section("convolution"), store, times, days=1)
    assert "Left out of the model's fields, having no variable or level of the analysis: mystery" in caplog.text
    own = deterministic(times, 4, convolution(source), source, XarrayBackend(), verbose=False).root
    own = own.isel(lat=slice(None, None, -1))
    for text, ours in [("sp", found.surface_pressure), *((f"t{k}k", found.temperature[:, :, k]) for k in range(4))]:
        np.testing.assert_allclose(ours.values, own[text].values, rtol=1e-6, err_msg=text)
    rain = own["tp06"].values[:, 1:] / 21.6
    np.testing.assert_allclose(found.mean_total_precipitation_rate[:, 1:], rain, rtol=1e-5, atol=1e-12)
    assert float(abs(found.temperature.diff("lead_time")).max()) > 0.1
    assert em.budgets(found.assign(specific_humidity=0 * found.temperature)).sizes["budget"] >= 1


def test_our_own_model_comes_back_through_earth2studio(tmp_path):
    """There and back: an adapter of ours run as a foreign model is the rollout."""
    store, statistics = store_of(tmp_path, small_planet(times=24))
    more = {"conservation": {"budgets": ["dry_air", "water"]}}
    em.train(store, statistics, tmp_path / "t", network=NETWORK, phases=[{"updates": 2, "batch_size": 2}], **more)
    time = em.open_analysis(store).time.values[4]
    expected = em.forecast(tmp_path / "t" / "checkpoint", store, time, days=1)
    named = {"kind": "earth2studio", "factory": "emulator.bridges.earth2studio:Emulator"}
    named |= {"package": str(tmp_path / "t" / "checkpoint"), "options": {"forcing": str(store)}}
    found = em.foreign_forecast(named, store, time, days=1)
    for name in ("temperature", "surface_pressure", "specific_humidity", "mean_total_precipitation_rate"):
        size = float(abs(expected[name]).max())
        xr.testing.assert_allclose(found[name].drop_attrs(), expected[name].drop_attrs(), rtol=0, atol=1e-6 * size)
    ours, theirs = em.budgets(expected), em.budgets(found)
    np.testing.assert_allclose(theirs.budget_total.values, ours.budget_total.values, rtol=1e-7)


def test_bad_input_is_a_sentence(store):
    with pytest.raises(
        ForeignError, match="Expected an importable package.module:name as factory, got 'nowhere:at_all'"
    ):
        em.foreign_forecast({"kind": "earth2studio", "factory": "nowhere:at_all"}, store, "2001-01-02", days=1)
    with pytest.raises(ForeignError, match="a prognostic model of earth2studio from 'builtins:dict', got dict"):
        em.foreign_forecast({"kind": "earth2studio", "factory": "builtins:dict"}, store, "2001-01-02", days=1)
    named = {"kind": "earth2studio", "factory": "earth2studio.models.px:Persistence"}
    other = {"lat": np.linspace(90, -90, 5), "lon": np.arange(0, 360, 45)}
    with pytest.raises(
        ForeignError, match="a model on the analysis's 12 x 24 latitudes and longitudes, got lat of shape"
    ):
        em.foreign_forecast(
            named | {"options": {"variable": ["sp"], "domain_coords": other}}, store, "2001-01-02", days=1
        )
    here = em.open_analysis(store)
    grid = {"lat": here.latitude.values, "lon": here.longitude.values}
    with pytest.raises(
        ForeignError, match="the variable table has a field for, got 'warmth'; the model starts from it"
    ):
        em.foreign_forecast(
            named | {"options": {"variable": ["warmth"], "domain_coords": grid}}, store, "2001-01-02", days=1
        )
    with pytest.raises(ForeignError, match=r"what the model starts from, it lacks 2m_temperature \(t2m\)"):
        em.foreign_forecast(
            named | {"options": {"variable": ["t2m"], "domain_coords": grid}}, store, "2001-01-02", days=1
        )
