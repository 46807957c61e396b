"""Restates an engine's rejection of a structured output in terms of the request's field."""

from __future__ import annotations

import re
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.request.structured_output.response_format import requests_structured_output
from services.inference.request.tools import requires_call
from services.runtime.failure import Failure, Reason, Violation

_STRUCTURED_OUTPUT: Final = re.compile(r"(?:\bthe )?\bguide(?:\.\w+)?")
_REASONS: Final = (Reason.INVALID_ARGUMENT, Reason.UNSUPPORTED_PARAMETER)
_FIELDS: Final = {
    "json_schema": "response_format.json_schema.schema_json",
    "structural_tag_json": "response_format.structural_tag_json",
    "regex": "response_format.regex",
    "grammar": "response_format.grammar",
    "choice": "response_format.choice.choices",
}


def restated(failure: Failure, request: pb.GenerateRequest) -> Failure:
    """Return the rejection of a structured output with the field of the request, and any other failure unchanged."""
    if failure.message.field or failure.reason not in _REASONS or not requests_structured_output(request):
        return failure
    if str(failure).startswith("min_tokens and guide"):
        message = "min_tokens and a form exclude one another: the form says itself when a text is complete"
        return Failure(failure.reason, message, violations=(Violation("sampling.min_tokens", message),))
    if requires_call(request):
        field, named = "tool_choice", "the schema of a call that tool_choice asks for"
    else:
        field = named = _FIELDS.get(request.response_format.WhichOneof("format") or "", "response_format")
    # Replace the engine's own words only, and no text that it quotes.
    message, is_about_it = _STRUCTURED_OUTPUT.subn(lambda _: named, str(failure), count=1)
    return Failure(failure.reason, message, violations=(Violation(field, message),)) if is_about_it else failure
