"""What a step has to be given besides its state, forcing and clock, and what it refuses."""

from torch import nn


def expect_given(step: nn.Module, noise, length, reference, boundary, outflow) -> None:
    """Raises `ValueError` where a step lacks one of these that it needs, or gets one that it does not take.

    `step`: an `emulator.model.step.Step`; the others as in its `forward`, None for none.
    """
    if (step.boundary_scale is None) != (boundary is None):
        raise ValueError(
            "Expected the state at the boundary of this limited area, got none"
            if boundary is None
            else "Expected no boundary for a network that was trained without one, got one"
        )
    asked = step.layout.border.outflow if step.layout.border is not None else ()
    if (outflow is not None and not asked) or (outflow is None and asked and step.scheme is not None):
        raise ValueError(
            "Expected what leaves this limited area by its sides, got none"
            if outflow is None
            else "Expected no outflow for a network that was trained without one, got one"
        )
    if (step.noise is None) != (noise is None):
        raise ValueError(
            f"Expected {'no ' * (step.noise is None)}noise for this network's step, got {int(noise is not None)} of it"
        )
    if length is None and step.layout.lengths != (1,):
        raise ValueError(f"Expected the length of a step among {step.layout.lengths} steps of the store, got none")
    if step.prediction.reference and reference is None:
        raise ValueError("Expected the climatology at the end of the step, from which this network predicts, got none")
