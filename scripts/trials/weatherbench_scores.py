"""Our scores beside those of WeatherBench-X and WeatherBench 2, on stores that are exported for them.

    python scripts/trials/weatherbench_scores.py make FOLDER      # with emulator: stores, our scores, weights
    python scripts/trials/weatherbench_scores.py compare FOLDER   # with weatherbenchX where it is installed

Two grids: Gaussian rows, and rows of equal angle half a spacing from the poles. Without weatherbenchX, which is not on PyPI,
its figures are computed here from the definitions of its source of 2025 and 2026: squared errors, anomalies and the fair CRPS
in float32 as it reads them, weighted means with `GridAreaWeighting`, whose outermost cells end half a spacing beyond the
outermost rows. WeatherBench 2's differ from these by the weights, whose outermost cells end at the poles, and by the ACC, a
mean of correlations.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import xarray as xr

LEADS, MEMBERS, ROWS = 4, 5, 48
NAMES = ("temperature", "specific_humidity")


def make(folder: Path) -> None:
    """Exports of a truth and an ensemble on both grids, and our scores of them."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    from small_forecast import small_forecast, write_forecast
    from small_planet import small_planet
    from small_store import write_store

    import emulator as em

    folder.mkdir(parents=True)
    keep = [*NAMES, "surface_pressure", "geopotential_at_surface", "land_sea_mask", "half_level_a", "half_level_b"]
    gaussian = em.on_pressure(small_planet(times=24, nlat=ROWS)[keep], [500, 850]).drop_vars("geopotential")
    even = em.Grid.equiangular(ROWS, 2 * ROWS)
    fill = {"fill_value": "extrapolate"}
    other = gaussian.interp(latitude=even.latitude, longitude=even.longitude, method="linear", kwargs=fill)
    for name, planet in (("gaussian", gaussian), ("equiangular", other.astype(np.float32))):
        planet = planet.drop_attrs(deep=False).assign_attrs(vertical_coordinate="pressure", time_step_seconds=21600.0)
        fixed = {n: ("half_level", np.zeros(1)) for n in ("half_level_a", "half_level_b")}
        forecast = small_forecast(planet.assign(fixed), tuple(range(8, 16)), LEADS, members=MEMBERS).drop_dims(
            "half_level"
        )
        stores = {"truth": write_store(folder, planet, f"{name}-truth.zarr")}
        stores["forecast"] = write_forecast(folder / f"{name}-forecast.zarr", forecast)
        for kind, store in stores.items():
            em.export(store, "weatherbench", folder / f"{name}-{kind}-wb.zarr")
        record = tuple(str(time) for time in planet["time"].values[[0, -1]])
        options = {"climatology": record, "regions": ("global",)}
        scores = em.score(str(stores["forecast"]), str(stores["truth"]), **options)
        scores.to_netcdf(folder / f"{name}-scores.nc")
        print(scores.attrs.get("climatology"))
        area = em.Grid.from_coordinates(planet["latitude"].values, planet["longitude"].values).area.sum(axis=1)
        xr.DataArray(area, {"latitude": planet["latitude"].values}, name="area").to_netcdf(folder / f"{name}-area.nc")


def weights_of(latitude: np.ndarray, to_the_poles: bool) -> np.ndarray:
    """Shares of the rows by WeatherBench 2 (`to_the_poles`) or WeatherBench-X, in the order of decreasing latitudes."""
    rows = np.radians(latitude[::-1])
    first, last = rows[0] - (rows[1] - rows[0]) / 2, rows[-1] + (rows[-1] - rows[-2]) / 2
    ends = (-np.pi / 2, np.pi / 2) if to_the_poles else (max(first, -np.pi / 2), min(last, np.pi / 2))
    edges = np.concatenate([ends[:1], (rows[1:] + rows[:-1]) / 2, ends[1:]])
    weight = np.diff(np.sin(edges))[::-1]
    return weight / weight.sum()


def loaded(folder: Path, grid: str) -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Forecast and truth at its valid times, as WeatherBench-X names dimensions, and the mean by hour of all of the truth."""
    forecast, truth = (
        xr.open_zarr(folder / f"{grid}-{kind}-wb.zarr")[list(NAMES)].load() for kind in ("forecast", "truth")
    )
    forecast = forecast.rename(time="init_time", prediction_timedelta="lead_time")
    mean = truth.astype(np.float64).groupby("time.hour").mean().astype(np.float32)
    valid = forecast["init_time"] + forecast["lead_time"]
    return forecast, truth.sel(time=valid).drop_vars("time"), mean.sel(hour=valid.dt.hour).drop_vars("hour")


def by_definition(forecast, truth, climatology, weight: np.ndarray) -> dict[str, xr.DataArray]:
    """Scores `(lead_time, level)` of one variable, means over initial times before roots."""
    rows = xr.DataArray(weight, {"latitude": forecast["latitude"]})

    def space(field):
        return xr.dot(field, rows.astype(np.float64), dim=("latitude", "longitude")) / forecast.sizes["longitude"]

    def mean(field):
        return space(field).mean("init_time")

    middle, members = forecast.mean("number"), forecast.sizes["number"]
    ours, theirs = middle - climatology, truth - climatology
    pairs = abs(forecast - forecast.rename(number="other")).sum(("number", "other")) / (members * (members - 1))
    correlation = space(ours * theirs) / np.sqrt(space(ours**2) * space(theirs**2))
    return {
        "rmse": np.sqrt(mean((middle - truth) ** 2)),
        "bias": mean(middle - truth),
        "acc_pooled": mean(ours * theirs) / np.sqrt(mean(ours**2) * mean(theirs**2)),
        "acc": correlation.mean("init_time"),
        "crps": mean(abs(forecast - truth).mean("number")) - mean(pairs) / 2,
        "spread": np.sqrt(mean(forecast.var("number", ddof=1))),
    }


def by_weatherbench_x(folder: Path, grid: str, climatology: xr.Dataset) -> dict[str, xr.Dataset]:
    """The same by WeatherBench-X itself: its loaders, metrics and aggregation."""
    from weatherbenchX import aggregation, weighting
    from weatherbenchX.data_loaders import xarray_loaders
    from weatherbenchX.metrics import base, deterministic, probabilistic

    paths = {kind: str(folder / f"{grid}-{kind}-wb.zarr") for kind in ("forecast", "truth")}
    with xr.open_zarr(paths["forecast"]) as store:
        inits, leads = store["time"].values, store["prediction_timedelta"].values
    predictions = xarray_loaders.PredictionsFromXarray(path=paths["forecast"], variables=NAMES).load_chunk(inits, leads)
    targets = xarray_loaders.TargetsFromXarray(path=paths["truth"], variables=NAMES).load_chunk(inits, leads)
    aggregator = aggregation.Aggregator(
        reduce_dims=("init_time", "latitude", "longitude"), weigh_by=[weighting.GridAreaWeighting()]
    )

    def values(metrics, chunk):
        statistics = base.compute_unique_statistics_for_all_metrics(metrics, chunk, targets)
        return aggregator.aggregate_statistics(statistics).metric_values(metrics)

    single = {"rmse": deterministic.RMSE(), "bias": deterministic.Bias(), "acc_pooled": deterministic.ACC(climatology)}
    many = {"crps": probabilistic.CRPSEnsemble(), "spread": probabilistic.EnsembleRootMeanVariance()}
    found = values(single, predictions.mean("number")).merge(values(many, predictions))
    return {metric: xr.Dataset({n: found[f"{metric}.{n}"] for n in NAMES}) for metric in (*single, *many)}


def compare(folder: Path) -> None:
    """Lines of a table: the largest relative difference from ours over variables, levels and leads."""
    there = importlib.util.find_spec("weatherbenchX") is not None
    print("WeatherBench-X", "itself" if there else "by its definitions (the package is not there)")
    for grid in ("gaussian", "equiangular"):
        scores, area = xr.open_dataset(folder / f"{grid}-scores.nc"), xr.open_dataarray(folder / f"{grid}-area.nc")
        forecast, truth, climatology = loaded(folder, grid)
        latitude = forecast["latitude"].values
        rules = {
            "WeatherBench-X": weights_of(latitude, False),
            "WeatherBench 2": weights_of(latitude, True),
            "ours": area.values,
        }
        for rule, weight in rules.items():
            change = weight / area.values - 1
            print(
                f"{grid}: rows' weights by {rule}: beside the poles {change[0]:+.2%}, second {change[1]:+.2%}, else up to ",
                end="",
            )
            print(f"{np.abs(change[2:-2]).max():.1e}")
        found = {
            rule: {n: by_definition(forecast[n], truth[n], climatology[n], w) for n in NAMES}
            for rule, w in rules.items()
        }
        if there:
            whole = xr.open_zarr(folder / f"{grid}-truth-wb.zarr")[list(NAMES)].load().astype(np.float64)
            hours = whole.groupby("time.hour").mean().astype(np.float32).expand_dims(dayofyear=np.arange(1, 367))
            theirs = by_weatherbench_x(folder, grid, hours)
            found["WeatherBench-X"] = {n: {m: v[n] for m, v in theirs.items()} for n in NAMES}
        for rule, by_name in found.items():
            line = [f"{metric} {_apart(by_name, scores, metric):.0e}" for metric in next(iter(by_name.values()))]
            print(f"{grid}: {rule}: {', '.join(line)}", flush=True)


def _apart(by_name: dict, scores: xr.Dataset, metric: str) -> float:
    """The largest difference from our scores as a share of the largest of them, beyond lead 0."""
    worst = 0.0
    for name, found in by_name.items():
        channels = [f"{name} {level} hPa" for level in (500, 850)]
        ours = (
            scores[metric].sel(channel=channels).isel(forecast=0, region=0).transpose("lead_time", "channel").values[1:]
        )
        theirs = found[metric].transpose("lead_time", "level").values[1:]
        assert ours.shape == theirs.shape, (metric, ours.shape, theirs.shape)
        worst = max(worst, float(np.abs(theirs - ours).max() / np.abs(ours).max()))
    return worst


if __name__ == "__main__":
    {"make": make, "compare": compare}[sys.argv[1]](Path(sys.argv[2]))
