"""Decides whether the engine holds the calls of an answer to their schemas, where the model may call functions."""

from __future__ import annotations

from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.served_model import ServedModel
from services.inference.parsing.hermes_calls import HermesParser
from services.inference.parsing.minimax_calls import MiniMaxParser
from services.inference.request.structured_output.call_schema import call_schema
from services.inference.request.tools import callable_functions, requires_call
from services.inference.triton_backend.gbnf.lark import is_lark

TAGS: Final = {
    "hermes": (HermesParser.open_tag, HermesParser.close_tag),
    "minimax": (MiniMaxParser.open_tag, MiniMaxParser.close_tag),
}
"""The tags around calls by the notation of the model. Between them, held calls are in the notation of Hermes."""
_COMBINED: Final = frozenset({"json_object", "json_schema", "regex", "choice"})
"""The formats that an engine can combine with calls, beside grammars in GBNF."""


def has_format(request: pb.GenerateRequest) -> bool:
    """Return whether a request has a response format."""
    return request.response_format.WhichOneof("format") is not None


def may_call_or_answer_in_format(request: pb.GenerateRequest) -> bool:
    """Return whether the model may call functions, and must otherwise answer in a response format."""
    return has_format(request) and not requires_call(request) and bool(callable_functions(request))


def combines_calls_with_format(request: pb.GenerateRequest, model: ServedModel) -> bool:
    """Return whether the engine can hold an answer to `either calls or the response format`."""
    kind = request.response_format.WhichOneof("format")
    return model.supports("calls") and (kind in _COMBINED or (kind == "grammar" and not has_lark(request)))


def has_lark(request: pb.GenerateRequest) -> bool:
    """Return whether the response format is a grammar in llguidance's Lark, whose terminals may conflict with tags."""
    return is_lark(request.response_format.grammar)


def strict_functions(request: pb.GenerateRequest) -> list[int]:
    """Return the indices of the tools that may be called, and whose arguments must match their schemas."""
    if requires_call(request) or not any(tool.strict for tool in request.tools):
        return []
    functions = callable_functions(request)
    return [index for index, tool in enumerate(request.tools) if tool.strict and tool.name in functions]


def holds_calls(request: pb.GenerateRequest, model: ServedModel) -> bool:
    """Return whether the engine holds the calls of a checked request to their schemas, if the model makes any."""
    if may_call_or_answer_in_format(request):
        return combines_calls_with_format(request, model)
    return (
        bool(strict_functions(request))
        # A model of another notation calls in free text as it was trained to.
        and model.spec.parsers.tool_calls == "hermes"
        and model.supports("calls")
        and model.supports("structured_output")
        # Engines reject it with structured output.
        and not request.sampling.min_tokens
    )


def held_functions(request: pb.GenerateRequest) -> dict[str, Any]:
    """Return the schemas to which calls are held, by function. Without a response format, only strict tools have one.

    The request must hold calls.
    """
    functions = callable_functions(request)
    if has_format(request):
        return functions
    strict = {tool.name for tool in request.tools if tool.strict}
    return {name: schema if name in strict else {} for name, schema in functions.items()}


def calls_of(request: pb.GenerateRequest, model: ServedModel) -> dict[str, Any]:
    """Return the parameter `calls` of the Triton contract for a request that holds calls."""
    opening, closing = TAGS[model.spec.parsers.tool_calls or "hermes"]
    return {
        "opening": opening,
        "closing": closing,
        "schema": call_schema(held_functions(request)),
        "parallel": allows_several_calls(request),
    }


def allows_several_calls(request: pb.GenerateRequest) -> bool:
    """Return whether one answer may have several calls."""
    return not request.HasField("parallel_tool_calls") or request.parallel_tool_calls
