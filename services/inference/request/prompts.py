"""Renders all prompts of a request: the first one, and the further ones of a request without messages."""

from __future__ import annotations

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.served_model import ServedModel
from services.inference.request.prompt import Prompt, render


async def render_all(request: pb.GenerateRequest, model: ServedModel) -> list[Prompt]:
    """Return the prompts of a checked request, in order. Raises Failure as `render` does."""
    prompts = [await render(request, model)]
    if request.further_prompts:
        single = pb.GenerateRequest(
            model=request.model,
            sampling=request.sampling,
            reasoning=request.reasoning,
            clamp_max_tokens=request.clamp_max_tokens,
        )
        single.response_format.CopyFrom(request.response_format)
        for further in request.further_prompts:
            del single.prompt_token_ids[:]
            if further.HasField("token_ids"):
                single.ClearField("prompt")
                single.prompt_token_ids.extend(further.token_ids.ids)
            else:
                single.prompt = further.text
            prompts.append(await render(single, model))
    return prompts


def number_of_choices(request: pb.GenerateRequest) -> int:
    """Return the number of choices of all prompts."""
    return max(1, request.n) * (1 + len(request.further_prompts))
