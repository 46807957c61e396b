"""Generates the OpenAPI document of the API, from the operations and typed models of dialects and endpoints.

Texts are objects with the languages `en` and `fa`. The build of the page makes the reference in both languages of it,
and the document that programs read in English.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from services.gateway.credential import AZURE, BEARER, KeyHeader
from services.gateway.dialects.anthropic_messages import document as anthropic_messages
from services.gateway.dialects.json_model import RequestModel, literals
from services.gateway.dialects.openai_chat import document as openai_chat
from services.gateway.dialects.openai_completions import document as openai_completions
from services.gateway.dialects.openai_embeddings import document as openai_embeddings
from services.gateway.dialects.openai_responses import document as openai_responses
from services.gateway.dialects.operation_document import (
    ContentDocument,
    ErrorDocument,
    HeaderDocument,
    LocalizedText,
    OperationDocument,
    ResponseDocument,
)
from services.gateway.endpoints import document as endpoints

PATH: Final = Path(__file__).with_name("site") / "openapi.json"
OPERATIONS: Final[tuple[OperationDocument, ...]] = (
    *openai_chat.OPERATIONS,
    *openai_completions.OPERATIONS,
    *openai_responses.OPERATIONS,
    *openai_embeddings.OPERATIONS,
    *anthropic_messages.OPERATIONS,
    *endpoints.OPERATIONS,
)
Names = Mapping[type[msgspec.Struct], str]
"""The names of models among the document's components."""
T = TypeVar("T", HeaderDocument, ErrorDocument)
_REFERENCE: Final = "#/components/{}/{}"
_FORMATS: Final = {(2**31 - 1): "int32", (2**63 - 1): "int64"}
"""Of integers, by their largest value."""
_SMALLEST: Final = -(2**63)


def document() -> dict[str, Any]:
    """Return the document."""
    return document_of(OPERATIONS)


def document_of(operations: Sequence[OperationDocument]) -> dict[str, Any]:
    """Return the document of these operations. Those of the first API name the components that several have."""
    errors = _by_component(error for operation in operations for error in operation.errors.values())
    responses: list[ResponseDocument] = [*(operation.response for operation in operations), *errors.values()]
    models = list(_classes(msgspec.inspect.multi_type_info(_models(operations, responses))))
    names = component_names(models)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, names)
    headers = _by_component(header for response in responses for header in response.headers.values())
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Vilix",
            "version": "1",
            "description": {
                "en": "Language models in OpenAI's format. An optional field that is null counts as absent.",
                "fa": "مدل‌های زبانی در قالب OpenAI. فیلد اختیاری با مقدار null مانند نفرستادن آن است.",
            },
        },
        "servers": [{"url": "."}],
        "security": _security(BEARER, AZURE),
        "paths": paths,
        "components": {
            "securitySchemes": {
                _scheme_name(header): _scheme(header)
                for operation in operations
                for header in (operation.key_header, operation.other_key_header)
            },
            "headers": {name: _header(header) for name, header in headers.items()},
            "responses": {name: _response(error, names) for name, error in errors.items()},
            "schemas": _schemas(names),
        },
    }


def rendered() -> str:
    """Return the document as the text of its file."""
    return json.dumps(document(), ensure_ascii=False, indent=2) + "\n"


def _by_component(parts: Iterable[T]) -> dict[str, T]:
    """Return the parts by the names of their components. Raises ValueError for two parts of one name."""
    by_name: dict[str, T] = {}
    for part in parts:
        if by_name.setdefault(part.component, part) is not part:
            raise ValueError(f"two components have the name {part.component}")
    return by_name


def component_names(models: Sequence[type[msgspec.Struct]]) -> dict[type[msgspec.Struct], str]:
    """Return the names of models in the document: those of their classes.

    If several classes have one name, the later ones have that of their dialect's package before it, such as
    `OpenaiChatUsage`. So an API that is added does not rename what others have published.
    """
    names: dict[type[msgspec.Struct], str] = {}
    for model in models:
        package = model.__module__.split(".")[-2].title().replace("_", "")
        is_taken = model.__name__ in names.values()
        names[model] = package + model.__name__ if is_taken else model.__name__
    if len(set(names.values())) < len(names):
        raise ValueError(f"models of one package have the same name: {sorted(names.values())}")
    return names


def _schemas(names: Names) -> dict[str, Any]:
    """Return the JSON Schemas of models by their names.

    They differ from those of msgspec as follows: texts and examples are those of `doc`, fields that are hidden are left
    out, optional fields of requests do not mention null, and strings keep the order of their declaration.
    """
    reference = partial(_REFERENCE.format, "schemas")
    _, schemas = msgspec.json.schema_components(names, ref_template=reference("{name}"))
    generated = {_generated_name(model, names): model for model in names}
    references = {reference(name): reference(names[model]) for name, model in generated.items()}
    return {names[model]: _object(model, _referring(schemas[name], references)) for name, model in generated.items()}


def _generated_name(model: type[msgspec.Struct], models: Iterable[type[msgspec.Struct]]) -> str:
    """Return msgspec's name for a model: that of its class, with the module if several have one name."""
    is_unique = [each.__name__ for each in models].count(model.__name__) == 1
    return model.__name__ if is_unique else f"{model.__module__}.{model.__qualname__}"


def _referring(schema: Any, references: Mapping[str, str]) -> Any:
    """Return a schema with msgspec's references to models replaced by those of `references`."""
    if isinstance(schema, list):
        return [_referring(each, references) for each in schema]
    if isinstance(schema, dict):
        return {key: _referring(value, references) for key, value in schema.items()}
    return references.get(schema, schema) if isinstance(schema, str) else schema


def _scheme_name(header: KeyHeader) -> str:
    return "key" if header is BEARER else header.name.lower()


def _security(*headers: KeyHeader) -> list[dict[str, list[str]]]:
    """Return the requirement of a key in one of the headers."""
    return [{_scheme_name(header): []} for header in headers]


def _scheme(header: KeyHeader) -> dict[str, str]:
    if header.scheme:
        return {"type": "http", "scheme": header.scheme.lower()}
    return {"type": "apiKey", "in": "header", "name": header.name}


def _operation(operation: OperationDocument, names: Names) -> dict[str, Any]:
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
    if operation.key_header is not BEARER:
        parts["security"] = _security(operation.key_header, operation.other_key_header)
    if operation.request is not None:
        parts["requestBody"] = {"required": True, "content": _contents([operation.request], names)}
    errors = {
        status: {"$ref": _REFERENCE.format("responses", error.component)} for status, error in operation.errors.items()
    }
    return {**parts, "responses": {"200": _response(operation.response, names), **errors}}


def _response(response: ResponseDocument, names: Names) -> dict[str, Any]:
    headers = {
        name: {"$ref": _REFERENCE.format("headers", header.component)} for name, header in response.headers.items()
    }
    return {
        "description": _text(response.description),
        **({"headers": headers} if headers else {}),
        "content": _contents(response.contents, names),
    }


def _contents(contents: Iterable[ContentDocument], names: Names) -> dict[str, Any]:
    return {content.media_type: _content(content, names) for content in contents}


def _content(content: ContentDocument, names: Names) -> dict[str, Any]:
    references = [{"$ref": _REFERENCE.format("schemas", names[model])} for model in content.models]
    return {
        "schema": references[0] if len(references) == 1 else {"oneOf": references},
        "examples": {name: {"value": value} for name, value in content.examples.items()},
    }


def _header(header: HeaderDocument) -> dict[str, Any]:
    return {"schema": dict(header.schema), "description": _text(header.description)}


def _text(text: LocalizedText) -> dict[str, str]:
    return text._asdict()


def _models(operations: Iterable[OperationDocument], responses: Iterable[ResponseDocument]) -> list[Any]:
    requests = [operation.request for operation in operations if operation.request is not None]
    contents = [*requests, *(content for response in responses for content in response.contents)]
    return list(dict.fromkeys(model for content in contents for model in content.models))


def _classes(types: Iterable[msgspec.inspect.Type]) -> Iterator[type[msgspec.Struct]]:
    """Yield the models among types, each after those that mention it."""
    seen: set[type[msgspec.Struct]] = set()
    waiting = list(types)
    while waiting:
        node = waiting.pop(0)
        match node:
            case msgspec.inspect.StructType():
                if node.cls not in seen:
                    seen.add(node.cls)
                    yield node.cls
                    waiting += [field.type for field in node.fields]
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
        **({"allOf": conditions} if (conditions := _conditions(model)) else {}),
    }


def _conditions(model: type[msgspec.Struct]) -> list[Any]:
    """Return the conditions of a model of requests and of the models that it extends."""
    return [dict(each) for cls in reversed(model.__mro__) for each in vars(cls).get("conditions", ())]


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
    alternatives = parts.pop("x-alternatives", alternatives)
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
