"""The tools of a request as functions of the model, and the names by which calls lead back to them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.json_model import json_text
from services.gateway.dialects.openai_responses.item_models import CustomTool, FunctionTool, NamespaceTool, read_part
from services.gateway.errors import bad_request
from services.gateway.quoting import shown
from services.runtime.messages.message import Message

MOST_CHARACTERS: Final = 64
INPUT: Final = "input"
"""The parameter of the function that stands for a custom tool."""
_HASH_CHARACTERS: Final = 8
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """A tool that the model may call."""

    name: str
    """The tool's own name."""
    namespace: str | None
    is_custom: bool
    path: str
    """Where it is in the request."""
    syntax: str = ""
    """The syntax of the grammar of a custom tool's input: lark, regex, or empty for none."""
    definition: str = ""
    description: str = ""


@dataclass(slots=True)
class Tools:
    """The tools of a request: what is offered to the model, by the names of functions, and what is not offered."""

    offered: dict[str, OfferedTool] = field(default_factory=dict)
    functions: list[pb.Tool] = field(default_factory=list)
    not_offered: list[str] = field(default_factory=list)
    """The paths of tools that are not offered."""

    def add_all(self, tools: Sequence[dict[str, Any]], path: str) -> None:
        """Add the tools of a list at `path`. Raises ApiError (400)."""
        for index, tool in enumerate(tools):
            self._add(tool, f"{path}[{index}]", None)

    def _add(self, tool: dict[str, Any], path: str, namespace: str | None) -> None:
        match tool.get("type"):
            case "function":
                self._add_function(read_part(FunctionTool, tool, path), path, namespace)
            case "custom":
                self._add_custom(read_part(CustomTool, tool, path), path, namespace)
            case "namespace" if namespace is None:
                group = read_part(NamespaceTool, tool, path)
                for index, member in enumerate(group.tools):
                    self._add(member, f"{path}.tools[{index}]", group.name)
            case str():
                # A tool that OpenAI runs itself, or that a newer client knows.
                self.not_offered.append(path)
            case kind:
                choices = "function, custom, namespace"
                raise bad_request(Message("not_one_of", field=f"{path}.type", value=shown(kind), choices=choices))

    def _add_function(self, tool: FunctionTool, path: str, namespace: str | None) -> None:
        parameters = "" if tool.parameters is None else json_text(f"{path}.parameters", tool.parameters)
        offered = OfferedTool(tool.name, namespace, False, path, description=tool.description or "")
        self._offer(offered, tool.description or "", parameters, strict=tool.strict or False)

    def _add_custom(self, tool: CustomTool, path: str, namespace: str | None) -> None:
        syntax, definition, description = "", "", tool.description or ""
        if tool.format is not None and tool.format.type == "grammar":
            syntax, definition = tool.format.syntax or "lark", tool.format.definition or ""
            if not definition:
                raise bad_request(Message("field_missing", field=f"{path}.format.definition", expected="string"))
            description += f"\nThe input must match this {_SYNTAXES[syntax]}:\n{definition}"
        schema = {"type": "object", "properties": {INPUT: {"type": "string"}}, "required": [INPUT]}
        offered = OfferedTool(tool.name, namespace, True, path, syntax, definition, tool.description or "")
        self._offer(offered, description.strip(), json_text(path, schema), strict=False)

    def _offer(self, tool: OfferedTool, description: str, parameters: str, *, strict: bool) -> None:
        name = flat_name(tool.namespace, tool.name)
        if name in self.offered:
            raise bad_request(Message("tool_name_repeated", field=f"{tool.path}.name", value=name))
        self.offered[name] = tool
        self.functions.append(pb.Tool(name=name, description=description, parameters_json=parameters, strict=strict))


_SYNTAXES: Final = {"lark": "Lark grammar", "regex": "regular expression"}


def flat_name(namespace: str | None, name: str) -> str:
    """Return the name of the function that stands for a tool. Long names are cut, and end with a hash."""
    if not namespace:
        return name
    whole = _NOT_IN_NAMES.sub("_", f"{namespace}__{name}")
    if len(whole) <= MOST_CHARACTERS:
        return whole
    digest = hashlib.sha256(f"{namespace}\0{name}".encode()).hexdigest()[:_HASH_CHARACTERS]
    return f"{whole[: MOST_CHARACTERS - _HASH_CHARACTERS - 1]}_{digest}"
