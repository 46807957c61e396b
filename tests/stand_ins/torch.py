"""A stand-in for torch, as far as the engine trtllm needs it: for tests only."""

from __future__ import annotations

from typing import Any


class Tensor:
    def __init__(self, array: Any) -> None:
        assert array.dtype == "float32"
        self._array = array

    def nonzero(self) -> list[int]:
        return [int(i) for i in self._array.nonzero()[0]]

    def __getitem__(self, index: int) -> float:
        return float(self._array[index])


def from_numpy(array: Any) -> Tensor:
    return Tensor(array)
