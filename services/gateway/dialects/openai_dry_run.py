"""The response to a request with `dry_run`: the prompt, the fields that would be ignored, and the worker."""

from __future__ import annotations

from typing import Any

from services.gateway.dialects.dialect import RenderedPrompt
from services.gateway.dialects.openai_call import OpenAICall


def dry_run_object(kind: str, call: OpenAICall, prompt: RenderedPrompt) -> dict[str, Any]:
    """Return the response object, whose field `object` is `kind`."""
    return {
        "object": kind,
        "model": call.generate.model,
        "prompt": prompt.response.prompt,
        "prompt_tokens": prompt.response.prompt_tokens,
        "remaining_tokens": prompt.response.remaining_tokens,
        "ignored_parameters": list(prompt.ignored),
        "worker": prompt.worker,
    }
