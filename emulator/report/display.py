"""Units, names, numbers and tables as a forecaster writes them."""

import html

import numpy as np

from emulator.planet.calendar import lead_text
from emulator.planet.regions import REGIONS

# SI unit in the stores: unit on the page, factor.
_UNITS = {
    "kg kg-1": ("g/kg", 1e3),
    "Pa": ("hPa", 1e-2),
    "kg m-2 s-1": ("mm/day", 86400.0),
    "m s-1": ("m/s", 1.0),
    "m2 s-2": ("m²/s²", 1.0),
    "W m-2": ("W/m²", 1.0),
    "kg m-2": ("kg/m²", 1.0),
    "J m-2": ("J/m²", 1.0),
    "Pa s-1": ("Pa/s", 1.0),
    "s-1": ("1/s", 1.0),
    "1": ("", 1.0),
}
_NAMES = {
    "geopotential": "Geopotential",
    "temperature": "Temperature",
    "u_component_of_wind": "Zonal wind",
    "v_component_of_wind": "Meridional wind",
    "wind_vector": "Wind vector",
    "10m_wind_vector": "10 m wind vector",
    "specific_humidity": "Specific humidity",
    "surface_pressure": "Surface pressure",
    "mean_sea_level_pressure": "Sea-level pressure",
    "2m_temperature": "2 m temperature",
    "mean_total_precipitation_rate": "Precipitation",
    "mean_evaporation_rate": "Evaporation",
    "mean_snowfall_rate": "Snowfall",
    "mean_surface_net_short_wave_radiation_flux": "Net short wave, surface",
    "mean_surface_net_long_wave_radiation_flux": "Net long wave, surface",
    "mean_surface_sensible_heat_flux": "Sensible heat flux",
    "mean_surface_latent_heat_flux": "Latent heat flux",
    "mean_top_net_short_wave_radiation_flux": "Net short wave, top",
    "mean_top_net_long_wave_radiation_flux": "Net long wave, top",
}
REGION_NAMES = {
    "global": "Globe",
    "domain": "Domain",
    "stations": "All stations",
    "northern-hemisphere": "North of 20° N",
    "southern-hemisphere": "South of 20° S",
    "tropics": "Tropics, 20° S–20° N",
    "extra-tropics": "Beyond 20°",
    "ausnz": "Australia, New Zealand",
}
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def unit_and_factor(units: str) -> tuple[str, float]:
    """The unit on the page and the factor from the stored unit."""
    return _UNITS.get(units, (units, 1.0))


def variable_name(variable: str) -> str:
    """`Zonal wind`; unknown names with spaces for underscores."""
    text = _NAMES.get(variable, variable.replace("_", " "))
    return text[:1].upper() + text[1:]


def channel_title(variable: str, level_name: str) -> str:
    """`Zonal wind, 510 hPa`; what stands in brackets in the level's name is left to the tables."""
    level = level_name.split(" (")[0]
    return f"{variable_name(variable)}, {level}" if level else variable_name(variable)


def days(lead_time) -> np.ndarray:
    """Leads in days, or in months where they are integers, float64."""
    leads = np.asarray(lead_time)
    return leads.astype(np.float64) if leads.dtype.kind in "iu" else leads / np.timedelta64(1, "s") / 86400


def tail_of(event: float) -> str:
    """Which values an event of extremes has, by the level of its quantile between 0 and 1."""
    return f"{'above' if event >= 0.5 else 'below'} the {100 * event:g} % quantile"


def lead_label(lead) -> str:
    """`6 h`, `1 day`, `2.5 days`, `3 months`."""
    if np.asarray(lead).dtype.kind in "iu":
        return lead_text(lead)
    hours = float(np.timedelta64(lead, "s") / np.timedelta64(3600, "s"))
    if hours < 24:
        return f"{hours:g} h"
    return "1 day" if hours == 24 else f"{hours / 24:g} days"


def lead_days(days: float, unit: str = "day") -> str:
    """`6 h`, `2 d`, `3 mo`."""
    if unit == "month":
        return f"{days:g} mo"
    return f"{days * 24:g} h" if days < 1 else f"{days:g} d"


def number(value: float, digits: int = 3) -> str:
    """Three significant digits, a true minus, a dash for what is missing: `0.0123`, `−4.5`, `12 300`, `–`."""
    if not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    size = int(np.floor(np.log10(abs(value))))
    if size >= 5 or size < -3:
        return scientific(value, digits - 1)
    text = f"{value:.{max(digits - 1 - size, 0)}f}"
    return text.replace("-", "−")


def scientific(value: float, digits: int = 1) -> str:
    """`3.2 × 10⁻⁹`, with spaces that no line breaks at."""
    if not np.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    raised = str(int(exponent)).translate(RAISED)
    return f"{mantissa}\u00a0×\u00a010{raised}".replace("-", "−")


def relative(change: float, digits: int = 0) -> str:
    """A change in percent as words before `those of`: `3 % smaller than`, or `as large as` where it rounds to nothing."""
    text = f"{abs(change):.{digits}f}"
    return "as large as" if float(text) == 0 else f"{text} % {'smaller' if change < 0 else 'larger'} than"


def percent(value: float) -> str:
    """A signed percentage with a true minus: `−34 %`."""
    return "–" if not np.isfinite(value) else f"{signed(value)} %"


def signed(value: float) -> str:
    """A signed whole number with a true minus, `0` without a sign."""
    rounded = round(float(value))
    return "0" if rounded == 0 else f"{rounded:+d}".replace("-", "−")


def signed_days(gained: float, reached: bool) -> str:
    """`+2.3`, `≥ +4` where the error is not reached within the forecast, a dash for what is missing."""
    if not np.isfinite(gained):
        return "–"
    text = f"{gained:+.1f}".replace("-", "−") if reached else f"≥ {gained:+g}"
    return "0" if text in ("+0.0", "−0.0") else text


def region_name(region: str) -> str:
    """`North of 20° N`, `East Asia`; the name of a station as it is."""
    return REGION_NAMES.get(region, region.replace("-", " ").title() if region in REGIONS else region)


def over_region(region: str) -> str:
    """`over the globe`, `over all stations`, `over East Asia`: a region in a sentence."""
    names = {"global": "the globe", "domain": "the domain", "stations": "all stations", "tropics": "the tropics"}
    return f"over {names.get(region, region_name(region))}"


def date_and_hour(moment) -> str:
    """`2002-04-25`, `2002-04-25 12:00`: a time, or its text, to the minute, midnight by its date alone."""
    text = np.datetime_as_string(moment, "m") if isinstance(moment, np.datetime64) else str(moment)
    return text[:16].replace("T", " ").removesuffix(" 00:00")


def difference_cell(difference: float, half: float, sure: bool) -> str:
    """A cell with a difference in percent and the half-width of its interval, coloured where it is significant."""
    if not np.isfinite(difference):
        return "<td>–</td>"
    kind = ("better" if difference < 0 else "worse") if sure else "unsure"
    width = f'<span class="interval">± {half:.0f}</span>' if np.isfinite(half) else ""
    return f'<td class="{kind}">{percent(difference)}{width}</td>'


def coloured_cell(value: float, sure: bool, full: float) -> str:
    """A cell coloured by a difference in percent, with a dot where it is significant; `full` percent has full colour."""
    if not np.isfinite(value):
        return "<td>–</td>"
    share = min(abs(value) / full, 1.0)
    colour = "0,114,178" if value < 0 else "213,94,0"
    ink = ' class="inverse"' if share > 0.75 else ""
    mark = '<span class="mark" title="significant">•</span>' if sure else ""
    return f'<td{ink} style="background:rgba({colour},{0.9 * share:.2f})">{signed(value)}{mark}</td>'


def unit_cell(title: str, units: str) -> str:
    """The head of a row: a field and its unit."""
    unit = f' <span class="unit">{html.escape(units)}</span>' if units else ""
    return f'<th scope="row">{html.escape(title)}{unit}</th>'


def head_cells(texts) -> str:
    """Heads of columns."""
    return "".join(f'<th scope="col">{html.escape(text)}</th>' for text in texts)


def table(label: str, markup: str) -> str:
    """A table that scrolls where the page is narrow; `label` is plain text."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(label)}">{markup}</div>\n'


def note(text: str) -> str:
    """A paragraph of plain text beside figures and tables."""
    return f'<p class="note">{html.escape(text)}</p>'


def html_table(head: str, rows: list[str], caption: str = "", kind: str = "") -> str:
    """A table of rows `<th>...<td>...` under one row of column heads; `caption` is HTML, `kind` a class of the style."""
    opening = f'<table class="{kind}">' if kind else "<table>"
    title = f"<caption>{caption}</caption>" if caption else ""
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"{opening}{title}<thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table>"
