"""The departure from the climatology of the hour and day at the step's end, in units of the spread about the time mean."""

from emulator.model.predictions import PREDICTIONS, Prediction


def following(known, predicted):
    return known.reference + known.spread * predicted


PREDICTIONS.register("anomaly", Prediction(following, spread=True, reference=True))
