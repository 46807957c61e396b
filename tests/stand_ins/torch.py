"""A stand-in for the part of torch that the engines trtllm use."""

from __future__ import annotations

import builtins
from typing import Any


class Tensor:
    def __init__(self, array: Any) -> None:
        assert array.dtype == "float32"
        self._array = array

    def nonzero(self) -> list[int]:
        return [int(i) for i in self._array.nonzero()[0]]

    def __getitem__(self, index: int) -> builtins.float:
        return builtins.float(self._array[index])

    def float(self) -> Tensor:
        return self

    def cpu(self) -> Tensor:
        return self

    def numpy(self) -> Any:
        return self._array


def from_numpy(array: Any) -> Tensor:
    return Tensor(array)
