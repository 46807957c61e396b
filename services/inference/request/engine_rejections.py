"""Restates an engine's rejection of a structured output or an image in terms of the request's field."""

from __future__ import annotations

import json
import re
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.request.images import image_fields
from services.inference.request.structured_output.held_calls import has_format, strict_functions
from services.inference.request.structured_output.schema_limits import path_step
from services.inference.request.tools import callable_functions, requires_call
from services.inference.triton_backend.contract import STRUCTURED_OUTPUT
from services.runtime.failure import Failure
from services.runtime.messages.message import Message

_IMAGE: Final = re.compile(r"images\[(\d+)\]")
_FIELDS: Final = {
    "json_schema": "response_format.json_schema.schema_json",
    "structural_tag_json": "response_format.structural_tag_json",
    "regex": "response_format.regex",
    "grammar": "response_format.grammar",
    "choice": "response_format.choice.choices",
}


def restated(failure: Failure, request: pb.GenerateRequest) -> Failure:
    """Return the engine's failure with the field of the request in place of the engine's parameter."""

    def request_field(parameter: str) -> str:
        if parameter == STRUCTURED_OUTPUT:
            if requires_call(request):
                return "tool_choice"
            if strict_functions(request) and not has_format(request):
                return "tools"
            return _FIELDS.get(request.response_format.WhichOneof("format") or "", "response_format")
        if image := _IMAGE.fullmatch(parameter):
            return image_fields(request)[int(image[1])]
        return f"sampling.{parameter}"

    if failure.message.field is None:
        return failure
    is_about_part = failure.message.id == "schema_part_not_valid"
    message = _with_part(failure.message, request) if is_about_part else failure.message.with_fields(request_field)
    return Failure(failure.reason, message, retry_after=failure.retry_after)


def _with_part(message: Message, request: pb.GenerateRequest) -> Message:
    """Return the message about a part of a schema, with the field that has the schema and the path in it."""
    is_call, *pointer = json.loads(str(message.parameters["at"]))
    field = "response_format.json_schema.schema_json"
    if requires_call(request) or is_call:
        field, pointer = _in_function(pointer, request)
    path = "".join(f"[{step}]" if isinstance(step, int) else path_step(step) for step in pointer)
    return Message("schema_part_not_valid", field=field, at=f"${path}", value=message.parameters["value"])


def _in_function(pointer: list[str | int], request: pb.GenerateRequest) -> tuple[str, list[str | int]]:
    """Return the field of the function's schema for a pointer in the schema of calls, and the pointer in it."""
    names = list(callable_functions(request))
    name = names[0]
    if pointer[:1] == ["$defs"] and len(pointer) > 1:
        name, pointer = str(pointer[1]), pointer[2:]
    else:
        if pointer[:1] == ["anyOf"] and len(pointer) > 1:
            name, pointer = names[int(pointer[1])], pointer[2:]
        pointer = pointer[2:] if pointer[:2] == ["properties", "arguments"] else []
    index = next((index for index, tool in enumerate(request.tools) if tool.name == name), 0)
    return f"tools[{index}].parameters_json", pointer
