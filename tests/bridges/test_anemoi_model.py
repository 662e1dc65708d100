"""A checkpoint for anemoi-inference gives in our store what its own runner gives."""

import datetime

import numpy as np
import pytest
import torch
from small_planet import small_planet
from small_store import write_store

import emulator as em
from emulator.bridges.analysis_source import AnalysisSource
from emulator.bridges.foreign.anemoi_model import name_of
from emulator.bridges.foreign.registry import ForeignError, make_foreign
from emulator.bridges.lexicon import LexiconError

LEVELS = (100, 300, 500, 850)
STATE = [*(f"t_{level}" for level in LEVELS), *(f"q_{level}" for level in LEVELS), "sp"]
FIXED = ["lsm", "z"]
COMPUTED = ["cos_latitude", "insolation"]
VARIABLES = [*STATE, *FIXED, "tp", *COMPUTED]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    planet = small_planet(times=12, nlat=8).drop_vars(["half_level_a", "half_level_b"])
    planet = planet.assign_coords(level=("level", np.array(LEVELS, float))).assign_attrs(vertical_coordinate="pressure")
    return write_store(tmp_path_factory.mktemp("anemoi"), planet)


def test_names_are_ecmwfs_and_amounts_are_over_the_step(store):
    dataset = em.open_analysis(store)
    expected = {
        "t_500": ("temperature", 2, 1.0),
        "2t": ("2m_temperature", None, 1.0),
        "10u": ("10m_u_component_of_wind", None, 1.0),
        "msl": ("mean_sea_level_pressure", None, 1.0),
        "z": ("geopotential_at_surface", None, 1.0),
        "z_850": ("geopotential", 3, 1.0),
        "tp": ("mean_total_precipitation_rate", None, 21.6),
        "ssrd": ("mean_surface_downward_short_wave_radiation_flux", None, 21600.0),
        "sf": ("mean_snowfall_rate", None, 21.6),
    }
    for text, ours in expected.items():
        name = name_of(dataset, text, 21600.0)
        assert (name.variable, name.level, name.factor) == ours
    for text in ("t_850x", "t_1000", "swell"):
        with pytest.raises(LexiconError, match=text):
            name_of(dataset, text, 21600.0)


def test_a_pickle_is_refused_without_consent(store, tmp_path):
    (tmp_path / "model.ckpt").write_bytes(b"")
    with pytest.raises(ForeignError, match="trust_pickle: true to open .*: a checkpoint of anemoi is a pickle"):
        make_foreign({"kind": "anemoi", "checkpoint": str(tmp_path / "model.ckpt")}, AnalysisSource(store))


class Points(torch.nn.Module):
    """Random weights on single points, in the shapes that anemoi-inference hands a model."""

    def __init__(self):
        super().__init__()
        inputs, outputs = len(VARIABLES) - 1, len(STATE) + 1
        scales = {"t": 250.0, "q": 3e-3, "s": 1e5, "l": 1.0, "z": 2e4, "c": 1.0, "i": 1.0}
        self.scale = torch.tensor([scales[text[0]] for text in VARIABLES if text != "tp"])
        self.first, self.last = torch.nn.Linear(2 * inputs, 8), torch.nn.Linear(8, outputs)

    def predict_step(self, x, **more):  # (batch, time, point, variable)
        seen = (x / self.scale).movedim(1, -2).flatten(-2)
        out = 0.01 * self.last(torch.tanh(self.first(seen)))
        state = x[:, -1, :, : len(STATE)] * (1 + out[..., :-1])
        return torch.cat([state, out[..., -1:].abs()], -1)[:, None]


@pytest.fixture(scope="module")
def places(store):
    """Degrees of the points, rows northward."""
    grid = em.open_analysis(store)
    mesh = np.meshgrid(grid.latitude[::-1], grid.longitude, indexing="ij")
    return {name: values.ravel() for name, values in zip(("latitudes", "longitudes"), mesh, strict=True)}


@pytest.fixture(scope="module")
def dataset(places):
    """What anemoi-datasets tells of a store with the variables."""
    about = {
        text: {"mars": {"param": text.split("_")[0], "levtype": "pl" if "_" in text else "sfc"}} for text in VARIABLES
    }
    about |= {text: about[text] | {"constant_in_time": True} for text in FIXED}
    about |= {
        "cos_latitude": {"computed_forcing": True, "constant_in_time": True},
        "insolation": {"computed_forcing": True},
    }
    about["tp"]["accumulated"] = True
    shape = [12, len(VARIABLES), 1, len(places["latitudes"])]
    return {"variables": VARIABLES, "shape": shape, "variables_metadata": about}


def of_points(path, dataset, places, store):
    """Random weights on single points, in the form that checkpoints had before anemoi knew several datasets."""
    from anemoi.utils.checkpoints import save_metadata

    count, rain = len(STATE), VARIABLES.index("tp")
    where = [k for k in range(len(VARIABLES)) if k != rain]
    forcing = list(range(count, len(where)))
    metadata = {
        "config": {
            "training": {"multistep_input": 2, "precision": "32"},
            "data": {"timestep": "6h", "forcing": [*FIXED, *COMPUTED], "diagnostic": ["tp"]},
        },
        "data_indices": {
            "data": {
                "input": {
                    "full": where,
                    "forcing": [VARIABLES.index(t) for t in (*FIXED, *COMPUTED)],
                    "diagnostic": [rain],
                },
                "output": {"full": [*range(count), rain]},
            },
            "model": {
                "input": {"full": list(range(len(where))), "forcing": forcing, "prognostic": list(range(count))},
                "output": {"full": list(range(count + 1)), "prognostic": list(range(count))},
            },
        },
        "dataset": dataset,
    }
    torch.manual_seed(1)
    torch.save(Points().eval(), path)
    save_metadata(path, metadata, supporting_arrays=places)


def of_anemoi_models(path, dataset, places, store):
    """A graph transformer of anemoi-models, whose normalisation is that of the store."""
    for needed in ("anemoi.models", "anemoi.graphs"):
        pytest.importorskip(needed, reason=f"{needed.replace('.', '-')} is not installed")
    from anemoi_network import save

    source = AnalysisSource(store)
    names = [name_of(source.dataset, text, 21600.0) for text in VARIABLES if text not in COMPUTED]
    fields = source.read(names, source.dataset.time.values).astype(np.float64)
    found = {kind: getattr(fields, kind)((0, 2, 3)) for kind in ("mean", "std", "min", "max")}
    made = {"mean": (0.6, 0.3), "std": (0.3, 0.4), "min": (0.0, 0.0), "max": (1.0, 1.0)}  # of what the runner computes
    found = {kind: np.concatenate([values, made[kind]]) for kind, values in found.items()}
    statistics = dict(zip(("mean", "stdev", "minimum", "maximum"), found.values(), strict=True))
    save(path, dataset, {"forcing": [*FIXED, *COMPUTED], "diagnostic": ["tp"]}, statistics, places)


@pytest.fixture(scope="module", params=[of_points, of_anemoi_models], ids=["points", "graph transformer"])
def checkpoint(request, store, dataset, places, tmp_path_factory):
    pytest.importorskip("anemoi.inference", reason="anemoi-inference is not installed")
    path = tmp_path_factory.mktemp("checkpoint") / "model.ckpt"
    request.param(path, dataset, places, store)
    return path


def test_a_checkpoint_gives_what_the_runner_of_anemoi_gives(store, checkpoint):
    from anemoi.inference.runners.simple import SimpleRunner

    source = AnalysisSource(store)
    times = source.dataset.time.values[2:4]
    section = {
        "kind": "anemoi",
        "checkpoint": str(checkpoint),
        "trust_pickle": True,
        "device": "cpu",
        "precision": "32",
    }
    found = em.foreign_forecast(section, store, times[1:], days=1).isel(init_time=0)

    runner = SimpleRunner(str(checkpoint), device="cpu", precision="32")
    names = [name_of(source.dataset, text, 21600.0) for text in (*STATE, *FIXED)]
    fields = source.read(names, times)[..., ::-1, :].reshape(2, len(names), -1)
    mesh = np.meshgrid(source.lat[::-1], source.lon, indexing="ij")
    start = {
        "date": times[1].astype("datetime64[s]").astype(datetime.datetime),
        "latitudes": mesh[0].ravel(),
        "longitudes": mesh[1].ravel(),
        "fields": {name.text: fields[:, k].copy() for k, name in enumerate(names)},
    }
    for number, state in enumerate(runner.run(input_states=start, lead_time="24h"), 1):
        for text in (*STATE, "tp"):
            name = name_of(source.dataset, text, 21600.0)
            ours = found[name.variable].isel(lead_time=number)
            ours = (ours if name.level is None else ours.isel(level=name.level)).values * name.factor
            theirs = state["fields"][text].reshape(ours.shape)[::-1]
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max(), err_msg=text)
    assert number == 4 and float(abs(found.temperature.diff("lead_time")).max()) > 0.1
    assert "dry_air" in em.budgets(found.expand_dims("init_time")).budget
