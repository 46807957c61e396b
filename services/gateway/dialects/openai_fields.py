"""OpenAI's names of the fields that have other names in GenerateRequest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from services.gateway.dialects.worker_fields import STRUCTURED_OUTPUT

_NAMES: Final = (
    (re.compile(r"^sampling\."), ""),
    (re.compile(r"^logprobs\.top$"), "top_logprobs"),
    (re.compile(r"^reasoning\.enabled$"), "enable_thinking"),
    (re.compile(r"^reasoning\.effort$"), "reasoning_effort"),
    (re.compile(r"^reasoning\.budget_tokens$"), "thinking_token_budget"),
    (re.compile(r"^reasoning\.exclude$"), "include_reasoning"),
    (re.compile(r"^(tools\[\d+\])\.parameters_json$"), r"\1.function.parameters"),
    (re.compile(r"^(tools\[\d+\])\.(name|strict)$"), r"\1.function.\2"),
    (re.compile(r"^tool_choice\.function_names$"), "tool_choice"),
    (re.compile(r"^(messages\[\d+\]\.tool_calls\[\d+\])\.arguments_json$"), r"\1.function.arguments"),
    (re.compile(r"^(messages\[\d+\]\.tool_calls\[\d+\])\.name$"), r"\1.function.name"),
    (re.compile(r"^response_format\.json_schema\.schema_json$"), "response_format.json_schema.schema"),
    (re.compile(r"^(messages\[\d+\]\.content\[\d+\])\.image$"), r"\1.image_url"),
    (re.compile(r"^prompt_token_ids"), "prompt"),
    (re.compile(r"^further_prompts\b.*"), "prompt"),
    (re.compile(r"^logprobs\.prompt$"), "echo"),
)
_SEVERAL: Final = {
    "sampling.max_tokens": ("max_tokens", "max_completion_tokens"),
    "logprobs": ("logprobs", "top_logprobs"),
    "response_format": ("response_format", "structured_outputs"),
    # Only callers of the gRPC API can set these.
    **dict.fromkeys(("prompt", "prompt_token_ids", "further_prompts", "logprobs.prompt", "tenant", "priority"), ()),
}
"""The names of fields that a request can set in several ways, or in none."""
_STRUCTURED_OUTPUT: Final = re.compile(r"^response_format(\.\w+(\.choices|\.schema_json)?)?")


def openai_name(field: str, *, structured_output_field: str = STRUCTURED_OUTPUT) -> str:
    """Return OpenAI's path of a field.

    Args:
        field: The path in GenerateRequest.
        structured_output_field: The path of the field by which the request asks for structured output.
    """
    if structured_output_field != STRUCTURED_OUTPUT:
        field = _STRUCTURED_OUTPUT.sub(structured_output_field, field)
    for pattern, name in _NAMES:
        field = pattern.sub(name, field)
    return field


def openai_names(fields: Iterable[str]) -> list[str]:
    """Return all names by which a client can set fields of GenerateRequest."""
    return sorted(name for field in fields for name in _SEVERAL.get(field, (openai_name(field),)))
