#!/usr/bin/env bash
# earth2studio 0.19.0 gives the surface heat fluxes of ACE, SamudrACE and CAMulator under ECMWF's names msshf and mslhf with the
# other sign: positive upward, as those models have them, where ECMWF's (parameters 235033, 235034) are positive downward.
#
# What one would expect: a field under ECMWF's name has ECMWF's sign and unit, as the lexicon of CAMulator itself takes care
# of for the stresses iews and inss, which it turns. What happens: the lexicons map msshf and mslhf to SHTFLsfc/LHTFLsfc or
# SHFLX/LHFLX and change nothing. ACELexicon also gives tp, "total precipitation (m)" by the vocabulary, as PRATEsfc
# unchanged, a rate in kg m-2 s-1: six hours of it are 21.6 times its number in metres.
# An energy or water budget, or a score against ERA5, that takes these names at their word is silently wrong: evaporation
# of 100 W m-2 becomes dew. Turn msshf and mslhf of these three models, and take ACE's tp as a rate.
#
# Output seen (what 1 of the model's upward flux becomes):
#   ACE SHTFLsfc -> msshf: 1, LHTFLsfc -> mslhf: 1
#   SamudrACE SHTFLsfc -> msshf: 1, LHTFLsfc -> mslhf: 1
#   CAMulator SHFLX -> msshf, LHFLX -> mslhf; turned by its lexicon: iews, inss
#   ACE tp is PRATEsfc times 1; the vocabulary says: total precipitation (m)
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 pandas==3.1.1 pyarrow==26.0.1
"$folder/env/bin/pip" install --quiet --disable-pip-version-check --no-deps earth2studio==0.19.0 # its lexicons need no more
"$folder/env/bin/python" - <<'PYTHON'
from earth2studio.lexicon import ACELexicon
from earth2studio.lexicon.base import E2STUDIO_VOCAB
from earth2studio.lexicon.camulator import CESM_TO_E2S, SIGN_FLIPPED_VARIABLES
from earth2studio.lexicon.samudrace import SamudrACELexicon


def becomes(lexicon, ours):
    """The source's name of a field, and what one unit of it becomes."""
    name, change = lexicon[ours]
    return (name if isinstance(name, str) else name[0]), float(change(1.0))


for title, lexicon in (("ACE", ACELexicon), ("SamudrACE", SamudrACELexicon)):
    found = {ours: becomes(lexicon, ours) for ours in ("msshf", "mslhf")}
    print(title, ", ".join(f"{theirs.split('::')[0]} -> {ours}: {value:g}" for ours, (theirs, value) in found.items()))
    assert {value for _, value in found.values()} == {1.0}, "signs have changed"
heat = {theirs: CESM_TO_E2S[theirs] for theirs in ("SHFLX", "LHFLX")}
turned = ", ".join(SIGN_FLIPPED_VARIABLES)
print("CAMulator", ", ".join(f"{t} -> {o}" for t, o in heat.items()) + f"; turned by its lexicon: {turned}")
assert list(heat.values()) == ["msshf", "mslhf"] and not set(heat.values()) & set(SIGN_FLIPPED_VARIABLES), "they are turned now"
theirs, factor = becomes(ACELexicon, "tp")
print(f"ACE tp is {theirs} times {factor:g}; the vocabulary says: {E2STUDIO_VOCAB['tp']}")
assert (theirs, factor) == ("PRATEsfc", 1.0) and "(m)" in E2STUDIO_VOCAB["tp"], "tp has changed"
PYTHON
