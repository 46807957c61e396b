"""Checks and converts the structured output of a request: its response format, or the schema of a required call.

The engine enforces it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.served_model import ServedModel
from services.inference.request.json_depth import depth_of
from services.inference.request.structured_output.call_schema import call_schema
from services.inference.request.structured_output.closed_objects import closed
from services.inference.request.structured_output.grammar_limits import check_grammar
from services.inference.request.structured_output.held_calls import (
    combines_calls_with_format,
    has_format,
    has_lark,
    held_functions,
    holds_calls,
    may_call_or_answer_in_format,
)
from services.inference.request.structured_output.regex_limits import check_regex
from services.inference.request.structured_output.schema_limits import check_schema
from services.inference.request.structured_output.structural_tag_limits import check_structural_tag
from services.inference.request.tools import callable_functions, requires_call
from services.runtime.failure import invalid, unsupported
from services.runtime.messages.message import Message

MAX_SCHEMA_LENGTH: Final = 65_536
MAX_SCHEMA_DEPTH: Final = 32
MAX_REGEX_LENGTH: Final = 4_096
MAX_GRAMMAR_LENGTH: Final = 65_536
MAX_CHOICES: Final = 256
MAX_CHOICES_LENGTH: Final = 16_384
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SPECIAL: Final = re.compile(r"[\\.+*?()|\[\]{}^$]")


_STRUCTURED_OUTPUTS: Final[dict[str, Callable[[pb.ResponseFormat], dict[str, Any]]]] = {
    "json_object": lambda _: {"json_object": True},
    "json_schema": lambda response_format: {
        "json": closed(json.loads(response_format.json_schema.schema_json or "{}"))
    },
    "regex": lambda response_format: {"regex": response_format.regex},
    "choice": lambda response_format: {
        "regex": "|".join(_SPECIAL.sub(r"\\\g<0>", choice) for choice in response_format.choice.choices)
    },
    "grammar": lambda response_format: {"grammar": response_format.grammar},
    "structural_tag_json": lambda response_format: {"structural_tag": json.loads(response_format.structural_tag_json)},
}


def structured_output(request: pb.GenerateRequest) -> dict[str, Any] | None:
    """Return the parameter `structured_output` of the Triton contract for a checked request; None for free text."""
    if requires_call(request):
        return {"json": call_schema(callable_functions(request))}
    response_format = request.response_format
    kind = response_format.WhichOneof("format")
    return _STRUCTURED_OUTPUTS[kind](response_format) if kind else None


def requests_structured_output(request: pb.GenerateRequest) -> bool:
    """Return whether a request has a structured output: a response format or a required call."""
    return requires_call(request) or has_format(request)


def check_structured_output(request: pb.GenerateRequest, model: ServedModel) -> None:
    """Raise Failure for a structured output that is invalid, or that the model does not support."""
    if not requests_structured_output(request):
        return
    field = "tool_choice" if requires_call(request) else "response_format"
    if not model.supports("structured_output"):
        engine = model.engine().engine
        raise unsupported(Message("structured_output_not_supported", field=field, engine=engine, model=model.id))
    if model.spec.parsers.reasoning is not None:
        if not model.supports_structured_output:
            raise unsupported(Message("structured_output_after_reasoning", field=field, model=model.id))
        if request.reasoning.enabled and not model.supports_reasoning_budget:
            raise unsupported(
                Message(
                    "no_reasoning_with_structured_output",
                    field="reasoning.enabled",
                    other_field=field,
                    model=model.id,
                )
            )
    if requires_call(request):
        _check_functions(request, callable_functions(request))
    elif may_call_or_answer_in_format(request) and not combines_calls_with_format(request, model):
        raise unsupported(
            Message(
                "lark_with_tools" if has_lark(request) and model.supports("calls") else "structured_output_with_tools",
                field="response_format",
                other_field="tool_choice",
            )
        )
    _check_format(request.response_format)


def check_held_calls(request: pb.GenerateRequest, model: ServedModel) -> None:
    """Raise Failure if calls that are not required are held to schemas that exceed a limit."""
    if holds_calls(request, model):
        _check_functions(request, held_functions(request))


def _check_functions(request: pb.GenerateRequest, functions: Mapping[str, Any]) -> None:
    """Raise Failure if the schemas of `functions`, which are compiled together, exceed a limit."""
    for index, tool in enumerate(request.tools):
        if functions.get(tool.name):
            _check_depth(f"tools[{index}].parameters_json", functions[tool.name])
            check_schema(f"tools[{index}].parameters_json", functions[tool.name])
    size = sum(len(tool.parameters_json) for tool in request.tools if functions.get(tool.name))
    if size > MAX_SCHEMA_LENGTH:
        message = Message(
            "call_schemas_too_long", field="tools", other_field="tool_choice", value=size, limit=MAX_SCHEMA_LENGTH
        )
        raise invalid(message)


def _check_format(response_format: pb.ResponseFormat) -> None:
    match response_format.WhichOneof("format"):
        case "json_schema":
            name = response_format.json_schema.name
            if name and not _NAME.fullmatch(name):
                field = "response_format.json_schema.name"
                raise invalid(Message("schema_name_not_valid", field=field, value=repr(name[:80])))
            field = "response_format.json_schema.schema_json"
            check_schema(field, _checked_json(field, response_format.json_schema.schema_json or "{}"))
        case "structural_tag_json":
            field = "response_format.structural_tag_json"
            check_structural_tag(field, _checked_json(field, response_format.structural_tag_json))
        case "regex":
            _check_length("response_format.regex", response_format.regex, MAX_REGEX_LENGTH)
            check_regex("response_format.regex", response_format.regex)
        case "grammar":
            _check_length("response_format.grammar", response_format.grammar, MAX_GRAMMAR_LENGTH)
            check_grammar("response_format.grammar", response_format.grammar)
        case "choice":
            _check_choices(response_format.choice.choices)


def _check_choices(choices: Any) -> None:
    field = "response_format.choice.choices"
    if not 1 <= len(choices) <= MAX_CHOICES:
        raise invalid(Message("entries_out_of_range", field=field, value=len(choices), least=1, most=MAX_CHOICES))
    for index, choice in enumerate(choices):
        if not choice:
            raise invalid(Message("text_empty", field=f"{field}[{index}]"))
    _check_length(field, "".join(choices), MAX_CHOICES_LENGTH)


def _checked_json(field: str, text: str) -> dict[str, Any]:
    _check_length(field, text, MAX_SCHEMA_LENGTH)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(Message("json_not_valid", field=field, reason=str(error))) from None
    if not isinstance(value, dict):
        raise invalid(Message("json_not_object", field=field))
    _check_depth(field, value)
    return value


def _check_depth(field: str, value: Any) -> None:
    depth = depth_of(value)
    if depth > MAX_SCHEMA_DEPTH:
        raise invalid(Message("depth_over_limit", field=field, value=depth, limit=MAX_SCHEMA_DEPTH))


def _check_length(field: str, text: str, limit: int) -> None:
    if not text or len(text) > limit:
        raise invalid(Message("text_length_out_of_range", field=field, value=len(text), least=1, most=limit))
