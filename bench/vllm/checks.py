"""Checks of the engine vllm on a machine with a GPU, most of which are those of the engine trtllm.

Random weights answer no question: what depends on an answer is checked only with a model that has learned.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from typing import Any

from bench.trtllm import (
    generation_checks,
    process_checks,
    sampling_checks,
    scheduling_checks,
    structured_output_checks,
)
from bench.trtllm.subject import Subject

_SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Tehran", "شیراز"]}},
    "required": ["city"],
    "additionalProperties": False,
}
_BESIDE = 16


def forced_outputs(subject: Subject) -> str:
    """Check that structured output matches its schema, grammar or regular expression, whatever the model prefers."""
    subject.needs("structured_output")

    def text(**structured_output: Any) -> str:
        asked = subject.ask(subject.question, temperature=1, max_tokens=48, structured_output=structured_output)
        return subject.text(asked)

    city = json.loads(text(json=_SCHEMA))["city"]
    assert city in ("Tehran", "شیراز"), city
    number = text(regex="[0-9]{2}")
    assert re.fullmatch("[0-9]{2}", number), number
    word = text(grammar='root ::= "yes" | "no"')
    assert word in ("yes", "no"), word
    return f"{city}, {number}, {word}"


def beside(subject: Subject) -> str:
    """Check that requests with every kind of parameter run beside each other, and that none changes another."""
    alone = subject.greedy(subject.question, 16)
    others = [
        {"seed": 3, "temperature": 1.5},
        {"logprobs": 5},
        {"logit_bias": {"100": 5}},
        {"repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.5},
        {"min_p": 0.1, "top_k": 20, "top_p": 0.9},
        {"structured_output": {"regex": "[a-z]{40}"}, "max_tokens": 64},
        {"min_tokens": 20, "ignore_eos": False},
    ]
    readers = [
        subject.start(subject.question, **{"ignore_eos": True, "max_tokens": 48, **others[index % len(others)]})
        for index in range(_BESIDE)
    ]
    first = subject.greedy(subject.question, 16)
    for reader in readers:
        reader.wait()
    common = next((index for index, pair in enumerate(zip(alone, first, strict=True)) if len(set(pair)) > 1), 16)
    assert common, "the first token of a greedy request depends on the requests beside it"
    return f"{_BESIDE} requests; {common} of 16 greedy tokens are those of the request alone"


def paused(subject: Subject) -> str:
    """Check that a reader without capacity loses no tokens, and holds nobody up."""
    reader = subject.start(subject.question, ignore_eos=True, max_tokens=64)
    reader.has_capacity = lambda: False  # type: ignore[method-assign]
    other = subject.ask(subject.question, ignore_eos=True, max_tokens=64)
    assert len(other.token_ids) == 64
    del reader.has_capacity
    subject.engine.wake()
    assert len(reader.wait().token_ids) == 64, f"{len(reader.token_ids)} tokens"
    return "none lost"


def progress(subject: Subject) -> str:
    """Check that the age of the last step stays small while requests run, and that the load counts them."""
    readers = [subject.start(subject.question, ignore_eos=True, max_tokens=256) for _ in range(_BESIDE)]
    oldest, most, use = 0.0, 0, 0.0
    while not all(reader.has_ended for reader in readers):
        load = subject.engine.load()
        oldest, most = max(oldest, load.step_age_s or 0), max(most, load.in_flight)
        use = max(use, load.kv_cache_use or 0)
        time.sleep(0.02)
    assert oldest < 2, f"a step took {oldest:.1f} s"
    assert most == min(_BESIDE, subject.engine.slots), f"{most} requests in flight"
    return f"the oldest step {oldest:.3f} s, {most} in flight, use {use:.4f}"


OF_LEARNED = ("end", "structured_outputs")
"""The checks of answers, for which weights must have been trained."""
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
    "forced_outputs": forced_outputs,
    "structured_outputs": structured_output_checks.structured_outputs,
    "bad_structured_output": structured_output_checks.bad_structured_output,
    **{name: sampling_checks.penalty(name) for name in ("presence_penalty", "frequency_penalty", "repetition_penalty")},
    "seed": sampling_checks.seed,
    "min_p": sampling_checks.min_p,
    "logit_bias": sampling_checks.bias,
    "cache": scheduling_checks.cache,
    "too_long": generation_checks.too_long,
    "beside": beside,
    "paused": paused,
    "progress": progress,
    "statistics": process_checks.statistics,
}
