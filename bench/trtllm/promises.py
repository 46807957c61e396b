"""The promises of the engine trtllm, and the checks that show them."""

from __future__ import annotations

from collections.abc import Mapping

HOLDS, BROKEN, NOT_SHOWN = "holds", "BROKEN", "not shown"
PROMISES: dict[str, tuple[str, ...]] = {
    "a prompt gets the model's tokens, and a reason for their end": (
        "tokens", "text", "greedy", "end", "stop", "min_tokens", "too_long",
    ),
    "every parameter that is offered has its effect": (
        "logprobs", "presence_penalty", "frequency_penalty", "repetition_penalty", "seed", "min_p", "logit_bias",
    ),
    "structured output has its structure": ("structured_outputs", "bad_structured_output"),
    "images are seen, in every size and number that is allowed": (
        "images", "image_sizes", "image_gap", "largest_image", "most_images",
    ),
    "no request harms another": ("bias_beside", "text_beside_image", "mixed", "long_beside_short"),
    "requests wait for a slot, and a cancelled one frees its own": ("many", "cancel"),
    "tenants share no cache, and its use is reported": ("cache", "statistics"),
    "nothing is reported to others": ("telemetry",),
    "an engine that has died does not stay ready": ("death",),
    "the image starts the model on all of its GPUs, and stops it on SIGTERM": ("served",),
}  # fmt: skip


def verdict(promise: str, results: Mapping[str, str], *, ok: str, failed: str) -> str:
    """Return the verdict about a promise from the results of its checks. Skipped checks count only if all are."""
    found = [results[check] for check in PROMISES[promise] if check in results]
    if failed in found:
        return BROKEN
    return HOLDS if ok in found else NOT_SHOWN
