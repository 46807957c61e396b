"""Numbers and sizes at which engines fail."""

from __future__ import annotations

from random import Random
from typing import Final

NUMBERS: Final = (
    -1, 0, 1, 2, 3, 10, 100, 1_000, 10_000, 65_536, 1_000_000, 10**9, 2**31 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63,
    2**64 - 1, 2**64, 10**30, -(2**31), -(2**63), 0.1, 1.5, 1e-40, 5e-324, 1e308, -1e308, 1e-9,
)  # fmt: skip


def random_size(random: Random) -> int:
    """Return a size from 1 to about 30,000, distributed evenly on a logarithmic scale."""
    return int(10 ** random.uniform(0, 4.5))
