"""A slab among the scenarios of a simulation: what comes before what, what is refused, and what its chunks hold."""

import importlib.util

import numpy as np
import pytest
import xarray as xr

from emulator.embedded.fluxes import net_surface_flux
from emulator.ingestion.run import ingest
from emulator.planet import slab
from emulator.store.analysis import open_analysis
from pipelines.config import SimulateConfig
from pipelines.load import fingerprint
from pipelines.parse import parse
from pipelines.simulate import check, files, options, simulate, simulations

SHORT = {"days": 3, "spin_up_days": 1, "chunk_days": 2, "truncation": 21}
SCENARIOS = {"slab": {"co2": 1440, "ocean": {"kind": "slab", "depth": 20, "control": "control"}}, "control": {}}


def section(directory, scenarios=SCENARIOS, **more):
    return parse(SimulateConfig, {"directory": str(directory), "scenarios": scenarios} | SHORT | more, "x.yaml")


def test_a_slab_follows_its_control_and_waits_for_it_where_parts_run_side_by_side(tmp_path, monkeypatch):
    config = section(tmp_path)
    warm, control = simulations(config)
    assert warm.ocean.control == tmp_path / "control" and control.ocean == "prescribed"
    assert options(warm).settings["ocean"] == {
        "kind": "slab", "depth": 20, "control": tmp_path / "control", "prescribed_days": 1, "under_ice": False
    }  # fmt: skip
    run = []
    monkeypatch.setattr("emulator.embedded.simulation.simulate", lambda asked, report: run.append(asked.directory.name))
    simulate(config, (1, 2))
    assert run == []
    simulate(config)
    assert run == ["control", "slab"]
    for path in files(control):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    simulate(config, (1, 2))
    assert run == ["control", "slab", "slab"]
    assert fingerprint(SimulateConfig(directory="x")) == fingerprint(SimulateConfig(directory="x", ocean="prescribed"))


def test_a_control_is_known_by_what_it_is_and_may_grow_longer(tmp_path):
    (tmp_path / "control").mkdir()
    path, records = tmp_path / "control" / "simulation.json", []
    for text in ('{"days": 3, "member": 1}', '{"days": 9, "member": 1}', '{"days": 3, "member": 2}'):
        path.write_text(text)
        records.append(options(simulations(section(tmp_path))[0]).record())
    assert records[0] == records[1] != records[2]


@pytest.mark.parametrize(
    ("ocean", "words"),
    [
        ({"kind": "slab", "control": "control"}, "Missing key scenarios.slab.ocean.depth in x.yaml"),
        ({"kind": "slab", "depth": 20}, "Missing key scenarios.slab.ocean.control in x.yaml"),
        ("swamp", "scenarios.slab.ocean"),
        ({"depth": 20, "control": "other"}, "other, which is over a slab"),
        ({"depth": 20, "control": "slab"}, "slab, which is over a slab"),
        ({"depth": 20, "control": "nowhere"}, r"simulation as ocean.control, got none \(simulation.json\) in nowhere"),
    ],
)
def test_slabs_that_cannot_be_are_refused_in_one_sentence(tmp_path, ocean, words):
    if importlib.util.find_spec("jcm") is None:
        pytest.skip("JAX-GCM is not installed: the extra emulator[gcm]")
    scenarios = {"slab": {"ocean": ocean}, "other": {"ocean": {"depth": 5, "control": "control"}}, "control": {}}
    with pytest.raises(ValueError, match=words):
        check(section(tmp_path, scenarios), set())
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    pytest.importorskip("jcm", reason="JAX-GCM is not installed: the extra emulator[gcm]")
    config = section(tmp_path_factory.mktemp("slab"))
    assert "slab ocean of 20 m" in check(config, set())
    simulate(config)
    return config


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_heat_of_the_slab_is_booked_in_its_store(finished, tmp_path):
    """rho c h dT = (F + Q) dt day by day, to the rounding of a sea temperature in float32."""
    folder = finished.directory / "slab"
    ingest([f"{folder}/*.nc"], tmp_path / "analysis.zarr")
    store = open_analysis(tmp_path / "analysis.zarr").load()
    assert {store[name].attrs["role"] for name in (slab.DEPTH, slab.CONVERGENCE)} == {"forcing"}
    sea = slab.is_sea(store["land_sea_mask"].values)
    fields = {name: store[name].values for name in store.data_vars}
    ends = fields["sea_surface_temperature"][3::4].astype(np.float64)
    given = (net_surface_flux(fields) + fields[slab.CONVERGENCE]).reshape(3, 4, *sea.shape).mean(axis=1)[1:]
    stored = slab.heat_capacity(20.0) * np.diff(ends, axis=0) / 86400
    rounding = slab.heat_capacity(20.0) * np.spacing(np.float32(300)) / 86400
    np.testing.assert_allclose(stored[:, sea], given[:, sea], rtol=0, atol=1.01 * rounding)
    assert np.abs(stored[:, sea]).max() > 20
    np.testing.assert_array_equal(np.diff(fields["sea_surface_temperature"], axis=0)[:3], 0)
    with xr.open_dataset(finished.directory / "control" / "speedy_20010104.nc") as control:
        prescribed = control["sea_surface_temperature"].values[-1]
    np.testing.assert_allclose(ends[-1][~sea], prescribed[~sea], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_slab_that_is_stopped_or_goes_on_to_more_days_is_one_that_was_not(finished, tmp_path, monkeypatch):
    """Also where its control has grown longer in between."""
    from emulator.embedded.slab import OverSlab

    control, whole, done = finished.directory / "control", OverSlab.advance_day, []

    def stop(self, state):
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt
        return whole(self, state)

    ocean = SCENARIOS["slab"] | {"ocean": {"kind": "slab", "depth": 20, "control": str(control)}}
    asked = SimulateConfig(directory=tmp_path / "again", **(SHORT | ocean))
    monkeypatch.setattr(OverSlab, "advance_day", stop)
    with pytest.raises(KeyboardInterrupt):
        simulate(asked.model_copy(update={"days": 2}))
    monkeypatch.setattr(OverSlab, "advance_day", whole)
    simulate(asked.model_copy(update={"days": 2}))
    simulate(SimulateConfig(directory=control, **(SHORT | {"days": 5})))
    simulate(asked)
    for name in ("speedy_20010102.nc", "speedy_20010104.nc"):
        with xr.open_dataset(asked.directory / name) as a, xr.open_dataset(finished.directory / "slab" / name) as b:
            xr.testing.assert_identical(a.load(), b.load())
