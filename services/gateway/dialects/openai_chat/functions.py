"""OpenAI's older notation of function calls: `functions` and `function_call` in requests, `function_call` in responses.

Its answers have at most one call.
"""

from __future__ import annotations

import re
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.json_model import json_text
from services.gateway.dialects.openai_chat.request_model import ChatCompletionRequest, NamedFunction

FINISH_REASON: Final = "function_call"
_TOOL: Final = re.compile(r"^tools(\[\d+\])\.function\b")


def add_functions(request: ChatCompletionRequest, generate: pb.GenerateRequest, overruled_fields: list[str]) -> bool:
    """Translate the functions of the older notation, and return whether there are any.

    The newer notation overrules the older one, whose fields are then added to `overruled_fields`.
    """
    functions, choice = request.functions, request.function_call
    if functions and request.tools:
        overruled_fields.append("functions")
        functions = None
    if choice is not None and request.tool_choice is not None:
        overruled_fields.append("function_call")
        choice = None
    if isinstance(choice, NamedFunction):
        generate.tool_choice.mode = pb.TOOL_CHOICE_MODE_FUNCTIONS
        generate.tool_choice.required = True
        generate.tool_choice.function_names.append(choice.name)
    elif choice is not None:
        generate.tool_choice.mode = pb.TOOL_CHOICE_MODE_NONE if choice == "none" else pb.TOOL_CHOICE_MODE_AUTO
    if functions is None:
        return choice is not None
    for index, function in enumerate(functions):
        schema = function.parameters
        generate.tools.add(
            name=function.name,
            description=function.description or "",
            parameters_json="" if schema is None else json_text(f"functions[{index}].parameters", schema),
            strict=function.strict or False,
        )
    generate.parallel_tool_calls = False
    return True


def function_field(field: str) -> str:
    """Return the older name of OpenAI's path of a field."""
    field = _TOOL.sub(r"functions\1", field)
    if field == "tools" or field.startswith("tools["):
        return "functions" + field.removeprefix("tools")
    return "function_call" if field == "tool_choice" else field


def function_call(name: str, arguments: str) -> dict[str, Any]:
    """Return the object `function_call` of a message."""
    return {"name": name, "arguments": arguments}
