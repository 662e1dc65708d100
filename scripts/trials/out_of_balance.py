"""Does an emulated atmosphere answer a sea that it is not in balance with? Forecasts from the days on which the sea changes.

    python scripts/trials/out_of_balance.py runs/ace/train/checkpoint runs/swings/swings.zarr --turn 20

The store is one of `sst_offset` with values in turn (docs/data.md), its first turn beginning `--spin-up` days before it.
Every forecast begins a day before a turn's new sea is reached and lasts a turn. Printed by lead, for temperature at the
lowest level and in the middle and for humidity: the slope of the forecasts' change of the global mean on the truth's (1: the
whole answer), root mean squares of the truth's change and of what the forecasts lack, and the error in cells.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

import emulator as em
from emulator.store.schema import grid_of

DAY = np.timedelta64(1, "D")
FIELDS = (("temperature", -1, 1.0, "K"), ("temperature", 4, 1.0, "K"), ("specific_humidity", -1, 1e3, "g/kg"))
SHOWN = 1, 2, 3, 5, 7, 10, 15, 20, 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--turn", type=int, default=20, help="days of a turn")
    parser.add_argument("--spin-up", type=int, default=60, help="days of the simulation before the store's first day")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    truth, model = em.open_analysis(options.store), em.load_model(options.checkpoint, "cpu")
    times, first = truth.time.values, truth.time.values[0].astype("datetime64[D]").astype("datetime64[ns]")
    days = np.arange(-options.spin_up, (times[-1] - first) / DAY, options.turn) - 1  # a day before the new sea is there
    starts = [start for start in first + days * DAY if times[0] <= start <= times[-1] - options.turn * DAY]
    with tempfile.TemporaryDirectory() as folder:
        found = em.forecast(
            model, truth, starts, options.turn, thin={"every_hours": 24}, output=Path(folder) / "forecast.zarr"
        )
        for name, level, scale, units in FIELDS:
            print(f"\n{name}, level {level}, {units}: {len(starts)} forecasts")
            _print(found, truth, starts, name, level, scale)


def _print(found, truth, starts, name: str, level: int, scale: float) -> None:
    area = grid_of(truth).area
    area = area / area.sum()
    own = found[name].isel(level=level).transpose("init_time", "lead_time", "latitude", "longitude")
    began = scale * truth[name].isel(level=level).sel(time=starts).values.astype(np.float64)
    print("| days | slope of the global change | the truth's change | error | error in cells |\n|---|---|---|---|---|")
    for number, lead in enumerate(found.lead_time.values):
        if lead / DAY not in SHOWN:
            continue
        values = scale * own.isel(lead_time=number).values.astype(np.float64)
        true = scale * truth[name].isel(level=level).sel(time=np.array(starts) + lead).values.astype(np.float64)
        wanted, given = (((each - began) * area).sum((-2, -1)) for each in (true, values))
        slope = (wanted * given).sum() / (wanted * wanted).sum()
        sizes = [np.sqrt(np.mean(each**2)) for each in (wanted, given - wanted)]
        cells = np.sqrt((((values - true) ** 2) * area).sum((-2, -1)).mean())
        print(f"| {lead / DAY:.0f} | {slope:.2f} | {sizes[0]:.3f} | {sizes[1]:.3f} | {cells:.2f} |", flush=True)


if __name__ == "__main__":
    main()
