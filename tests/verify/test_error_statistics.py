import numpy as np
import pytest
import scores
import xarray as xr
import xskillscore
from hypothesis import given, settings
from hypothesis import strategies as st

from emulator.planet.grid import Grid
from emulator.verify.metric import area_means, scores_of
from emulator.verify.metrics import anomaly, errors
from emulator.verify.metrics.ensemble import crps_terms, ensemble_statistics

GRID = Grid.equiangular(6, 12)
CELLS = int(np.prod(GRID.shape))
GLOBAL = GRID.area.reshape(1, -1)


def error_statistics(forecast, truth, climatology, weights, mask=None):
    """What errors and anomalies are made from."""
    found = errors.error_statistics(forecast, truth, weights, mask)
    return found | anomaly.anomaly_statistics(forecast, truth, climatology, weights, mask)


def fair_crps(members, truth):
    absolute, pairs = crps_terms(members, truth)
    return absolute - pairs / 2


def fields(count, *shape, seed=0):
    return np.random.default_rng(seed).standard_normal((count, *shape, CELLS))


def as_arrays(*values):
    weights = xr.DataArray(GRID.area.ravel(), dims="cell")
    return [xr.DataArray(v, dims=("sample", "cell")) for v in values], weights


def test_errors_agree_with_scores_and_xskillscore():
    forecast, truth, climate = fields(3, 5)
    ours = error_statistics(forecast, truth, climate, GLOBAL)
    (f, o), weights = as_arrays(forecast, truth)
    # scores multiplies by its weights and takes a plain mean: 1 / cells each would be equal weights.
    mse = scores.continuous.mse(f, o, reduce_dims="cell", weights=weights * CELLS)
    np.testing.assert_allclose(ours["squared_error"][:, 0], mse, rtol=1e-10)
    mae = scores.continuous.mae(f, o, reduce_dims="cell", weights=weights * CELLS)
    np.testing.assert_allclose(ours["absolute_error"][:, 0], mae, rtol=1e-10)
    np.testing.assert_allclose(
        ours["error"][:, 0], xskillscore.me(f, o, dim="cell", weights=weights), rtol=1e-9, atol=1e-12
    )
    rmse = xskillscore.rmse(f, o, dim="cell", weights=weights)
    np.testing.assert_allclose(np.sqrt(ours["squared_error"][:, 0]), rmse, rtol=1e-10)


def test_centred_correlation_of_xskillscore_is_ours_when_anomalies_have_no_mean():
    forecast, truth = (values - values @ GLOBAL.T for values in fields(2, 4, seed=3))
    ours = error_statistics(forecast, truth, np.zeros_like(truth), GLOBAL)["anomaly_correlation"]
    (f, o), weights = as_arrays(forecast, truth)
    np.testing.assert_allclose(ours[:, 0], xskillscore.pearson_r(f, o, dim="cell", weights=weights), rtol=1e-10)


def test_two_forms_of_anomaly_correlation_by_hand():
    # Two samples on two equal cells: products 2 and 0, variances (5, 1) and (1, 1) over 2.
    forecast, truth = np.array([[2.0, 1.0], [1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    values = error_statistics(forecast, truth, np.zeros((2, 2)), np.array([[0.5, 0.5]]))
    mean = xr.Dataset({name: (("region",), value.mean(axis=0)) for name, value in values.items()})
    result = scores_of(mean)
    np.testing.assert_allclose(result["acc"], (2 / np.sqrt(5) + 0) / 2)
    np.testing.assert_allclose(result["acc_pooled"], (2 + 0) / np.sqrt((5 + 1) * (1 + 1)))
    np.testing.assert_allclose(result["activity"], np.sqrt(6 / 2))
    np.testing.assert_allclose(result["rmse"], np.sqrt((1 + 1 + 1 + 1) / 4))


def test_root_comes_after_the_mean():
    errors = np.array([[1.0], [3.0]])
    values = error_statistics(errors, np.zeros((2, 1)), np.full((2, 1), 5.0), np.ones((1, 1)))
    mean = xr.Dataset({name: (("region",), value.mean(axis=0)) for name, value in values.items()})
    np.testing.assert_allclose(scores_of(mean)["rmse"], np.sqrt(5.0))  # not (1 + 3) / 2


def test_climatology_as_a_forecast_has_no_correlation():
    truth = fields(1, 2)[0]
    values = error_statistics(np.zeros_like(truth), truth, np.zeros_like(truth), GLOBAL)
    assert np.isnan(values["anomaly_correlation"]).all()
    np.testing.assert_allclose(values["squared_error"], values["truth_anomaly_squared"])


def test_missing_truth_has_no_weight_and_a_failed_forecast_no_score():
    forecast, truth = fields(2, 3)
    mask = np.ones(truth.shape, bool)
    mask[0, :7] = False
    holes = np.where(mask, truth, np.nan)
    values = error_statistics(forecast, holes, np.zeros_like(truth), GLOBAL, mask)
    kept = GRID.area.ravel()[7:]
    np.testing.assert_allclose(values["squared_error"][0, 0], np.average((forecast - truth)[0, 7:] ** 2, weights=kept))
    forecast[1, 5] = np.inf
    failed = error_statistics(forecast, truth, np.zeros_like(truth), GLOBAL)
    assert not np.isfinite(failed["squared_error"][1, 0])
    assert np.isfinite(failed["squared_error"][2, 0])


@pytest.mark.parametrize("holes", [False, True])
def test_a_failed_cell_spoils_the_regions_that_hold_it_and_no_others(holes):
    forecast, truth = fields(2, 4)
    north, south = GRID.area * (GRID.mesh()[0] > 0), GRID.area * (GRID.mesh()[0] < 0)
    weights = np.stack([w.ravel() / w.sum() for w in (GRID.area, north, south)])
    mask = np.ones(truth.shape, bool)
    if holes:
        mask[:, 40] = False
    broken = forecast.copy()
    broken[1, 3] = np.nan  # in the north
    members = np.stack([broken, forecast + 1, truth - 1])
    for found, whole in (
        (
            error_statistics(broken, truth, 0 * truth, weights, mask),
            error_statistics(forecast, truth, 0 * truth, weights, mask),
        ),
        (
            ensemble_statistics(members, truth, weights, mask),
            ensemble_statistics(np.stack([forecast, *members[1:]]), truth, weights, mask),
        ),
    ):
        for name, values in found.items():
            assert np.isnan(values[1, :2]).all() or name == "truth_anomaly_squared", name
            np.testing.assert_allclose(values[:, 2], whole[name][:, 2], rtol=1e-12, atol=1e-14, err_msg=name)
            assert np.isfinite(np.delete(values, 1, axis=0)).all(), name


def test_rows_worked_on_in_pieces_give_the_same(monkeypatch):
    forecast, truth, climate = fields(3, 4, 5, seed=9)
    whole = error_statistics(forecast, truth, climate, GLOBAL)
    monkeypatch.setattr("emulator.verify.metric.ROW_BYTES", 8 * CELLS * 3)
    pieces = error_statistics(forecast, truth, climate, GLOBAL)
    assert len(whole) == 7
    for name in whole:
        np.testing.assert_allclose(pieces[name], whole[name], rtol=1e-12)


def test_a_region_without_truth_is_missing():
    means = area_means(np.ones((1, 2)), np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[True, False]]))
    np.testing.assert_array_equal(means, [[1.0, np.nan]])


@settings(deadline=None, max_examples=20)
@given(members=st.integers(2, 9), seed=st.integers(0, 1000))
def test_fair_crps_agrees_with_scores_and_the_identity_with_the_ecdf_form(members, seed):
    rng = np.random.default_rng(seed)
    ensemble, truth = rng.standard_normal((members, 7)), rng.standard_normal(7)
    e, o = xr.DataArray(ensemble, dims=("member", "cell")), xr.DataArray(truth, dims="cell")
    fair = scores.probability.crps_for_ensemble(e, o, "member", method="fair", preserve_dims="cell")
    np.testing.assert_allclose(fair_crps(ensemble, truth), fair, rtol=1e-10, atol=1e-13)
    ecdf = xskillscore.crps_ensemble(o, e, member_dim="member", dim=[])
    spread = np.abs(ensemble[:, None] - ensemble[None]).sum((0, 1)) / (members * (members - 1))
    np.testing.assert_allclose(ecdf, fair_crps(ensemble, truth) + spread / (2 * members), rtol=1e-10, atol=1e-13)


def test_ensemble_statistics_are_area_means():
    members, truth = fields(4, 3), fields(1, 3, seed=5)[0]
    values = ensemble_statistics(members, truth, GLOBAL)
    np.testing.assert_allclose(values["variance"][:, 0], members.var(axis=0, ddof=1) @ GRID.area.ravel())
    np.testing.assert_allclose(values["crps"][:, 0], fair_crps(members, truth) @ GRID.area.ravel())


def test_one_member_has_no_crps():
    with pytest.raises(ValueError, match="at least 2 members"):
        fair_crps(np.zeros((1, 3)), np.zeros(3))
