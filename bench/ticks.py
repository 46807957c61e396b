"""The ticks of a plot's axis."""

from __future__ import annotations

import math


def distance(most: float) -> float:
    """Return a round distance between ticks, of which about five fit."""
    rough = max(most, 1e-9) / 5
    magnitude = 10.0 ** math.floor(math.log10(rough))
    return next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough)
