"""A stand-in for Triton with scripted outputs, and texts that detokenizing must preserve."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from hypothesis import strategies as st

from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from services.worker.step_stream import StepRequest, TokenSink
from services.worker.triton_messages import EngineOutput

MODEL = "smollm2-135m"
PARAMETERS = frozenset(
    {"max_tokens", "min_tokens", "temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty"}
    | {"repetition_penalty", "seed", "stop_token_ids", "ignore_eos", "logprobs", "logit_bias", "cache_salt", "priority"}
)
TIMINGS = {"queued_s": 0.5, "prefill_s": 0.25, "decode_s": 2.0, "first_token_s": 0.75}

PIECES = [
    *(
        "سلام",
        "می\u200cخواهم",
        "كِتَابٌ",
        "ۀ",
        "e\u0301",
        "👨‍👩‍👧‍👦",
        "🏳️‍🌈",
        "🇮🇷",
        "🙂",
        "\n",
        " ",
        "word",
        "<|im",
        "۱۲۳",
        "\ufffd",
    ),
    *("中文", "𐏃", "a"),
]
# SmolLM2's vocabulary lacks the bytes of some control characters and of unassigned planes.
SPELLABLE = st.characters(
    max_codepoint=0x3FFFF, exclude_characters="\x04\x06\x13\x14\x16\x1d", exclude_categories=["Cs"]
)
TEXTS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(SPELLABLE, max_size=3)), max_size=12).map("".join)

Script = Callable[["EngineRequest"], AsyncGenerator[EngineOutput, None]]


class EngineRequest:
    """A request that reached the stand-in."""

    def __init__(
        self, request_id: str, prompt_token_ids: Sequence[int], params: Mapping[str, Any], images: Sequence[bytes] = ()
    ) -> None:
        self.request_id = request_id
        self.prompt_token_ids = list(prompt_token_ids)
        self.params = dict(params)
        self.images = list(images)
        self.closed = asyncio.Event()


class ScriptedTriton:
    """Behaves like TritonClient. `script` generates for every request; `down` makes it unreachable."""

    def __init__(self) -> None:
        self.script: Script = lambda _: outputs([1, 2], finish="length")
        self.requests: list[EngineRequest] = []
        self.described = 0
        self.down = False
        self.kv_cache_use: float | None = 0.5
        self.prefix_cache_hit_rate: float | None = 0.25
        self.supported = PARAMETERS
        self.trouble: Failure | None = None
        """The failure that `describe` raises."""
        self.silent = False
        """Whether `describe` never returns."""
        self.step_age_s: float | None = None

    async def describe(self, model: str, *, seconds: float = 5.0) -> dict[str, Any]:
        self.described += 1
        if self.trouble is not None:
            raise self.trouble
        if self.silent:
            await asyncio.sleep(seconds)
            raise Failure(
                Reason.TIMEOUT, Message.verbatim(f"the model {model} did not answer in time"), retry_after=1.0
            )
        if self.down:
            raise Failure(
                Reason.MODEL_UNAVAILABLE, Message.verbatim(f"the model {model} is not available"), retry_after=1
            )
        return {
            "engine": "scripted",
            "version": "1",
            "supported_parameters": sorted(self.supported),
            "context_length": 256,
            "slots": 4,
            "load": {
                "in_flight": 3,
                "queued": 2,
                "kv_cache_use": self.kv_cache_use,
                "prefix_cache_hit_rate": self.prefix_cache_hit_rate,
                "last_token_age_s": 1.5,
                "tokens_per_second": 7.0,
                "cancelled_total": 11,
                "generated_tokens_total": 1234,
                "step_age_s": self.step_age_s,
            },
        }

    async def generate(
        self,
        model: str,
        *,
        request_id: str,
        prompt_token_ids: Sequence[int],
        params: Mapping[str, Any],
        images: Sequence[bytes] = (),
    ) -> AsyncGenerator[EngineOutput, None]:
        request = EngineRequest(request_id, prompt_token_ids, params, images)
        self.requests.append(request)
        try:
            async for output in self.script(request):
                yield output
        finally:
            request.closed.set()

    async def generate_in_steps(
        self, model: str, *, sink: TokenSink | None = None, **arguments: Any
    ) -> AsyncGenerator[EngineOutput, None]:
        """Hand the outputs to the reader or the sink, as a stream of steps does."""
        stream: Any = _Steps()
        step = StepRequest(stream, 1, window=64, sink=sink)
        feeding = asyncio.create_task(_feed(step, self.generate(model, **arguments)))
        try:
            while True:
                output = await step.read()
                yield output
                if output.finish_reason is not None:
                    return
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    async def close(self) -> None:
        pass


class _Steps:
    def forget(self, number: int) -> None:
        pass

    def acknowledge(self, number: int, responses: int) -> None:
        pass

    def cancel(self, number: int) -> None:
        pass


async def _feed(step: StepRequest, outputs: AsyncGenerator[EngineOutput, None]) -> None:
    try:
        async with aclosing(outputs):
            async for output in outputs:
                if output.finish_reason is None and output.logprobs is None:
                    step.receive_tokens(output.token_ids)
                else:
                    step.receive(output)
    except Failure as failure:
        step.fail(failure)


def usage(prompt_tokens: int = 5, completion_tokens: int = 0) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "cached_tokens": 3,
        "timings": TIMINGS,
    }


def output(
    token_ids: Sequence[int],
    *,
    finish: str | None = None,
    logprobs: Sequence[float] | None = None,
    top: Sequence[Sequence[tuple[int, float]]] | None = None,
) -> EngineOutput:
    return EngineOutput(
        token_ids=list(token_ids),
        logprobs=None if logprobs is None else list(logprobs),
        top_token_ids=None if top is None else [[i for i, _ in row] for row in top],
        top_logprobs=None if top is None else [[p for _, p in row] for row in top],
        finish_reason=finish,
        usage=usage(completion_tokens=len(token_ids)) if finish else None,
    )


async def outputs(*batches: Sequence[int], finish: str) -> AsyncGenerator[EngineOutput, None]:
    """Yield an output per batch; the last one has the finish reason `finish`."""
    for number, batch in enumerate(batches, 1):
        yield output(batch, finish=finish if number == len(batches) else None)
