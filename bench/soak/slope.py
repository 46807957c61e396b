"""Estimates how fast a process's memory grows, and how sure that is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

BLOCK_SECONDS: Final = 30.0
LEAST_BLOCKS: Final = 6
"""Fewer say nothing about a slope."""
# Two-sided 95 % points of Student's t distribution by degrees of freedom; between two, the larger one is taken.
_T: Final = ((1, 12.71), (2, 4.30), (3, 3.18), (4, 2.78), (5, 2.57), (6, 2.45), (8, 2.31), (10, 2.23), (15, 2.13),
             (20, 2.09), (30, 2.04), (60, 2.00))  # fmt: skip


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
    Neighbouring residuals resemble one another, which makes the usual interval too narrow; it is widened with the
    effective sample size n (1 - r) / (1 + r), where r is their lag-1 autocorrelation (Santer et al. 2000,
    doi:10.1029/1999JD901105).

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
    error = _standard_error(hours, residuals)
    effective = _effective_count(residuals)
    half_width = _t(effective - 2) * error * math.sqrt((len(residuals) - 2) / (effective - 2))
    return Slope(fit.slope, fit.slope - half_width, fit.slope + half_width)


def _standard_error(hours: Sequence[float], residuals: Sequence[float]) -> float:
    mean = statistics.fmean(hours)
    spread = sum((hour - mean) ** 2 for hour in hours)
    variance = sum(residual**2 for residual in residuals) / (len(residuals) - 2)
    return math.sqrt(variance / spread)


def _effective_count(residuals: Sequence[float]) -> float:
    """The number of independent values that say as much; at least 3, so that there is an interval."""
    total = sum(residual**2 for residual in residuals)
    if total == 0:
        return float(len(residuals))
    following = sum(one * next_one for one, next_one in pairwise(residuals))
    correlation = min(max(following / total, 0.0), 0.99)
    return max(3.0, len(residuals) * (1 - correlation) / (1 + correlation))


def _t(degrees: float) -> float:
    return next(value for most, value in reversed(_T) if degrees >= most)
