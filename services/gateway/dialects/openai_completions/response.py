"""The object `text_completion`, the response to a request without `stream`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.gateway.dialects.collector import Choice, ResponseCollector
from services.gateway.dialects.dialect import ResponseHead
from services.gateway.dialects.openai_completions.logprobs import Logprobs, prompt_text
from services.gateway.dialects.openai_completions.request import CompletionCall
from services.gateway.dialects.openai_objects import FINISH_REASONS, budget_object, head_object, usage_object


def text_completion(call: CompletionCall, head: ResponseHead, collected: ResponseCollector) -> dict[str, Any]:
    """Return the object of a complete generation. `call` needs no prompt."""
    return {
        **head_object("text_completion", head, call.generate.model),
        "choices": [
            _choice_object(call, index, number, choice)
            for index, (number, choice) in enumerate(_returned(call, collected.choices))
        ],
        "usage": usage_object(collected.usage),
        **({"vilix": budget_object(collected.ended_by)} if collected.ended_by is not None else {}),
    }


def _choice_object(call: CompletionCall, index: int, number: int, choice: Choice) -> dict[str, Any]:
    """Return the object of the choice that was generated with the number `number`, and is returned at `index`."""
    echo = call.echo(number)
    content, logprobs, finish_reason = "".join(choice.content), choice.logprobs, FINISH_REASONS[choice.finish_reason]
    if call.only_echoes:
        content, logprobs, finish_reason = "", [], "length"
    return {
        "index": index,
        "text": (prompt_text(choice.prompt_logprobs) if echo is None else echo) + content,
        "logprobs": Logprobs(0).of(logprobs, choice.prompt_logprobs) if call.returns_logprobs else None,
        "finish_reason": finish_reason,
    }


def _returned(call: CompletionCall, choices: Sequence[Choice]) -> list[tuple[int, Choice]]:
    """Return the choices to return with their numbers: of each prompt the most probable ones, best first."""
    numbered = list(enumerate(choices))
    if call.generated == call.n:
        return numbered
    groups = [numbered[start : start + call.generated] for start in range(0, len(numbered), call.generated)]
    return [one for group in groups for one in sorted(group, key=lambda one: -_mean_logprob(one[1]))[: call.n]]


def _mean_logprob(choice: Choice) -> float:
    values = [entry.logprob for entry in choice.logprobs]
    return sum(values) / len(values) if values else float("-inf")
