"""Budgets that are measured: bytes of the int8 file, and the time of a run."""

import math
import numbers

from tfdistill.compress.channels.resize import Resized
from tfdistill.compress.file_bytes import int8_bytes
from tfdistill.errors import ConfigurationError


def measure_of(latency, model, trace):
    """Returns a function of a `Removal` that returns the measured share that stays.

    Args:
        latency: Function of the model and a smaller one that returns that share; None for the bytes of the int8 file.
        model: The original.
        trace: Its `ChannelTrace`.
    """
    whole = int8_bytes(model) if latency is None else None

    def measure(removal):
        smaller = Resized(model, trace, removal).model
        found = int8_bytes(smaller) / whole if latency is None else latency(model, smaller)
        if not isinstance(found, numbers.Real) or not 0 < found < math.inf:
            raise ConfigurationError(f"latency= returned {found!r} for '{model.name}' and a smaller model.", "a share above 0, as a number")
        return float(found)

    return measure
