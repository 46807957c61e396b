"""One choice's requests to the engine: one; or several, where its thought ends by other rules than its answer.

A budget is for the thought alone, a form for the answer alone. The engine knows neither: it writes the thought up to
its closing tag, and goes on behind it in another request, whose prompt its prefix cache makes cheap.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.generation.sampling import engine_params
from services.inference.model.served_model import ServedModel
from services.inference.request.prompt import Prompt
from services.inference.request.reasoning_policy import AFTER_REASONING, CLOSING
from services.inference.request.structured_output_rejections import restated
from services.runtime.failure import Failure
from services.worker.triton_client import EngineOutput, TritonClient


class ChoiceRequests:
    """What the engine is asked for one choice of a checked request."""

    def __init__(
        self,
        triton: TritonClient,
        model: ServedModel,
        request: pb.GenerateRequest,
        prompt: Prompt,
        *,
        choice: int,
        request_id: str,
        asking: Callable[[], None],
    ) -> None:
        """`asking` is called before each request, which may wait in the engine's queue."""
        self._triton: Final = triton
        self._model: Final = model
        self._request: Final = request
        self._prompt: Final = prompt
        self._request_id: Final = f"{request_id}.{choice}"
        self._asking: Final = asking
        self._params: Final = engine_params(request, model, room=prompt.room, choice=choice)
        if prompt.images:
            self._params["image_sizes"] = [image.size for image in prompt.images]
        self._limit: Final[int] = self._params["max_tokens"]
        self._written: list[int] = []
        self._left_out = 0
        """Tokens that were generated, but that the answer's prompt does not have."""
        self._usages: list[dict[str, Any]] = []

    async def outputs(self) -> AsyncGenerator[EngineOutput, None]:
        """Everything that is generated; the last output has the finish reason, and the usage of the whole.

        Raises Failure.
        """
        parts = self._reasoning_and_answer() if self._prompt.reasoning_apart else self._ask(self._params)
        try:
            async with contextlib.aclosing(parts):
                async for output in parts:
                    yield output
        except Failure as failure:
            raise restated(failure, self._request) from failure

    async def _reasoning_and_answer(self) -> AsyncGenerator[EngineOutput, None]:
        if "structured_output" in self._params:
            await self._try_form()
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
        async with contextlib.aclosing(self._ask(answer)) as outputs:
            async for output in outputs:
                yield output if output.usage is None else replace(output, usage=self._whole_usage(output.usage))

    async def _try_form(self) -> None:
        """A form that the engine refuses must be refused before anything is answered, not behind the thought."""
        params = {**self._params, "max_tokens": 1}
        if "min_tokens" in params:
            # It stays, since engines that cannot have both say so, but no more than one is made.
            params["min_tokens"] = min(params["min_tokens"], 1)
        async with contextlib.aclosing(self._ask(params)) as outputs:
            async for output in outputs:
                if output.usage is not None:
                    self._usages.append({**output.usage, "timings": {}})

    async def _reasoning(self) -> AsyncGenerator[EngineOutput, None]:
        """The thought and what closes it; finished only if nothing is to follow."""
        encode = self._model.tokenizer.encode
        most = self._limit
        if self._request.reasoning.HasField("budget_tokens"):
            most = min(most, self._request.reasoning.budget_tokens - len(encode(CLOSING)))
        async with contextlib.aclosing(self._stretches(most)) as outputs:
            async for output in outputs:
                yield output
                if output.finish_reason is not None:
                    return
        missing = "" if self._written[-1:] == [self._model.reasoning_end_id] else CLOSING
        # A form has no place for the empty line behind a thought.
        missing += AFTER_REASONING if missing or "structured_output" in self._params else ""
        closing = self._close(encode(missing))
        if closing.token_ids or closing.finish_reason:
            yield closing

    async def _stretches(self, most: int) -> AsyncGenerator[EngineOutput, None]:
        """Return the requests for reasoning of at most `most` tokens: two if stop tokens count only after `min_tokens`.

        Not left to the engine, which would forbid what closes the thought as well.
        """
        stops: list[int] = self._params.get("stop_token_ids", [])
        params = {
            name: value for name, value in self._params.items() if name not in ("structured_output", "min_tokens")
        }
        least = self._params.get("min_tokens", 0) if stops else 0
        for own, until in (([], min(least, most)), (stops, most)):
            if until <= self._generated:
                continue
            ids = [*own, self._model.reasoning_end_id]
            asked = self._ask({**params, "stop_token_ids": ids, "max_tokens": until - self._generated})
            finish = None
            async with contextlib.aclosing(asked) as outputs:
                async for output in outputs:
                    finish = output.finish_reason
                    yield self._taken(output, own)
            if finish != "length":
                return

    def _taken(self, output: EngineOutput, stops: Sequence[int]) -> EngineOutput:
        """A part of a thought, which ends the answer only at one of `stops` or where there is no room for more."""
        last = output.token_ids[-1:]
        is_stop = output.finish_reason == "stop" and not set(stops).intersection(last)
        if is_stop and self._model.tokenizer.end_ids.intersection(last):
            output = _without_last(output)
        self._written += output.token_ids
        self._left_out += output.left_out
        if output.finish_reason is None:
            return output
        if is_stop or (output.finish_reason == "length" and self._left):
            self._usages.append(output.usage or {})
            return replace(output, finish_reason=None, usage=None)
        return replace(output, usage=self._whole_usage(output.usage or {}))

    @property
    def _generated(self) -> int:
        return len(self._written) + self._left_out

    @property
    def _left(self) -> int:
        """How many tokens may still be generated."""
        return self._limit - self._generated

    def _close(self, token_ids: list[int]) -> EngineOutput:
        """The tokens that end the thought, as far as there is room. They are certain."""
        token_ids = token_ids[: self._left]
        self._written += token_ids
        wanted: int | None = self._params.get("logprobs")
        return EngineOutput(
            token_ids=token_ids,
            logprobs=None if wanted is None else [0.0] * len(token_ids),
            top_token_ids=[[token_id] for token_id in token_ids] if wanted else None,
            top_logprobs=[[0.0] for _ in token_ids] if wanted else None,
            finish_reason=None if self._left else "length",
            usage=None if self._left else self._whole_usage({}),
        )

    def _ask(self, params: Mapping[str, Any]) -> AsyncGenerator[EngineOutput, None]:
        self._asking()
        if self._written and self._model.supports("priority"):
            # Whoever has begun to answer goes before those who have not.
            params = {**params, "priority": params.get("priority", 0) + 1}
        return self._triton.generate(
            self._model.id,
            request_id=self._request_id,
            prompt_token_ids=[*self._prompt.token_ids, *self._written],
            params=params,
            images=[image.data for image in self._prompt.images],
        )

    def _whole_usage(self, last: Mapping[str, Any]) -> dict[str, Any]:
        """The usage of all requests. What a later one found in the cache were the earlier ones' own tokens."""
        usages = [*self._usages, last]
        timings: dict[str, float] = {}
        for usage in usages:
            for name, seconds in usage.get("timings", {}).items():
                timings[name] = timings.get(name, 0.0) + seconds
        cached = next((usage["cached_tokens"] for usage in usages if "cached_tokens" in usage), 0)
        return {"cached_tokens": min(cached, self._prompt.token_count), "timings": timings}


def _without_last(output: EngineOutput) -> EngineOutput:
    """Without the token by which a model ended its thought as if it were an answer: more is to follow."""
    return replace(
        output,
        token_ids=output.token_ids[:-1],
        logprobs=output.logprobs and output.logprobs[:-1],
        top_token_ids=output.top_token_ids and output.top_token_ids[:-1],
        top_logprobs=output.top_logprobs and output.top_logprobs[:-1],
        left_out=1,
    )
