"""Restates an engine's rejection of a structured output or an image in terms of the request's field."""

from __future__ import annotations

import re
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.request.images import image_fields
from services.inference.request.tools import requires_call
from services.inference.triton_backend.contract import STRUCTURED_OUTPUT
from services.runtime.failure import Failure

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
            return _FIELDS.get(request.response_format.WhichOneof("format") or "", "response_format")
        if image := _IMAGE.fullmatch(parameter):
            return image_fields(request)[int(image[1])]
        return f"sampling.{parameter}"

    if failure.message.field is None:
        return failure
    return Failure(failure.reason, failure.message.with_fields(request_field), retry_after=failure.retry_after)
