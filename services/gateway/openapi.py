"""Generates the OpenAPI document of the API, from the operations and typed models of dialects and endpoints.

Texts are objects with the languages `en` and `fa`. The build of the page makes the reference in both languages of it,
and the document that programs read in English.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from services.gateway.dialects.json_model import RequestModel, literals
from services.gateway.dialects.openai_chat import operations as openai_chat
from services.gateway.dialects.openai_completions import operations as openai_completions
from services.gateway.dialects.openai_embeddings import operations as openai_embeddings
from services.gateway.dialects.operation_document import (
    ContentDocument,
    HeaderDocument,
    OperationDocument,
    ResponseDocument,
    Text,
)
from services.gateway.endpoints import operations as endpoints

PATH: Final = Path(__file__).with_name("site") / "openapi.json"
OPERATIONS: Final[tuple[OperationDocument, ...]] = (
    *openai_chat.OPERATIONS,
    *openai_completions.OPERATIONS,
    *openai_embeddings.OPERATIONS,
    *endpoints.OPERATIONS,
)
_REFERENCE: Final = "#/components/{}/{}"
_FORMATS: Final = {(2**31 - 1): "int32", (2**63 - 1): "int64"}
"""Of integers, by their largest value."""
_SMALLEST: Final = -(2**63)


def document() -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    errors = {error.component: error for operation in OPERATIONS for error in operation.errors.values()}
    responses: list[ResponseDocument] = [*(operation.response for operation in OPERATIONS), *errors.values()]
    headers = {header.component: header for response in responses for header in response.headers.values()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Vilix",
            "version": "1",
            "description": {"en": "Language models in OpenAI's format.", "fa": "مدل‌های زبانی در قالب OpenAI."},
        },
        "servers": [{"url": "."}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "headers": {name: _header(header) for name, header in headers.items()},
            "responses": {name: _response(error) for name, error in errors.items()},
            "schemas": schemas(_models(responses)),
        },
    }


def rendered() -> str:
    """Return the document as the text of its file."""
    return json.dumps(document(), ensure_ascii=False, indent=2) + "\n"


def schemas(models: Iterable[Any]) -> dict[str, Any]:
    """Return the JSON Schemas of models and of all models in them, by the names of their classes.

    They differ from those of msgspec as follows: texts and examples are those of `doc`, fields that are hidden are left
    out, optional fields of requests do not mention null, and strings keep the order of their declaration.
    """
    _, found = msgspec.json.schema_components(models, ref_template=_REFERENCE.format("schemas", "{name}"))
    classes = {model.__name__: model for model in _classes(msgspec.inspect.multi_type_info(models))}
    return {name: _object(model, found[name]) for name, model in classes.items()}


def _operation(operation: OperationDocument) -> dict[str, Any]:
    parts: dict[str, Any] = {"operationId": operation.id, "summary": _text(operation.summary)}
    if operation.description is not None:
        parts["description"] = _text(operation.description)
    if operation.parameters:
        parts["parameters"] = [
            {
                "name": parameter.name,
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
                "description": _text(parameter.description),
                "example": parameter.example,
            }
            for parameter in operation.parameters
        ]
    if operation.request is not None:
        parts["requestBody"] = {"required": True, "content": _contents([operation.request])}
    errors = {
        status: {"$ref": _REFERENCE.format("responses", error.component)} for status, error in operation.errors.items()
    }
    return {**parts, "responses": {"200": _response(operation.response), **errors}}


def _response(response: ResponseDocument) -> dict[str, Any]:
    headers = {
        name: {"$ref": _REFERENCE.format("headers", header.component)} for name, header in response.headers.items()
    }
    return {
        "description": _text(response.description),
        **({"headers": headers} if headers else {}),
        "content": _contents(response.contents),
    }


def _contents(contents: Iterable[ContentDocument]) -> dict[str, Any]:
    return {content.media_type: _content(content) for content in contents}


def _content(content: ContentDocument) -> dict[str, Any]:
    references = [{"$ref": _REFERENCE.format("schemas", model.__name__)} for model in content.models]
    return {
        "schema": references[0] if len(references) == 1 else {"oneOf": references},
        "examples": {name: {"value": value} for name, value in content.examples.items()},
    }


def _header(header: HeaderDocument) -> dict[str, Any]:
    return {"schema": dict(header.schema), "description": _text(header.description)}


def _text(text: Text) -> dict[str, str]:
    return text._asdict()


def _models(responses: Iterable[ResponseDocument]) -> list[Any]:
    requests = [operation.request for operation in OPERATIONS if operation.request is not None]
    contents = [*requests, *(content for response in responses for content in response.contents)]
    return list(dict.fromkeys(model for content in contents for model in content.models))


def _classes(types: Iterable[msgspec.inspect.Type]) -> Iterator[type[msgspec.Struct]]:
    """Yield the models among types, each after those that mention it. Raises ValueError for two of one name."""
    seen: dict[str, type[msgspec.Struct]] = {}
    waiting = list(types)
    while waiting:
        node = waiting.pop(0)
        match node:
            case msgspec.inspect.StructType():
                if node.cls.__name__ not in seen:
                    seen[node.cls.__name__] = node.cls
                    yield node.cls
                    waiting += [field.type for field in node.fields]
                elif seen[node.cls.__name__] is not node.cls:
                    raise ValueError(f"two models have the name {node.cls.__name__}")
            case msgspec.inspect.Metadata():
                waiting.append(node.type)
            case msgspec.inspect.UnionType():
                waiting += node.types
            case msgspec.inspect.ListType():
                waiting.append(node.item_type)
            case msgspec.inspect.DictType():
                waiting.append(node.value_type)


def _object(model: type[msgspec.Struct], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of a model: its own fields before those that it inherits, and required ones first."""
    fields = {
        name: _property(model, name, schema["properties"][name])
        for name in _in_order(model)
        if not schema["properties"][name].get("x-hidden")
    }
    required = [name for name in fields if fields[name].pop("x-required", False) or name in schema["required"]]
    optional = [name for name in fields if name not in required]
    return {
        "type": "object",
        **({"required": required} if required else {}),
        "properties": {name: fields[name] for name in [*required, *optional]},
    }


def _in_order(model: type[msgspec.Struct]) -> list[str]:
    tag = model.__struct_config__.tag_field
    declared = [name for cls in model.__mro__ for name in vars(cls).get("__annotations__", {})]
    fields = [name for name in dict.fromkeys(declared) if name in model.__struct_fields__]
    return [tag, *fields] if tag else fields


def _property(model: type[msgspec.Struct], name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    parts = dict(schema)
    optional = issubclass(model, RequestModel) and not parts.pop("x-nullable", False)
    if parts.get("default", ...) is None:
        del parts["default"]
    if "x-default" in parts:
        parts["default"] = parts.pop("x-default")
    order = literals(model, name) if name in model.__struct_fields__ else []
    alternatives = [_alternative(each, order) for each in parts.pop("anyOf", [])]
    if optional:
        alternatives = [each for each in alternatives if each != {"type": "null"}]
    if len(alternatives) == 1:
        parts = {**alternatives[0], **parts}
    elif alternatives:
        parts["anyOf"] = alternatives
    return _alternative(parts, order, null=not optional)


def _alternative(schema: Mapping[str, Any], order: list[str], *, null: bool = True) -> dict[str, Any]:
    parts = dict(schema)
    if "enum" in parts and set(order) >= set(parts["enum"]) - {None}:
        values = [value for value in order if value in parts["enum"]]
        is_nullable = null and None in parts["enum"]
        parts["enum"] = [*values, None] if is_nullable else values
        parts = {"type": ["string", "null"] if is_nullable else "string", **parts}
    elif "enum" in parts:
        parts = {"type": "string", **parts}
    if parts.get("type") == "integer" and parts.get("maximum") in _FORMATS:
        parts["format"] = _FORMATS[parts.pop("maximum")]
        if parts.get("minimum") == _SMALLEST:
            del parts["minimum"]
    if "items" in parts:
        parts["items"] = _alternative(parts["items"], order)
    return parts


def main(words: Sequence[str] | None = None) -> None:
    """Write the document, or check that the file is up to date. `words` are the arguments of the command."""
    parser = argparse.ArgumentParser(prog="python -m services.gateway.openapi", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the file is not up to date")
    parser.add_argument("--output", type=Path, default=PATH, help="the file (default: the one of the page)")
    arguments = parser.parse_args(words)
    if not arguments.check:
        arguments.output.write_text(rendered(), "utf-8")
    elif not arguments.output.exists() or arguments.output.read_text("utf-8") != rendered():
        sys.exit(f"error: {arguments.output} is not up to date; run make openapi")


if __name__ == "__main__":
    main()
