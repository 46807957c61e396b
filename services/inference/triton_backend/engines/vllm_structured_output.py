"""Structured outputs as the two libraries that vLLM compiles them with take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from services.inference.triton_backend.contract import (
    STRUCTURED_OUTPUT,
    STRUCTURED_OUTPUT_KINDS,
    Request,
    StructuredOutput,
)
from services.inference.triton_backend.gbnf.grammar import GbnfError
from services.inference.triton_backend.gbnf.lark import as_lark
from services.worker.triton_kit.request_error import RequestError

TRIAL: Final = "services.inference.triton_backend.engines.vllm_trial"
"""The module that compiles for trial."""
LIBRARIES: Final = {"guidance": "llguidance", "xgrammar": "xgrammar"}
"""vLLM's backends, and the packages that they are. The others, and `auto`, would compile without a trial."""
ANY_OBJECT: Final = '{"type": "object"}'
_DEFAULTS: Final = {
    "backend": "guidance",
    # Small models generate white space without end where it is allowed.
    "disable_any_whitespace": True,
}


def configuration(given: Any) -> dict[str, Any]:
    """Return vLLM's argument `structured_outputs_config`. Raises ValueError for what cannot be tried."""
    config = {**_DEFAULTS, **(given or {})}
    if config["backend"] not in LIBRARIES:
        allowed = " or ".join(LIBRARIES)
        raise ValueError(f"structured_outputs_config.backend is {config['backend']!r}; it must be {allowed}")
    if config.get("reasoning_parser"):
        raise ValueError("structured_outputs_config.reasoning_parser is the worker's own; leave it out")
    return config


def kinds(config: Mapping[str, Any]) -> frozenset[str]:
    """Return the kinds of StructuredOutput that the configured library compiles."""
    return frozenset(STRUCTURED_OUTPUT_KINDS) - (set() if config["backend"] == "xgrammar" else {"structural_tag"})


def translated(output: StructuredOutput, backend: str) -> StructuredOutput:
    """Return a structured output in the notation of `backend`. Raises RequestError for an invalid or empty one.

    vLLM takes an empty text for none at all, at the wrong moment.
    """
    if not output.text.strip() and output.kind not in ("json", "json_object"):
        raise _not_valid(f"the {output.kind} is empty")
    if output.kind != "grammar" or backend == "xgrammar":
        return output
    try:
        return StructuredOutput(output.kind, as_lark(output.text))
    except GbnfError as error:
        raise RequestError(
            "INVALID_ARGUMENT", error.message_id, **{"field": STRUCTURED_OUTPUT, **error.parameters}
        ) from None


def rejection(request: Request, error: Exception) -> RequestError:
    """Return the error of a request that vLLM has rejected, which is about its structured output if it has one."""
    reason = " ".join(str(error.__cause__ or error).split())[:200]
    if request.params.structured_output is not None:
        return _not_valid(reason)
    return RequestError("INVALID_ARGUMENT", "engine_rejects_request", reason=reason)


def _not_valid(reason: str) -> RequestError:
    return RequestError("INVALID_ARGUMENT", "structured_output_not_valid", field=STRUCTURED_OUTPUT, reason=reason)
