"""Translates structured output, in OpenAI's notation and in vLLM's."""

from __future__ import annotations

from typing import Any

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.json_model import json_text
from services.gateway.dialects.openai_request import JsonObjectFormat, JsonSchema, JsonSchemaFormat, OpenAIRequest
from services.gateway.dialects.worker_fields import STRUCTURED_OUTPUT
from services.gateway.errors import bad_request
from services.runtime.messages.message import Message


def add_structured_output(request: OpenAIRequest, response_format: pb.ResponseFormat) -> str:
    """Set the format that `response_format`, `structured_outputs` or one of `guided_…` asks for.

    Returns:
        The path of the field that asks for it.

    Raises:
        ApiError: More than one field asks for it, or one is incomplete.
    """
    paths: list[str] = []
    if isinstance(request.response_format, JsonObjectFormat):
        paths.append(STRUCTURED_OUTPUT)
        response_format.json_object.SetInParent()
    elif isinstance(request.response_format, JsonSchemaFormat):
        paths.append(STRUCTURED_OUTPUT)
        _add_named_schema(request.response_format.json_schema, response_format.json_schema)
    _add_values(
        "guided_",
        response_format,
        paths,
        json=request.guided_json,
        regex=request.guided_regex,
        choice=request.guided_choice,
        grammar=request.guided_grammar,
    )
    if (outputs := request.structured_outputs) is not None:
        prefix = "structured_outputs."
        _add_values(
            prefix,
            response_format,
            paths,
            json=outputs.json,
            regex=outputs.regex,
            choice=outputs.choice,
            grammar=outputs.grammar,
        )
        if outputs.json_object:
            paths.append(f"{prefix}json_object")
            response_format.json_object.SetInParent()
        if outputs.structural_tag is not None:
            paths.append(f"{prefix}structural_tag")
            response_format.structural_tag_json = _text(paths[-1], outputs.structural_tag)
    if len(paths) > 1:
        raise bad_request(Message("mutually_exclusive", field=paths[1], other_field=paths[0]))
    return paths[0] if paths else STRUCTURED_OUTPUT


def _add_named_schema(json_schema: JsonSchema, schema: pb.JsonSchemaFormat) -> None:
    if json_schema.schema is None or json_schema.name is None:
        raise bad_request(Message("schema_incomplete", field="response_format.json_schema"))
    schema.name = json_schema.name
    schema.description = json_schema.description or ""
    schema.strict = json_schema.strict or False
    schema.schema_json = json_text("response_format.json_schema.schema", json_schema.schema)


def _add_values(
    prefix: str,
    response_format: pb.ResponseFormat,
    paths: list[str],
    *,
    json: Any,
    regex: str | None,
    choice: list[str] | None,
    grammar: str | None,
) -> None:
    """Set what one of vLLM's notations asks for, and add the paths of its fields to `paths`."""
    if json is not None:
        paths.append(f"{prefix}json")
        response_format.json_schema.schema_json = _text(paths[-1], json)
    if regex is not None:
        paths.append(f"{prefix}regex")
        response_format.regex = regex
    if choice is not None:
        paths.append(f"{prefix}choice")
        response_format.choice.choices.extend(choice)
    if grammar is not None:
        paths.append(f"{prefix}grammar")
        response_format.grammar = grammar


def _text(path: str, value: Any) -> str:
    return value if isinstance(value, str) else json_text(path, value)
