"""A request of the Responses API, as the gateway handles it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from services.gateway.dialects.dialect import GenerateCall
from services.gateway.dialects.openai_responses.tool_names import OfferedTool

_MESSAGE: Final = re.compile(r"^messages\[(?P<message>\d+)\](?:\.(?P<list>content|tool_calls)\[(?P<index>\d+)\])?")
_TOOL: Final = re.compile(r"^tools\[(?P<index>\d+)\]")
_NAMES: Final = {
    "sampling.max_tokens": "max_output_tokens",
    "logprobs": "include",
    "logprobs.top": "top_logprobs",
    "reasoning.exclude": "reasoning",
    "reasoning.enabled": "reasoning.effort",
    "reasoning.budget_tokens": "reasoning",
    "tool_choice.function_names": "tool_choice",
    "tool_choice.mode": "tool_choice",
    "tool_choice.required": "tool_choice",
    "response_format.json_schema.schema_json": "text.format.schema",
    "response_format.json_schema.name": "text.format.name",
    "messages": "input",
    "tenant": "",
    "priority": "",
}
_FORMAT: Final = re.compile(r"^response_format(?:\.\w+)*")


@dataclass(frozen=True, slots=True)
class FieldPaths:
    """The paths in the request of what the worker's request is made of."""

    messages: Sequence[str] = ()
    parts: Sequence[Sequence[str]] = ()
    calls: Sequence[Sequence[str]] = ()
    tools: Sequence[str] = ()
    grammar: str = ""
    """The path of the grammar of a custom tool, if the output must match it."""


@dataclass(frozen=True, kw_only=True)
class ResponsesCall(GenerateCall):
    """A call of the Responses API."""

    echo: Mapping[str, Any] = field(default_factory=dict)
    """The fields of the response object that repeat the request."""
    paths: FieldPaths = FieldPaths()
    tools: Mapping[str, OfferedTool] = field(default_factory=dict)
    """The tools by the names of the functions that stand for them."""
    forced_custom: str = ""
    """The function's name of a custom tool whose input is the whole output, in the grammar of the tool."""
    max_tool_calls: int | None = None
    summary: bool = False
    """Whether the reasoning is sent in the place of its summary."""
    seals_reasoning: bool = False
    """Whether reasoning is sent sealed, too."""
    truncates: bool = False
    """Whether the oldest items may be left out."""
    store: bool | None = None
    """Whether the response is to be stored; None if the request does not say."""
    store_is_explicit: bool = False
    """Whether the request cannot be served without storing the response."""
    background: bool = False
    previous_response_id: str | None = None
    references: Sequence[str] = ()
    """The ids of stored items in the input."""
    sealed: Sequence[str] = ()
    """The sealed reasoning in the input."""
    items: Sequence[Mapping[str, Any]] = ()
    """The items of the whole input."""

    def field_name(self, field: str) -> str:
        """Return the request's name for the path of a worker's field."""
        if field in _NAMES:
            return _NAMES[field]
        if (found := _MESSAGE.match(field)) is not None:
            return self._message_path(found, field[found.end() :])
        if (found := _TOOL.match(field)) is not None and int(found["index"]) < len(self.paths.tools):
            return self.paths.tools[int(found["index"])] + field[found.end() :].replace("parameters_json", "parameters")
        field = _FORMAT.sub(self.paths.grammar or "text.format", field)
        return field.removeprefix("sampling.")

    def _message_path(self, found: re.Match[str], rest: str) -> str:
        index, entry = int(found["message"]), found["index"]
        if index >= len(self.paths.messages):
            return "input"
        if entry is None:
            return self.paths.messages[index] + rest.replace(".tool_call_id", ".call_id")
        lists = self.paths.parts if found["list"] == "content" else self.paths.calls
        if index < len(lists) and int(entry) < len(lists[index]):
            rest = rest.replace(".arguments_json", ".arguments").replace(".image", ".image_url")
            return lists[index][int(entry)] + rest
        return self.paths.messages[index]

    @property
    def needs_recall(self) -> bool:
        """Whether the request refers to what the gateway has stored or sealed."""
        return self.previous_response_id is not None or bool(self.references or self.sealed)
