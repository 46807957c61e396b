"""Rejects requests that would harm an engine's library, or fail in it without a useful message."""

from __future__ import annotations

from typing import Any

from services.inference.triton_backend.checkpoint import Checkpoint
from services.inference.triton_backend.contract import Request, output_limit, reject_unknown_tokens
from services.inference.triton_backend.pending_trials import kind_not_supported
from services.inference.triton_backend.prompt_images import reject_misplaced


def checked_prompt(
    request: Request,
    *,
    tokenizer: Any,
    checkpoint: Checkpoint,
    context_length: int,
    structured_output_kinds: frozenset[str],
    engine: str,
) -> tuple[list[int], int]:
    """Return the prompt's token ids and the most tokens to generate. Raises RequestError if a request is rejected.

    `tokenizer` is transformers' one of the checkpoint, for a prompt as text. `engine` is a name for messages.
    """
    params, prompt, vocabulary = request.params, request.prompt_token_ids, checkpoint.vocabulary
    if request.text_input is not None:
        prompt = tokenizer.encode(request.text_input, add_special_tokens=False)
    limit = output_limit(len(prompt), params, context_length)
    reject_unknown_tokens("prompt_token_ids", prompt, vocabulary)
    reject_unknown_tokens("stop_token_ids", params.stop_token_ids, vocabulary)
    reject_unknown_tokens("logit_bias", (token_id for token_id, _ in params.logit_bias), vocabulary)
    if params.structured_output is not None and params.structured_output.kind not in structured_output_kinds:
        raise kind_not_supported(engine)
    reject_misplaced(request, prompt, checkpoint.image_token_id)
    return prompt, limit
