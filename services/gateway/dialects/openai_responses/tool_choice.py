"""Reads `tool_choice`: whether the model must call a tool, and which ones it may call."""

from __future__ import annotations

from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.openai_responses.item_kinds import HOSTED_TOOLS
from services.gateway.dialects.openai_responses.item_models import AllowedTools, NamedTool, read_part
from services.gateway.dialects.openai_responses.tool_names import Tools, flat_name
from services.gateway.errors import bad_request
from services.gateway.quoting import shown
from services.runtime.messages.message import Message

_MODES: Final = {
    "none": pb.TOOL_CHOICE_MODE_NONE,
    "auto": pb.TOOL_CHOICE_MODE_AUTO,
    "required": pb.TOOL_CHOICE_MODE_REQUIRED,
}
PATH: Final = "tool_choice"


def add_tool_choice(choice: str | dict[str, Any] | None, generate: pb.GenerateRequest, tools: Tools) -> list[str]:
    """Set the choice in `generate`, and return the paths of what has no effect. Raises ApiError (400)."""
    if choice is None:
        return []
    if isinstance(choice, str):
        if choice not in _MODES:
            raise bad_request(
                Message("not_one_of", field=PATH, value=shown(choice), choices=f"{', '.join(_MODES)}, an object")
            )
        if choice == "required" and not tools.functions and tools.not_offered:
            return [PATH]
        generate.tool_choice.mode = _MODES[choice]
        return []
    if choice.get("type") == "allowed_tools":
        return _add_allowed(read_part(AllowedTools, choice, PATH), generate.tool_choice, tools)
    named = read_part(NamedTool, choice, PATH)
    name = _function_name(named, PATH, tools)
    if name is None:
        return [PATH]
    generate.tool_choice.mode, generate.tool_choice.required = pb.TOOL_CHOICE_MODE_FUNCTIONS, True
    generate.tool_choice.function_names.append(name)
    return []


def _add_allowed(allowed: AllowedTools, choice: pb.ToolChoice, tools: Tools) -> list[str]:
    """Set the tools that may be called. A list without a tool that is offered allows none."""
    ignored = []
    for index, tool in enumerate(allowed.tools):
        path = f"{PATH}.tools[{index}]"
        name = _function_name(read_part(NamedTool, tool, path), path, tools)
        if name is None:
            ignored.append(path)
        else:
            choice.function_names.append(name)
    if not choice.function_names:
        choice.mode = pb.TOOL_CHOICE_MODE_NONE
        return ignored
    choice.mode, choice.required = pb.TOOL_CHOICE_MODE_FUNCTIONS, allowed.mode == "required"
    return ignored


def _function_name(named: NamedTool, path: str, tools: Tools) -> str | None:
    """Return the name of the function that stands for a tool; None for a tool that is not offered.

    Raises ApiError (400) for a tool that the request does not have.
    """
    if named.type not in ("function", "custom"):
        if named.type not in HOSTED_TOOLS:
            choices = "function, custom, allowed_tools"
            raise bad_request(Message("not_one_of", field=f"{path}.type", value=shown(named.type), choices=choices))
        return None
    if named.name is None:
        raise bad_request(Message("field_missing", field=f"{path}.name", expected="string"))
    wanted = flat_name(named.namespace, named.name)
    if wanted in tools.offered:
        return wanted
    # A member of a namespace may be named without it.
    members = [name for name, tool in tools.offered.items() if tool.name == named.name]
    if len(members) != 1:
        raise bad_request(Message("tool_unknown", field=f"{path}.name", value=named.name[:80]))
    return members[0]
