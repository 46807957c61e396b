"""A stand-in for the part of torch that the engine trtllm uses."""

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
