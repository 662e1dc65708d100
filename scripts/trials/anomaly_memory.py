"""How long does an anomaly last? Forecasts from true states, and the share of the initial anomaly that they still have.

    python scripts/trials/anomaly_memory.py runs/ace/train/checkpoint runs/ace/warm2.zarr

An anomaly is the departure from an annual cycle of three harmonics in each cell, which the store's own years give. Printed
for bands of latitude: the slope of a later anomaly on the initial one, forecasts' and truth's, and the forecasts' error.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

import emulator as em

DAY, YEAR = np.timedelta64(1, "D"), 365.25
BANDS = ((60, 90), (30, 60), (10, 30), (-10, 10), (-30, -10), (-60, -30), (-90, -60))
SHOWN = 1, 2, 5, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--variable", default="temperature")
    parser.add_argument("--level", type=int, default=-1, help="its number from the top, or from below 0 upward")
    parser.add_argument("--starts", type=int, default=44, help="initial times, evenly over the store")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    truth, model = em.open_analysis(options.store), em.load_model(options.checkpoint, "cpu")
    field = truth[options.variable]
    field = field.isel(level=options.level) if "level" in field.dims else field
    values = field.transpose("time", "latitude", "longitude").values.astype(np.float64)
    departures = _departures(values, truth.time.values)
    last = int(np.searchsorted(truth.time.values, truth.time.values[-1] - max(SHOWN) * DAY))
    rows = np.linspace(0, last, options.starts).astype(int)
    with tempfile.TemporaryDirectory() as folder:
        found = em.forecast(
            model,
            truth,
            list(truth.time.values[rows]),
            max(SHOWN),
            thin={"every_hours": 24},
            output=Path(folder) / "f.zarr",
        )[options.variable]
        found = found.isel(level=options.level) if "level" in found.dims else found
        found = found.transpose("init_time", "lead_time", "latitude", "longitude").load()
    print("| days | latitudes | forecasts | truth | error |\n|---|---|---|---|---|")
    for days in SHOWN:
        number = int(np.flatnonzero(found.lead_time.values == days * DAY)[0])
        later = rows + np.searchsorted(truth.time.values, truth.time.values[rows[0]] + days * DAY) - rows[0]
        error = found.values[:, number] - values[later]
        for south, north in BANDS:
            band = (truth.latitude.values >= south) & (truth.latitude.values <= north)
            first, true, wrong = (each[:, band] for each in (departures[rows], departures[later], error))
            slopes = [np.mean(first * each) / np.mean(first**2) for each in (true + wrong, true)]
            print(
                f"| {days} | {south} to {north} | {slopes[0]:.2f} | {slopes[1]:.2f} | {np.sqrt(np.mean(wrong**2)):.2f} |"
            )


def _departures(values: np.ndarray, times: np.ndarray) -> np.ndarray:
    phase = 2 * np.pi * (times - times[0]) / DAY / YEAR
    waves = [np.ones(len(times))] + [wave(n * phase) for n in (1, 2, 3) for wave in (np.cos, np.sin)]
    basis, columns = np.stack(waves, axis=1), values.reshape(len(times), -1)
    return (columns - basis @ np.linalg.lstsq(basis, columns, rcond=None)[0]).reshape(values.shape)


if __name__ == "__main__":
    main()
