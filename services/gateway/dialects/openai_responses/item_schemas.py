"""The items of an input, tools and `tool_choice` in the API's document: JSON Schemas, which are made of their models.

They stand in the place of the fields, because clients send items and tools of many kinds, which are read one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from services.gateway.dialects.json_model import RequestModel
from services.gateway.dialects.openai_request import IMAGE_URL_PATTERN
from services.gateway.dialects.openai_responses.item_kinds import HOSTED_TOOLS, SKIPPED_ITEMS, SYSTEM_TEXTS, TEXTS
from services.gateway.dialects.openai_responses.item_models import (
    AdditionalTools,
    AllowedTools,
    CallOutputItem,
    CustomCallItem,
    CustomTool,
    FunctionCallItem,
    FunctionTool,
    ImagePart,
    ItemReference,
    MessageItem,
    NamedTool,
    NamespaceTool,
    ReasoningItem,
    RefusalPart,
    TextPart,
)

Schema = dict[str, Any]


def _object(model: type[RequestModel], kinds: Iterable[str], required: Iterable[str] = (), **fields: Any) -> Schema:
    """Return the schema of the objects that are read as `model`.

    Args:
        model: The model.
        kinds: The values of `type`, which is required.
        required: Fields that are required although the model allows their absence.
        fields: Schemas of fields in the place of those that the model has.
    """
    _, components = msgspec.json.schema_components([model], ref_template="{name}")
    schema = _without_null(components[model.__name__], components)
    properties = {**schema["properties"], "type": {"enum": sorted(kinds)}, **fields}
    names = [*schema.get("required", ()), "type", *required]
    return {"type": "object", "required": sorted(set(names)), "properties": properties}


def _without_null(schema: Any, components: Mapping[str, Any]) -> Any:
    """Return a schema of msgspec without texts, hidden fields, defaults, references and null."""
    if isinstance(schema, list):
        return [_without_null(each, components) for each in schema if each != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _without_null(components[schema["$ref"]], components)
    plain = {
        name: _without_null(value, components)
        for name, value in schema.items()
        if name not in ("default", "description", "properties", "title")
    }
    if "properties" in schema:
        shown = {name: each for name, each in schema["properties"].items() if not each.get("x-hidden")}
        plain["properties"] = {name: _without_null(each, components) for name, each in shown.items()}
    if "enum" in plain:
        plain["enum"] = [value for value in plain["enum"] if value is not None]
    if len(plain.get("anyOf", ())) == 1:
        plain |= plain.pop("anyOf")[0]
    return plain


def _text_or(part: Schema) -> Schema:
    return {"anyOf": [{"type": "string"}, {"type": "array", "items": part}]}


def _message(roles: list[str], part: Schema) -> Schema:
    """Return the schema of messages of some roles. Their `type` may be absent."""
    schema = _object(MessageItem, ["message"], role={"enum": roles}, content=_text_or(part))
    return {**schema, "required": ["content", "role"]}


_IMAGE: Final = _object(
    ImagePart, ["input_image"], ["image_url"], image_url={"type": "string", "pattern": IMAGE_URL_PATTERN}
)
_PART: Final[Schema] = {"anyOf": [_object(TextPart, TEXTS), _object(RefusalPart, ["refusal"]), _IMAGE]}
_NOT_OFFERED: Final[Schema] = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"type": "string", "not": {"enum": ["custom", "function", "namespace"]}}},
}
_FORMAT: Final[Schema] = {
    "anyOf": [
        {"type": "object", "required": ["type"], "properties": {"type": {"const": "text"}}},
        {
            "type": "object",
            "required": ["type", "definition"],
            "properties": {
                "type": {"const": "grammar"},
                "syntax": {"enum": ["lark", "regex"]},
                "definition": {"type": "string", "minLength": 1},
            },
        },
    ]
}
_CALLED_TOOLS: Final = [_object(FunctionTool, ["function"]), _object(CustomTool, ["custom"], format=_FORMAT)]
_NAMED: Final[Schema] = {
    "anyOf": [_object(NamedTool, ["custom", "function"], ["name"]), _object(NamedTool, HOSTED_TOOLS)]
}
TOOL: Final[Schema] = {
    "anyOf": [
        *_CALLED_TOOLS,
        _object(
            NamespaceTool,
            ["namespace"],
            tools={"type": "array", "items": {"anyOf": [*_CALLED_TOOLS, _NOT_OFFERED]}},
        ),
        _NOT_OFFERED,
    ]
}
"""A tool of a request."""
TOOL_CHOICES: Final[tuple[Schema, ...]] = (
    {"type": "string", "enum": ["none", "auto", "required"]},
    *_NAMED["anyOf"],
    _object(AllowedTools, ["allowed_tools"], tools={"type": "array", "items": _NAMED}),
)
"""The values of the field `tool_choice`."""
ITEM: Final[Schema] = {
    "anyOf": [
        _message(["user", "assistant"], _PART),
        _message(["system", "developer"], _object(TextPart, SYSTEM_TEXTS)),
        _object(ReasoningItem, ["reasoning"]),
        _object(FunctionCallItem, ["function_call"]),
        _object(CustomCallItem, ["custom_tool_call"]),
        _object(CallOutputItem, ["custom_tool_call_output", "function_call_output"], output=_text_or(_PART)),
        _object(ItemReference, ["item_reference"]),
        _object(AdditionalTools, ["additional_tools"], tools={"type": "array", "items": TOOL}),
        {"type": "object", "required": ["type"], "properties": {"type": {"enum": sorted(SKIPPED_ITEMS)}}},
    ]
}
"""An item of an input."""
