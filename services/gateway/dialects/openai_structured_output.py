"""Structured output, in OpenAI's notation and in vLLM's."""

from __future__ import annotations

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.json_fields import Fields, json_text
from services.gateway.errors import bad_request


def read_structured_output(fields: Fields, response_format: pb.ResponseFormat) -> str:
    """Read `response_format`, `structured_outputs` and `guided_…`. Return the path of the field that is present.

    Raises ApiError (400).
    """
    wanted = fields.object("response_format")
    if wanted is not None:
        kind = wanted.one_of("type", "text", "json_object", "json_schema")
        if kind is None:
            raise bad_request(
                wanted.path("type"), f"{wanted.path('type')} is missing; it must be text, json_object or json_schema"
            )
        if kind == "json_object":
            response_format.json_object.SetInParent()
        elif kind == "json_schema":
            json_schema = wanted.object("json_schema")
            if json_schema is None or json_schema.get("schema") is None or json_schema.get("name") is None:
                raise bad_request(
                    "response_format.json_schema", "response_format.json_schema must hold a name and a schema"
                )
            response_format.json_schema.name = json_schema.required_string("name")
            response_format.json_schema.description = json_schema.string("description") or ""
            response_format.json_schema.strict = json_schema.boolean("strict") or False
            response_format.json_schema.schema_json = json_text(
                "response_format.json_schema.schema", json_schema.get("schema")
            )
    structured_outputs = fields.object("structured_outputs")
    paths = ["response_format"] if response_format.WhichOneof("format") else []
    for prefix, source in (("guided_", fields), ("", structured_outputs)):
        if source is not None:
            paths += _add_structured_output(source, prefix, response_format)
    if len(paths) > 1:
        raise bad_request(paths[1], f"{paths[0]} and {paths[1]} exclude one another; send one of them")
    return paths[0] if paths else "response_format"


def _add_structured_output(source: Fields, prefix: str, response_format: pb.ResponseFormat) -> list[str]:
    """Read one notation. Return the paths of the fields that are present."""
    present = []
    schema = source.get(f"{prefix}json")
    if schema is not None:
        present.append("json")
        text = schema if isinstance(schema, str) else json_text(source.path(f"{prefix}json"), schema)
        response_format.json_schema.schema_json = text
    if (regex := source.string(f"{prefix}regex")) is not None:
        present.append("regex")
        response_format.regex = regex
    if (choices := source.strings(f"{prefix}choice")) is not None:
        present.append("choice")
        response_format.choice.choices.extend(choices)
    if (grammar := source.string(f"{prefix}grammar")) is not None:
        present.append("grammar")
        response_format.grammar = grammar
    if not prefix and source.boolean("json_object"):
        present.append("json_object")
        response_format.json_object.SetInParent()
    if not prefix and (tag := source.get("structural_tag")) is not None:
        present.append("structural_tag")
        text = tag if isinstance(tag, str) else json_text(source.path("structural_tag"), tag)
        response_format.structural_tag_json = text
    return [source.path(f"{prefix}{name}") for name in present]
