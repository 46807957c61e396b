"""Functions of both Triton models: load the engine, and respond with an error."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import triton_python_backend_utils as pb_utils

from services.worker.triton_kit.request_error import RequestError

_CODES: Final = {
    "INVALID_ARGUMENT": "INVALID_ARG",
    "UNSUPPORTED_PARAMETER": "INVALID_ARG",
    "CONTEXT_LENGTH_EXCEEDED": "INVALID_ARG",
    "OVERLOADED": "UNAVAILABLE",
}
"""Names in pb_utils.TritonError, which Triton fills in only after this module was imported."""


def load_engine(args: Mapping[str, str], *, package: str, engines: Sequence[str]) -> Any:
    """Return the engine that the model's configuration names, made with its arguments.

    `args` are those of `TritonPythonModel.initialize`. `package` is the dotted name of the package in which each of
    `engines` is a module with a function `create`. Raises TritonModelException, whose message is one line, when the
    engine cannot be made.
    """
    parameters = json.loads(args["model_config"])["parameters"]
    name = parameters["engine"]["string_value"]
    arguments = json.loads(parameters["engine_args"]["string_value"])
    if name not in engines:
        raise pb_utils.TritonModelException(f"unknown engine {name!r}; there are {', '.join(engines)}")
    try:
        return importlib.import_module(f"{package}.{name}").create(arguments)
    except (ImportError, OSError, TypeError, ValueError, RuntimeError) as error:
        raise pb_utils.TritonModelException(f"engine {name}: {error}") from None


def error_response(error: RequestError) -> Any:
    """Return the InferenceResponse that ends a request with `error`."""
    code = getattr(pb_utils.TritonError, _CODES.get(error.reason, "INTERNAL"))
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), code))
