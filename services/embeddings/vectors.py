"""Post-processing of the engine's vectors."""

from __future__ import annotations

import numpy as np
from numpy import float32
from numpy.typing import NDArray


def shortened(vectors: NDArray[float32], dimensions: int) -> NDArray[float32]:
    """Return the first `dimensions` numbers of every row, scaled to the norm 1. Full vectors stay unchanged."""
    if dimensions == vectors.shape[1]:
        return vectors
    short = vectors[:, :dimensions]
    lengths = np.linalg.norm(short, axis=1, keepdims=True)
    # A beginning of zeros has no direction, and stays as it is.
    return np.divide(short, lengths, out=np.zeros_like(short), where=lengths > 0)
