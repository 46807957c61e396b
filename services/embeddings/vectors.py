"""What is done to vectors once the engine has made them."""

from __future__ import annotations

import numpy as np
from numpy import float32
from numpy.typing import NDArray


def shortened(vectors: NDArray[float32], dimensions: int) -> NDArray[float32]:
    """The first `dimensions` numbers of every row, made length one again. All of them: the vectors as they are."""
    if dimensions == vectors.shape[1]:
        return vectors
    short = vectors[:, :dimensions]
    lengths = np.linalg.norm(short, axis=1, keepdims=True)
    # A beginning that is all zeros has no direction, and stays what it is.
    return np.divide(short, lengths, out=np.zeros_like(short), where=lengths > 0)
