"""Checks of the engine trtllm on a machine with a GPU, each with a few short requests."""

from __future__ import annotations

from collections.abc import Callable

from bench.trtllm import (
    generation_checks,
    image_checks,
    mixture_checks,
    process_checks,
    sampling_checks,
    scheduling_checks,
    structured_output_checks,
)
from bench.trtllm.subject import Subject

CHECKS: dict[str, Callable[[Subject], str]] = {
    "tokens": generation_checks.tokens,
    "text": generation_checks.text,
    "greedy": generation_checks.greedy,
    "end": generation_checks.end,
    "stop": generation_checks.stop,
    "min_tokens": generation_checks.min_tokens,
    "logprobs": generation_checks.logprobs,
    "cancel": scheduling_checks.cancel,
    "many": scheduling_checks.many,
    "structured_outputs": structured_output_checks.structured_outputs,
    "bad_structured_output": structured_output_checks.bad_structured_output,
    **{name: sampling_checks.penalty(name) for name in ("presence_penalty", "frequency_penalty", "repetition_penalty")},
    "seed": sampling_checks.seed,
    "min_p": sampling_checks.min_p,
    "logit_bias": sampling_checks.bias,
    "cache": scheduling_checks.cache,
    "images": image_checks.images,
    "image_sizes": image_checks.image_sizes,
    "image_gap": image_checks.image_gap,
    "largest_image": image_checks.largest_image,
    "most_images": image_checks.most_images,
    "too_long": generation_checks.too_long,
    "bias_beside": mixture_checks.bias_beside,
    "text_beside_image": mixture_checks.text_beside_image,
    "mixed": mixture_checks.mixed,
    "long_beside_short": mixture_checks.long_beside_short,
    "statistics": process_checks.statistics,
    "telemetry": process_checks.telemetry,
}
