"""Estimate the growth of a process's memory, with a confidence interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

BLOCK_SECONDS: Final = 60.0
LEAST_BLOCKS: Final = 6
"""The fewest blocks that yield a meaningful slope."""


@dataclass(frozen=True)
class Slope:
    """Growth in units per hour with the bounds of its 95 % confidence interval."""

    per_hour: float
    lower: float
    upper: float


def slope(seconds: Sequence[float], values: Sequence[float], *, block_seconds: float = BLOCK_SECONDS) -> Slope:
    """Estimate the slope of a noisy series.

    Memory jumps up with each burst of work and comes back, so the series is first reduced to the minimum of each block
    of `block_seconds`: a leak lifts the minima, a burst does not. A line is fitted to the minima by least squares.
    Neighbouring residuals resemble one another, since an allocator grows in steps, which makes the usual interval too
    narrow. The standard error is therefore that of Newey and West (1987, doi:10.2307/1913610) with a bandwidth of the
    square root of the number of blocks, and its critical value that of Kiefer and Vogelsang for this bandwidth (2005,
    doi:10.1017/S0266466605050565, table 1, Bartlett kernel).

    Args:
        seconds: Times of the samples, ascending.
        values: The samples, in any unit.
        block_seconds: Length of a block.

    Raises:
        ValueError: There are fewer than LEAST_BLOCKS blocks.
    """
    blocks: dict[int, float] = {}
    for moment, value in zip(seconds, values, strict=True):
        number = int((moment - seconds[0]) // block_seconds)
        blocks[number] = min(value, blocks.get(number, math.inf))
    if len(blocks) < LEAST_BLOCKS:
        raise ValueError(
            f"there are {len(blocks)} blocks of {block_seconds:g} s; a slope needs at least {LEAST_BLOCKS}"
        )
    hours = [number * block_seconds / 3600 for number in blocks]
    minima = [*blocks.values()]
    fit = statistics.linear_regression(hours, minima)
    residuals = [value - fit.slope * hour - fit.intercept for hour, value in zip(hours, minima, strict=True)]
    bandwidth = max(1, round(math.sqrt(len(hours))))
    half_width = _critical_value(bandwidth / len(hours)) * _standard_error(hours, residuals, bandwidth)
    return Slope(fit.slope, fit.slope - half_width, fit.slope + half_width)


def _standard_error(hours: Sequence[float], residuals: Sequence[float], bandwidth: int) -> float:
    mean, count = statistics.fmean(hours), len(hours)
    scores = [(hour - mean) * residual for hour, residual in zip(hours, residuals, strict=True)]
    variance = sum(score**2 for score in scores)
    for lag in range(1, bandwidth + 1):
        products = sum(one * later for one, later in zip(scores, scores[lag:], strict=False))
        variance += 2 * (1 - lag / (bandwidth + 1)) * products
    spread = sum((hour - mean) ** 2 for hour in hours)
    # The last factor corrects for the two fitted parameters.
    return math.sqrt(max(0.0, variance)) / spread * math.sqrt(count / (count - 2))


def _critical_value(share: float) -> float:
    """Return the two-sided critical value for 95 %, with a bandwidth of this share of the values."""
    return 1.96 + 2.9694 * share + 0.416 * share**2 - 0.5324 * share**3
