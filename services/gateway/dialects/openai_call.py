"""A call of OpenAI's chat or completions API, and the fields that both share."""

from __future__ import annotations

from dataclasses import dataclass

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import GenerateCall
from services.gateway.dialects.ignored_fields import ignored_fields
from services.gateway.dialects.json_fields import Fields
from services.gateway.dialects.openai_fields import openai_name
from services.gateway.dialects.openai_streaming import read_streaming
from services.gateway.dialects.openai_structured_output import read_structured_output
from services.gateway.dialects.worker_fields import STRUCTURED_OUTPUT


@dataclass(frozen=True, kw_only=True)
class OpenAICall(GenerateCall):
    """A call with OpenAI's options of responses."""

    include_usage: bool = False
    """Whether a stream ends with a chunk that has the usage."""
    continuous_usage: bool = False
    """Whether every chunk has the usage so far."""
    structured_output_field: str = STRUCTURED_OUTPUT
    """The path of the field that asks for structured output; the APIs have several."""

    def field_name(self, field: str) -> str:
        """Return OpenAI's name for the path of a worker's field."""
        return openai_name(field, structured_output_field=self.structured_output_field)


def completed(fields: Fields, generate: pb.GenerateRequest, *, strict: bool) -> OpenAICall:
    """Read the shared fields, after all others, and return the call. Raises ApiError (400)."""
    structured_output_field = read_structured_output(fields, generate.response_format)
    dry_run = fields.boolean("dry_run") or False
    streaming = read_streaming(fields)
    return OpenAICall(
        generate=generate,
        stream=streaming.stream,
        include_usage=streaming.include_usage,
        continuous_usage=streaming.continuous_usage,
        ignored=ignored_fields(fields, strict=strict),
        dry_run=dry_run,
        structured_output_field=structured_output_field,
    )
