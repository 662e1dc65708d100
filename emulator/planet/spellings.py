"""Units as files spell them, in words that pint knows: those of CF and UDUNITS, of GRIB tables, CMIP and older tools."""

import contextlib
import re

# Whole units, in small letters. Pint does not know these, or takes them for something else (mb is its millibarn).
WHOLE = {
    **dict.fromkeys(
        "(0-1);0-1;[0-1];0..1;~;-;--;[-];fraction;fractional;frac;proportion;numeric;unitless;none;nondimensional;"
        "non-dimensional;nondim;non-dim;dimensionless;ratio;1/1;1.0;index".split(";"),
        "1",
    ),
    **dict.fromkeys(("%", "percent", "per cent", "pct", "percentage", "percents"), "0.01"),
    **dict.fromkeys(("okta", "oktas", "eighths", "1/8"), "0.125"),
    **dict.fromkeys(("tenths", "1/10"), "0.1"),
    **dict.fromkeys(("mb", "mbar", "mbars", "mbs"), "hPa"),
    **dict.fromkeys(
        ("psu", "pss", "pss-78", "pss78", "practical salinity units", "practical salinity unit", "permil", "per mil",
         "per mille", "‰", "parts per thousand", "o/oo"),
        "g kg-1",
    ),
    **dict.fromkeys(("ppm", "parts per million"), "1e-6"),
    **dict.fromkeys(("ppb", "parts per billion"), "1e-9"),
    **dict.fromkeys(("ppt", "pptr", "parts per trillion"), "1e-12"),
    **{f"{part}v": f"{size} mol mol-1" for part, size in (("ppm", "1e-6"), ("ppb", "1e-9"), ("ppt", "1e-12"))},
    **dict.fromkeys(("pvu", "pv units"), "1e-6 K m2 kg-1 s-1"),
    **dict.fromkeys(("du", "dobson", "dobsons", "dobson unit", "dobson units"), "2.1415e-5 kg m-2"),  # of ozone
    **dict.fromkeys(("gpm", "geopotential meter", "geopotential metre", "geopotential meters", "geopotential metres"), "m"),
    **dict.fromkeys(("gpdm", "gpdam", "geopotential decameter", "geopotential decametre"), "dam"),
    **dict.fromkeys(("kts", "kt", "knots", "knot"), "knot"),
}  # fmt: skip
# Words within units, in small letters, that pint knows under another name.
WORDS = {"mb": "hPa", "mbar": "hPa", "gm": "g", "gms": "g", "kgs": "kg", "secs": "s", "mtr": "m", "pc": "%"}
# Symbols that are written in capitals in old files: what else they would be has no dimension of ours.
SYMBOLS = {"pa": "Pa", "hpa": "hPa", "kpa": "kPa", "dapa": "daPa", "k": "K", "j": "J", "w": "W", "n": "N", "mj": "MJ",
           "kj": "kJ", "mm": "mm", "cm": "cm", "km": "km", "dm": "dm", "m": "m", "kg": "kg", "g": "g", "s": "s", "h": "h",
           "hr": "h", "d": "d", "mol": "mol", "hz": "Hz"}  # fmt: skip
_TEMPERATURE = re.compile(
    r"(?:deg(?:ree)?s?\.?|°|º)?[\s_]*(c|celsius|celcius|centigrade|k|kelvins?|f|fahrenheit)", re.IGNORECASE
)
_ANGLE = re.compile(
    r"(?:deg(?:ree)?s?|°|º)[\s_]*\(?(?:true|t|north|south|east|west|n|s|e|w|arc|angle)?\)?", re.IGNORECASE
)
_WATER = re.compile(
    r"\s*(?:of\s+)?(?:liquid\s+)?(?:water(?:[\s_-]+equivalent)?|h2o|w\.?e\.?q?\.?)(?=\W|$)", re.IGNORECASE
)
_FACTOR = re.compile(
    r"\(?([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|10(?:\^|\*\*)[+-]?\d+)\)?\s*[*x]?\s*(/?[A-Za-z%°].*)", re.I
)
_SIGNS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻−–·⋅×", "0123456789---   ")


def plain(text: str) -> str:
    """Units without what is typography: superscripts, dots for products, brackets around the whole, blanks."""
    raised = re.sub(r"(?<=[A-Za-z])([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)", lambda found: f"^{found[1]}", str(text))
    text = " ".join(raised.translate(_SIGNS).replace("℃", "degC").replace("µ", "u").replace("μ", "u").split())
    if re.fullmatch(r"\[[^\[\]]*[A-Za-z0-9%][^\[\]]*\]|\([A-Za-z%][^()]*\)", text) and "table" not in text.lower():
        text = text[1:-1].strip()
    text = re.sub(r"\bw\.\s?e\.(?:q\.)?", "we", text)
    return re.sub(r"([A-Za-z)]|[A-Za-z)][-^*+]*\d+)\.(?=[A-Za-z(])", r"\1 ", text)


def spelled(text: str) -> str:
    """Units in a spelling that pint knows, where they are one of those that files have."""
    text = plain(text)
    small = re.sub(r"\s*-\s*", "-", text.lower()) if re.match(r"[\[(]?\s*0\s*-\s*1", text) else text.lower()
    if small in WHOLE:
        return WHOLE[small]
    if re.fullmatch(r"\(?code table [\d.]+\)?", small):
        return "1"
    if found := _TEMPERATURE.fullmatch(text):
        return {"c": "degC", "k": "K", "f": "degF"}[found[1][0].lower()]
    if _ANGLE.fullmatch(text):
        return "degree"
    text = _WATER.sub("", text) if re.match(r"(?:m|mm|cm|kg|met|milli|centi|inch|in)", small) else text
    text = f"1{text}" if text.startswith("/") else text
    text = re.sub(r"(?<=[A-Za-z])\+(?=\d)", "**", text)
    text = re.sub(
        r"\b(?:per\s+)?sq(?:uare)?\s+(?:met(?:er|re)s?|m)\b", lambda m: "per " * m[0].startswith("per") + "m2", text
    )
    text = re.sub(r"\s*\bper\b\s*", "/", text)
    text = re.sub(r"\s*\((\d+\s*[a-z]+)\)\s*(?:\^|\*\*)?-1", r"/\1", text)
    text = re.sub(r"/\((\d+\s*[a-z]+)\)", r"/\1", text)
    text = re.sub(r"([*/ ]|^)(\d+)\s*(h|hr|hrs|hours?|d|days?|min|s)\b", r"\1(\2*\3)", text)  # an amount in 6h
    return re.sub(r"[A-Za-z_]+", _word, text)


def _word(found: re.Match) -> str:
    word = found[0]
    if word.lower() in WORDS:
        return WORDS[word.lower()]
    named = (len(word) > 3 and word[1:].islower()) or (len(word) > 4 and word.isupper()) or len(word) > 6
    return word.lower() if named else word  # Watt, Pascals, METERS, hectoPascals; but degC, hPa


def capitals(text: str) -> str:
    """Units whose symbols are written in capitals alone, in theirs: M/S, HPA, KG M-2."""
    return re.sub(r"[A-Za-z]+", lambda found: SYMBOLS.get(found[0].lower(), found[0].lower()), plain(text))


def factor(text: str) -> tuple[float, str]:
    """The number that UDUNITS allows before units (`1e-3 kg m-2`, `10^-5 s-1`), and the rest; 1 for none."""
    with contextlib.suppress(ValueError):
        return float(text), ""
    if (found := _FACTOR.fullmatch(text)) is None:
        return 1.0, text
    number, rest = found[1], f"1{found[2]}" if found[2].startswith("/") else found[2]
    if number == "1" and rest.startswith("1/"):
        return 1.0, text
    if number.startswith(("10^", "10**")):
        return 10.0 ** int(number.split("^")[-1].split("**")[-1]), rest
    return float(number), rest
