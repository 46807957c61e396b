"""Splits a choice into a reasoning request and an answer request to the engine when they have different limits.

A reasoning budget limits only the reasoning, and structured output only the answer. The engine knows neither part: one
request generates the reasoning up to its closing tag, and another one continues behind the tag. The engine's prefix
cache makes the prompt of the second one cheap.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.generation.sampling import engine_params
from services.inference.model.served_model import ServedModel
from services.inference.request.engine_rejections import restated
from services.inference.request.prompt import Prompt
from services.inference.request.reasoning_policy import AFTER_REASONING, CLOSING
from services.runtime.failure import Failure
from services.runtime.tracing.trace_context import CURRENT
from services.worker.step_stream import TokenSink
from services.worker.triton_client import TritonClient
from services.worker.triton_messages import EngineOutput

_FOR_ANSWER: Final = frozenset({"structured_output", "calls"})
"""Parameters to which the engine holds the answer, and not the reasoning."""


class ChoiceRequests:
    """The requests to the engine for one choice of a checked request."""

    def __init__(
        self,
        triton: TritonClient,
        model: ServedModel,
        request: pb.GenerateRequest,
        prompt: Prompt,
        *,
        choice: int,
        request_id: str,
        on_request: Callable[[], None],
        sink: TokenSink | None = None,
    ) -> None:
        """Prepare the requests. `on_request` is called before each of them, which may wait in the engine's queue.

        Tokens of a choice with one request are offered to `sink` while the reader waits, and not read if it takes them.
        """
        self._sink: Final = None if prompt.separate_reasoning else sink
        self._triton: Final = triton
        self._model: Final = model
        self._request: Final = request
        self._prompt: Final = prompt
        self._request_id: Final = f"{request_id}.{choice}"
        self._on_request: Final = on_request
        self._params: Final = engine_params(request, model, remaining_tokens=prompt.remaining_tokens, choice=choice)
        traced = CURRENT.get()
        if traced is not None and model.supports("trace_headers"):
            self._params["trace_headers"] = traced.headers()
        if prompt.images:
            self._params["image_sizes"] = [image.size for image in prompt.images]
        self._limit: Final[int] = self._params["max_tokens"]
        self._reasoning_ids: list[int] = []
        """The reasoning generated so far, with its closing tag: the answer's prompt ends with it."""
        self._left_out = 0
        """The number of generated tokens that are not in the answer's prompt."""
        self._usages: list[dict[str, Any]] = []

    async def outputs(self) -> AsyncGenerator[EngineOutput, None]:
        """Yield all outputs of the choice; the last one has the finish reason, and the usage of all requests.

        Raises Failure.
        """
        outputs = self._reasoning_and_answer() if self._prompt.separate_reasoning else self._generate(self._params)
        try:
            async with contextlib.aclosing(outputs):
                async for output in outputs:
                    yield output if output.cached_tokens is None else self._with_first_cached_tokens(output)
        except Failure as failure:
            raise restated(failure, self._request) from failure

    async def _reasoning_and_answer(self) -> AsyncGenerator[EngineOutput, None]:
        if not _FOR_ANSWER.isdisjoint(self._params):
            async with contextlib.aclosing(self._try_structured_output()) as progress:
                async for output in progress:
                    yield output
        async with contextlib.aclosing(self._reasoning()) as reasoning:
            async for output in reasoning:
                yield output
                if output.finish_reason is not None:
                    return
        answer = {**self._params, "max_tokens": self._left}
        if "min_tokens" in answer:
            answer["min_tokens"] -= self._generated
            if answer["min_tokens"] <= 0:
                del answer["min_tokens"]
        async with contextlib.aclosing(self._generate(answer)) as outputs:
            async for output in outputs:
                yield output if output.usage is None else replace(output, usage=self._whole_usage(output.usage))

    async def _try_structured_output(self) -> AsyncGenerator[EngineOutput, None]:
        """Let the engine reject an invalid structured output before the reasoning, with a request for one token.

        Yields the engine's progress with its prompt.
        """
        params = {**self._params, "max_tokens": 1}
        if "min_tokens" in params:
            # `min_tokens` stays in the request, because some engines reject it together with structured output.
            params["min_tokens"] = min(params["min_tokens"], 1)
        async with contextlib.aclosing(self._generate(params)) as outputs:
            async for output in outputs:
                if output.is_progress:
                    yield output
                if output.usage is not None:
                    self._usages.append({**output.usage, "timings": {}})

    async def _reasoning(self) -> AsyncGenerator[EngineOutput, None]:
        """Yield the reasoning with its closing tag. An output has a finish reason only if no answer follows."""
        encode = self._model.tokenizer.encode
        most = self._limit
        if self._request.reasoning.HasField("budget_tokens"):
            most = min(most, self._request.reasoning.budget_tokens - len(encode(CLOSING)))
        async with contextlib.aclosing(self._reasoning_requests(most)) as outputs:
            async for output in outputs:
                yield output
                if output.finish_reason is not None:
                    return
        missing = "" if self._reasoning_ids[-1:] == [self._model.reasoning_end_id] else CLOSING
        # Structured output does not allow the empty line that models write behind reasoning.
        missing += AFTER_REASONING if missing or "structured_output" in self._params else ""
        closing = self._closing_output(encode(missing))
        if closing.token_ids or closing.finish_reason:
            yield closing

    async def _reasoning_requests(self, most: int) -> AsyncGenerator[EngineOutput, None]:
        """Yield reasoning of at most `most` tokens, from two requests if stop tokens count only after `min_tokens`.

        The engine cannot do it in one request: its `min_tokens` would also forbid the closing tag of the reasoning.
        """
        stops: list[int] = self._params.get("stop_token_ids", [])
        params = {
            name: value for name, value in self._params.items() if name not in _FOR_ANSWER and name != "min_tokens"
        }
        least = self._params.get("min_tokens", 0) if stops else 0
        for stops_of_request, until in (([], min(least, most)), (stops, most)):
            if until <= self._generated:
                continue
            ids = [*stops_of_request, self._model.reasoning_end_id]
            request = self._generate({**params, "stop_token_ids": ids, "max_tokens": until - self._generated})
            finish = None
            async with contextlib.aclosing(request) as outputs:
                async for output in outputs:
                    finish = output.finish_reason
                    yield self._reasoning_output(output, stops_of_request)
            if finish != "length":
                return

    def _reasoning_output(self, output: EngineOutput, stops: Sequence[int]) -> EngineOutput:
        """Record an output of the reasoning. Only one of `stops`, or the token limit, ends the whole choice."""
        last = output.token_ids[-1:]
        is_stop = output.finish_reason == "stop" and not set(stops).intersection(last)
        if is_stop and self._model.tokenizer.end_ids.intersection(last):
            output = _without_last(output)
        self._reasoning_ids += output.token_ids
        self._left_out += output.left_out
        if output.finish_reason is None:
            return output
        if is_stop or (output.finish_reason == "length" and self._left):
            self._usages.append(output.usage or {})
            return replace(output, finish_reason=None, usage=None)
        return replace(output, usage=self._whole_usage(output.usage or {}))

    @property
    def _generated(self) -> int:
        return len(self._reasoning_ids) + self._left_out

    @property
    def _left(self) -> int:
        """The number of tokens that may still be generated."""
        return self._limit - self._generated

    def _closing_output(self, token_ids: list[int]) -> EngineOutput:
        """Return an output of the tokens that close the reasoning, as many as are left. Their probability is 1."""
        token_ids = token_ids[: self._left]
        self._reasoning_ids += token_ids
        top_count: int | None = self._params.get("logprobs")
        return EngineOutput(
            token_ids=token_ids,
            logprobs=None if top_count is None else [0.0] * len(token_ids),
            top_token_ids=[[token_id] for token_id in token_ids] if top_count else None,
            top_logprobs=[[0.0] for _ in token_ids] if top_count else None,
            finish_reason=None if self._left else "length",
            usage=None if self._left else self._whole_usage({}),
        )

    def _generate(self, params: Mapping[str, Any]) -> AsyncGenerator[EngineOutput, None]:
        self._on_request()
        if self._reasoning_ids and self._model.supports("priority"):
            # A choice that has begun goes before requests that have not.
            params = {**params, "priority": params.get("priority", 0) + 1}
        # Models of earlier releases have no streams of steps, and those have no log probabilities of prompts.
        in_steps = self._model.supports("step") and not self._request.logprobs.prompt
        generate = partial(self._triton.generate_in_steps, sink=self._sink) if in_steps else self._triton.generate
        return generate(
            self._model.id,
            request_id=self._request_id,
            prompt_token_ids=[*self._prompt.token_ids, *self._reasoning_ids],
            params=params,
            images=[image.data for image in self._prompt.images],
        )

    def _with_first_cached_tokens(self, output: EngineOutput) -> EngineOutput:
        """Return an output with the cached tokens of the first request, as `_whole_usage` counts them."""
        first = self._usages[0] if self._usages else {}
        cached: int = first.get("cached_tokens", output.cached_tokens or 0)
        return replace(output, cached_tokens=min(cached, self._prompt.token_count))

    def _whole_usage(self, last: Mapping[str, Any]) -> dict[str, Any]:
        """Return the usage of all requests. Cached tokens count in the first request only: later ones reuse its own."""
        usages = [*self._usages, last]
        timings: dict[str, float] = {}
        for usage in usages:
            for name, seconds in usage.get("timings", {}).items():
                timings[name] = timings.get(name, 0.0) + seconds
        cached = next((usage["cached_tokens"] for usage in usages if "cached_tokens" in usage), 0)
        return {"cached_tokens": min(cached, self._prompt.token_count), "timings": timings}


def _without_last(output: EngineOutput) -> EngineOutput:
    """Return an output without its last token, with which the model ended its reasoning like an answer."""
    return replace(
        output,
        token_ids=output.token_ids[:-1],
        logprobs=output.logprobs and output.logprobs[:-1],
        top_token_ids=output.top_token_ids and output.top_token_ids[:-1],
        top_logprobs=output.top_logprobs and output.top_logprobs[:-1],
        left_out=1,
    )
