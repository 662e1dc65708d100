"""Over what a source's accumulations and means are: by its messages or names, or by the options where those say nothing."""

import numpy as np

from emulator.planet.calendar import day_and_hour, in_seconds
from emulator.sources.axes import Axes
from emulator.sources.options import SourceOptions
from emulator.sources.piece import Piece
from emulator.sources.recognise import Match


def recorded_hours(array) -> list[float]:
    """The lengths of the intervals that a source records for its values, increasing."""
    hours = np.unique(np.asarray(array.attrs.get("intervals", ()), np.float64))
    return hours[np.isfinite(hours)].tolist()


def interval_hours(array, match: Match, options: SourceOptions, bounds: list[float] | None = None) -> float | None:
    """What all values cover: as the source's messages, its name or its bounds say, else as the options do; None for nothing.

    `bounds`: the lengths that bounds tell, as `bound_hours`.
    """
    recorded, told = recorded_hours(array), bounds or []
    own = match.interval_hours or (recorded[0] if len(recorded) == 1 else None)
    return own or (told[0] if len(told) == 1 else None) or options.interval_hours


def bound_hours(axes: Axes) -> list[float]:
    """The lengths of the intervals that bounds tell, increasing; those of calendar months differ."""
    if axes.starts is None:
        return []
    return np.unique(np.round(in_seconds(axes.coordinates["time"] - axes.starts) / 3600, 4)).tolist()


def is_running(array, match: Match, options: SourceOptions) -> bool:
    """Whether the options say that amounts run on, of which the source says nothing."""
    return options.totals_from is not None and not match.interval_hours and not recorded_hours(array)


def interval_lengths(array, match: Match, axes: Axes, options: SourceOptions, totals: bool) -> np.ndarray | None:
    """Seconds that values cover up to their times, `(time, lead_time)`, NaN for unknown; None where nothing tells.

    Raises `ValueError` for totals from the start of forecasts in a source without lead times.
    """
    shape = len(axes.coordinates.get("time", [0])), len(axes.coordinates.get("lead_time", [0]))
    if totals and is_running(array, match, options):
        leads = axes.coordinates.get("lead_time")
        if options.totals_from == "start" and leads is None:
            raise ValueError(f"Expected lead times of {array.name} with totals_from: start, got times alone")
        seconds = np.zeros(1) if leads is None else leads / np.timedelta64(1, "s")
        if options.totals_from == "midnight":
            seconds = np.round(day_and_hour(axes.coordinates["time"])[1] * 3600)[:, None] + seconds
            seconds = np.where(seconds % 86400 == 0, 86400.0, seconds % 86400)
        return np.broadcast_to(np.where(seconds > 0, seconds, np.nan), shape)
    if array.attrs.get("from_start"):
        seconds = np.broadcast_to(axes.coordinates["lead_time"] / np.timedelta64(1, "s"), shape)
        return np.where(seconds > 0, seconds, np.nan)
    if recorded_hours(array):
        return np.asarray(array.attrs["intervals"], np.float64) * 3600
    hours = interval_hours(array, match, options)
    return None if hours is None else np.full(shape, hours * 3600.0)


def of_one_interval(matched: list[Piece], path: str, options: SourceOptions) -> list[Piece]:
    """Without the fields over other intervals than the one asked for, where a file has one field over several at one time.

    Raises `ValueError` naming the intervals where none of them is asked for.
    """
    several: dict[tuple[str, str], dict[float, list[Piece]]] = {}
    for piece in matched:
        moves = "time" in piece.coordinates and "lead_time" not in piece.coordinates
        if moves and piece.lengths is not None and np.ptp(piece.lengths) == 0:
            by_hours = several.setdefault((piece.name, piece.term), {})
            by_hours.setdefault(float(piece.lengths.flat[0]) / 3600, []).append(piece)
    left_out: list[Piece] = []
    for (name, _), by_hours in several.items():
        times = [np.unique(np.concatenate([p.coordinates["time"] for p in own])) for own in by_hours.values()]
        if len(np.unique(np.concatenate(times))) == sum(map(len, times)):
            continue  # none has a time of another one's: intervals that alternate
        if options.interval_hours not in by_hours:
            have = [f"{hours:g}" for hours in sorted(by_hours)]
            raise ValueError(
                f"Expected {name} over one interval in {path}, got it over {' and over '.join(have)} h; choose with "
                f"interval_hours: {' or '.join(have)}"
            )
        left_out += [piece for hours, own in by_hours.items() if hours != options.interval_hours for piece in own]
    return [piece for piece in matched if not any(piece is other for other in left_out)]
