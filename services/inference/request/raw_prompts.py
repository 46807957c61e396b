"""Rejects invalid fields about prompts without a chat template: further prompts, suffixes, their log probabilities."""

from __future__ import annotations

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.served_model import ServedModel
from services.runtime.failure import invalid, unsupported
from services.runtime.messages.message import Message


def check_raw_prompts(request: pb.GenerateRequest, model: ServedModel) -> None:
    """Raise Failure for a field that needs a prompt of another kind, or that the model does not support."""
    if request.messages:
        fields = {
            "further_prompts": bool(request.further_prompts),
            "suffix": bool(request.suffix),
            "logprobs.prompt": request.logprobs.prompt,
        }
        for field, is_set in fields.items():
            if is_set:
                raise invalid(Message("mutually_exclusive", field=field, other_field="messages"))
    if request.logprobs.prompt and request.n > 1:
        # Each choice would read the whole prompt, because nothing of it may come from the cache.
        raise invalid(Message("mutually_exclusive", field="logprobs.prompt", other_field="n"))
    for index, further in enumerate(request.further_prompts):
        if further.WhichOneof("prompt") is None or not (further.text or further.token_ids.ids):
            raise invalid(Message("text_empty", field=f"further_prompts[{index}]"))
    if not request.suffix:
        return
    if request.prompt_token_ids or request.further_prompts:
        other = "prompt_token_ids" if request.prompt_token_ids else "further_prompts"
        raise invalid(Message("suffix_needs_text", field="suffix", other_field=other))
    if model.spec.fill_in_middle is None:
        raise unsupported(Message("suffix_not_supported", field="suffix", model=model.id))
