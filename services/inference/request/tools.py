"""The functions that a request offers to the model."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.served_model import ServedModel
from services.inference.request.json_depth import MAX_DEPTH, depth_of
from services.runtime.failure import Failure, invalid, unsupported
from services.runtime.messages.message import Message

MAX_TOOLS: Final = 128
MAX_SCHEMA_LENGTH: Final = 65_536
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def callable_functions(request: pb.GenerateRequest) -> dict[str, Any]:
    """Return the JSON Schemas of the parameters of the functions that the model may call, by name."""
    choice = request.tool_choice
    if choice.mode == pb.TOOL_CHOICE_MODE_NONE:
        return {}
    allowed = set(choice.function_names) if choice.mode == pb.TOOL_CHOICE_MODE_FUNCTIONS else None
    return {
        tool.name: json.loads(tool.parameters_json or "{}")
        for tool in request.tools
        if allowed is None or tool.name in allowed
    }


def requires_call(request: pb.GenerateRequest) -> bool:
    """Return whether the model must call a function."""
    choice = request.tool_choice
    return choice.mode == pb.TOOL_CHOICE_MODE_REQUIRED or (
        choice.mode == pb.TOOL_CHOICE_MODE_FUNCTIONS and choice.required
    )


def template_tools(request: pb.GenerateRequest) -> list[dict[str, Any]]:
    """Return the callable functions in the form that chat templates expect."""
    functions = callable_functions(request)
    return [
        {
            "type": "function",
            "function": {"name": tool.name, "description": tool.description, "parameters": functions[tool.name]},
        }
        for tool in request.tools
        if tool.name in functions
    ]


def check_tools(request: pb.GenerateRequest, model: ServedModel) -> None:
    """Raise Failure for functions, or a choice among them, that are invalid or that the model does not support."""
    mode = request.tool_choice.mode
    if mode not in pb.ToolChoiceMode.values():
        raise invalid(Message("value_unknown", field="tool_choice.mode", value=mode))
    _check_names(request.tool_choice)
    named = mode in (pb.TOOL_CHOICE_MODE_REQUIRED, pb.TOOL_CHOICE_MODE_FUNCTIONS)
    if model.spec.parsers.tool_calls is None:
        if named or (request.tools and mode != pb.TOOL_CHOICE_MODE_NONE):
            field = "tools" if request.tools else "tool_choice"
            raise unsupported(Message("tools_not_supported", field=field, model=model.id))
        return
    if len(request.tools) > MAX_TOOLS:
        raise invalid(Message("too_many_entries", field="tools", value=len(request.tools), limit=MAX_TOOLS))
    names: set[str] = set()
    for index, tool in enumerate(request.tools):
        _check_tool(f"tools[{index}]", tool)
        if tool.name in names:
            raise invalid(Message("tool_name_repeated", field=f"tools[{index}].name", value=tool.name))
        names.add(tool.name)
    if named and not request.tools:
        raise invalid(Message("call_required_without_tools", field="tool_choice", other_field="tools"))
    for name in request.tool_choice.function_names:
        if name not in names:
            raise invalid(Message("tool_unknown", field="tool_choice.function_names", value=name[:80]))


def _check_names(choice: pb.ToolChoice) -> None:
    """Raise Failure unless function names are set if, and only if, the mode uses them."""
    if choice.mode == pb.TOOL_CHOICE_MODE_FUNCTIONS and not choice.function_names:
        raise invalid(Message("no_tool_allowed", field="tool_choice.function_names", other_field="tool_choice"))
    if choice.mode != pb.TOOL_CHOICE_MODE_FUNCTIONS and (choice.function_names or choice.required):
        message = Message(
            "tool_choice_mode_without_names",
            field="tool_choice.mode",
            names_field="tool_choice.function_names",
            required_field="tool_choice.required",
            value=pb.ToolChoiceMode.Name(choice.mode),
            expected=pb.ToolChoiceMode.Name(pb.TOOL_CHOICE_MODE_FUNCTIONS),
        )
        raise invalid(message)


def check_function_name(field: str, name: str) -> None:
    """Raise Failure for an invalid name of a function."""
    if not _NAME.fullmatch(name):
        raise invalid(Message("function_name_not_valid", field=field, value=repr(name[:80])))


def read_json(field: str, text: str, *, most: int) -> Any:
    """Return the value of JSON text of at most `most` characters; an empty object for an empty text.

    Raises Failure for text that cannot be written into a prompt.
    """
    if len(text) > most:
        raise invalid(Message("text_too_long", field=field, value=len(text), limit=most))
    try:
        value = json.loads(text or "{}")
        # An escape can stand for half a surrogate pair, which cannot be encoded.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise invalid(Message("json_not_valid", field=field, reason=str(error))) from None
    depth = depth_of(value)
    if depth > MAX_DEPTH:
        raise invalid(Message("depth_over_limit", field=field, value=depth, limit=MAX_DEPTH))
    return value


def called_arguments(text: str) -> dict[str, Any] | str:
    """Return the arguments of a past call: an object, or the text if it is not a JSON object.

    Arguments that a model wrote may be invalid (docs/adr/0012), and must not end the conversation.
    """
    try:
        value = read_json("arguments", text, most=len(text))
    except Failure:
        return text
    return value if isinstance(value, dict) else text


def _check_tool(path: str, tool: pb.Tool) -> None:
    check_function_name(f"{path}.name", tool.name)
    schema = read_json(f"{path}.parameters_json", tool.parameters_json, most=MAX_SCHEMA_LENGTH)
    if not isinstance(schema, dict):
        raise invalid(Message("schema_not_object", field=f"{path}.parameters_json"))
