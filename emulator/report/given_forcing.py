"""What forecasts and long runs were given from outside, where that was changed or is beyond what training has seen."""

import json
from itertools import chain

from emulator.report.display import variable_name
from emulator.report.view import View


def forcing_caveats(view: View) -> list[str]:
    """Sentences, plain text, on the forcing of forecasts and long runs."""
    sentences = []
    for name, about in chain(*(view.note(note).items() for note in ("provenance", "long_run_provenance"))):
        for variable, offset in json.loads(about.get("forcing_offsets", "{}")).items():
            text = f"{variable_name(variable)} was given to {name} changed by {_in_units(view, variable, offset)} everywhere."
            sentences.append(text)
        if "restoring" in about:
            days = json.loads(about["restoring"])["days"]
            sentences.append(
                f"The surface fluxes of {name} answer its surface: what that departs by from the store's changes them, as if "
                f"to take it off the uppermost layer in {days:g} days. So the store's surface is known to it."
            )
        for variable, found in json.loads(about.get("forcing_beyond_training", "{}")).items():
            trained, given = (" to ".join(_in_units(view, variable, v) for v in found[n]) for n in ("trained", "given"))
            sentences.append(
                f"{name} was given {variable_name(variable).lower()} of {given}, beyond its training's {trained}: "
                f"what it makes of "
                "that it has not learnt from data."
            )
    return list(dict.fromkeys(sentences))


def _in_units(view: View, variable: str, value: float) -> str:
    return f"{f'{value:.4g}'.replace('-', '−')} {view.stored_units(variable)}".strip()
