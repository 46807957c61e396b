"""A call of OpenAI's chat or completions API, and the fields that both share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import GenerateCall
from services.gateway.dialects.ignored_fields import ignored_fields
from services.gateway.dialects.openai_fields import openai_name
from services.gateway.dialects.openai_request import OpenAIRequest
from services.gateway.dialects.openai_streaming import read_streaming
from services.gateway.dialects.openai_structured_output import add_structured_output
from services.gateway.dialects.worker_fields import STRUCTURED_OUTPUT


@dataclass(frozen=True, kw_only=True)
class OpenAICall(GenerateCall):
    """A call with OpenAI's options of responses."""

    include_usage: bool = False
    """Whether a stream ends with a chunk that has the usage."""
    continuous_usage: bool = False
    """Whether every chunk has the usage so far."""
    may_call: bool = False
    """Whether the model may call functions, so that the answer may have no content."""
    structured_output_field: str = STRUCTURED_OUTPUT
    """The path of the field that asks for structured output; the APIs have several."""

    def field_name(self, field: str) -> str:
        """Return OpenAI's name for the path of a worker's field."""
        return openai_name(field, structured_output_field=self.structured_output_field)


C = TypeVar("C", bound=OpenAICall)


def finish_call(
    kind: type[C],
    request: OpenAIRequest,
    body: Mapping[str, Any],
    generate: pb.GenerateRequest,
    overruled_fields: Sequence[str],
    *,
    strict: bool,
    **own: Any,
) -> C:
    """Return the call, with the fields that both APIs share.

    Args:
        kind: The type of the call.
        request: The request.
        body: The parsed body of which it was made.
        generate: What was translated of it. Structured output is added.
        overruled_fields: The paths of fields that have no effect because another one says something else.
        strict: Whether fields without effect are rejected.
        own: The fields of the API's own calls.

    Raises:
        ApiError: A field does not fit, or has no effect and is to be rejected.
    """
    structured_output_field = add_structured_output(request, generate.response_format)
    streaming = read_streaming(request)
    return kind(
        generate=generate,
        stream=streaming.stream,
        include_usage=streaming.include_usage,
        continuous_usage=streaming.continuous_usage,
        ignored=ignored_fields(request, body, overruled_fields, strict=strict),
        dry_run=request.dry_run or False,
        may_call=bool(generate.tools) and generate.tool_choice.mode != pb.TOOL_CHOICE_MODE_NONE,
        structured_output_field=structured_output_field,
        **own,
    )
