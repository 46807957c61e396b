"""The object `text_completion`, the response to a request without `stream`."""

from __future__ import annotations

from typing import Any

from services.gateway.dialects.collector import ResponseCollector
from services.gateway.dialects.dialect import ResponseHead
from services.gateway.dialects.openai_completions.logprobs import Logprobs
from services.gateway.dialects.openai_completions.request import CompletionCall
from services.gateway.dialects.openai_objects import FINISH_REASONS, budget_object, usage_object


def text_completion(call: CompletionCall, head: ResponseHead, collected: ResponseCollector) -> dict[str, Any]:
    """Return the object of a complete generation. `call` needs no prompt."""
    with_logprobs = call.generate.HasField("logprobs")
    return {
        "id": head.id,
        "object": "text_completion",
        "created": head.created,
        "model": call.generate.model,
        "choices": [
            {
                "index": index,
                "text": call.echo + "".join(choice.content),
                "logprobs": Logprobs(0).of(choice.logprobs) if with_logprobs else None,
                "finish_reason": FINISH_REASONS[choice.finish_reason],
            }
            for index, choice in enumerate(collected.choices)
        ],
        "usage": usage_object(collected.usage),
        **({"vilix": budget_object(collected.ended_by)} if collected.ended_by is not None else {}),
    }
