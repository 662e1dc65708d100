"""The change over the step, in units of its standard deviation, on top of damped persistence."""

from emulator.model.predictions import PREDICTIONS, Prediction


def following(known, predicted):
    return known.state + (known.damping * (known.resting - known.state) + known.change * predicted)


PREDICTIONS.register("change", Prediction(following, damped=True))
