"""OpenAI's text completions in the API's document."""

from __future__ import annotations

from typing import Any, Final

from services.gateway.dialects.openai_completions.request_model import CompletionRequest
from services.gateway.dialects.openai_completions.response_model import Completion
from services.gateway.dialects.openai_document import ERRORS, EXAMPLE_DRY_RUN, EXAMPLE_USAGE, HEADERS, DryRun
from services.gateway.dialects.operation_document import (
    ContentDocument,
    LocalizedText,
    OperationDocument,
    ResponseDocument,
)

_MODEL: Final = "qwen3-8b"


def _completion(text: str, finish_reason: str | None, usage: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "id": "cmpl-0a1b2c3d4e5f",
        "object": "text_completion",
        "created": 1_796_000_000,
        "model": _MODEL,
        "service_tier": "default",
        "system_fingerprint": "fp_0a1b2c3d4e",
        "choices": [{"index": 0, "text": text, "logprobs": None, "finish_reason": finish_reason}],
        "usage": usage,
    }


OPERATIONS: Final = (
    OperationDocument(
        method="post",
        path="/completions",
        id="createCompletion",
        summary=LocalizedText("Continue a text", "ادامهٔ یک متن"),
        description=LocalizedText(
            "The prompt goes to the model as it stands, without a chat template. For conversations, use "
            "`/chat/completions`.",
            "متن همان‌طور که هست و بدون قالب گفت‌وگو به مدل می‌رسد. برای گفت‌وگو `/chat/completions` را به کار ببرید.",
        ),
        request=ContentDocument(
            models=(CompletionRequest,),
            examples={
                "text": {"model": _MODEL, "prompt": "پایتخت ایران", "max_tokens": 64},
                "stream": {
                    "model": _MODEL,
                    "prompt": "پایتخت ایران",
                    "stream": True,
                    "stream_options": {"include_usage": True},
                },
            },
        ),
        response=ResponseDocument(
            description=LocalizedText("The continuation.", "ادامهٔ متن."),
            headers=HEADERS,
            contents=(
                ContentDocument(
                    models=(Completion, DryRun),
                    examples={
                        "continuation": _completion("، تهران است.", "stop", EXAMPLE_USAGE),
                        "dry_run": {**EXAMPLE_DRY_RUN, "object": "text_completion.dry_run", "prompt": "پایتخت ایران"},
                    },
                ),
                ContentDocument(
                    media_type="text/event-stream",
                    models=(Completion,),
                    examples={
                        "token": _completion("، تهران", None, None),
                        "finish": _completion("", "stop", None),
                    },
                ),
            ),
        ),
        errors=ERRORS,
    ),
)
