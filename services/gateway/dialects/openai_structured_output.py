"""Structured output, in OpenAI's notation and in vLLM's."""

from __future__ import annotations

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.json_fields import Fields, json_text
from services.gateway.errors import bad_request


def read_structured_output(fields: Fields, response_format: pb.ResponseFormat) -> str:
    """Read `response_format`, `structured_outputs` and `guided_…`. Returns the path of the one that is given.

    Raises ApiError.
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
            form = wanted.object("json_schema")
            if form is None or form.get("schema") is None or form.get("name") is None:
                raise bad_request(
                    "response_format.json_schema", "response_format.json_schema must hold a name and a schema"
                )
            response_format.json_schema.name = form.required_string("name")
            response_format.json_schema.description = form.string("description") or ""
            response_format.json_schema.strict = form.boolean("strict") or False
            response_format.json_schema.schema_json = json_text(
                "response_format.json_schema.schema", form.get("schema")
            )
    structured_outputs = fields.object("structured_outputs")
    forms = ["response_format"] if response_format.WhichOneof("format") else []
    for prefix, source in (("guided_", fields), ("", structured_outputs)):
        if source is not None:
            forms += _add_structured_output(source, prefix, response_format)
    if len(forms) > 1:
        raise bad_request(forms[1], f"{forms[0]} and {forms[1]} exclude one another; send one of them")
    return forms[0] if forms else "response_format"


def _add_structured_output(source: Fields, prefix: str, response_format: pb.ResponseFormat) -> list[str]:
    """Read one notation. Returns the paths of the fields that are given."""
    given = []
    schema = source.get(f"{prefix}json")
    if schema is not None:
        given.append("json")
        text = schema if isinstance(schema, str) else json_text(source.path(f"{prefix}json"), schema)
        response_format.json_schema.schema_json = text
    if (regex := source.string(f"{prefix}regex")) is not None:
        given.append("regex")
        response_format.regex = regex
    if (choices := source.strings(f"{prefix}choice")) is not None:
        given.append("choice")
        response_format.choice.choices.extend(choices)
    if (grammar := source.string(f"{prefix}grammar")) is not None:
        given.append("grammar")
        response_format.grammar = grammar
    if not prefix and source.boolean("json_object"):
        given.append("json_object")
        response_format.json_object.SetInParent()
    if not prefix and (tag := source.get("structural_tag")) is not None:
        given.append("structural_tag")
        text = tag if isinstance(tag, str) else json_text(source.path("structural_tag"), tag)
        response_format.structural_tag_json = text
    return [source.path(f"{prefix}{name}") for name in given]
