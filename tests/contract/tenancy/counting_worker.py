"""A stand-in for an inference worker that counts the tokens that it has generated for each request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from vilix.inference.v1 import inference_service_pb2 as pb

from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from tests.support.stand_in_workers import InferenceStandIn, serving_inference

MODELS = ("small", "large")
FAILS_AT = "fail at token "
"""A text that ends with it and a number makes the worker fail at that token."""


@dataclass
class Entry:
    """The tokens of one request."""

    prompt: int
    completion: int = 0
    ended: str = "cancelled"


class CountingWorker(InferenceStandIn):
    """Generates `max_tokens` tokens, one every `pace` seconds, while `going`; at a token that the text names, it fails.

    A test adds the ids of requests to `left` when their clients disconnect. They do not count in `most_running`: the
    gateway gives their slots to others while it cancels them, and the cancellation may arrive after the next call.
    """

    def __init__(self) -> None:
        super().__init__()
        self.books: dict[str, Entry] = {}
        self.pace = 0.0
        self.running: set[str] = set()
        self.left: set[str] = set()
        self.most_running = 0
        self.rendered = 0
        self.going = asyncio.Event()
        self.going.set()

    async def generate(self, request: pb.GenerateRequest, request_id: str) -> AsyncGenerator[list[pb.Event], None]:
        text = request.messages[-1].content[0].text if request.messages else request.prompt
        entry = self.books[request_id] = Entry(prompt=len(text) + len(request.prompt_token_ids))
        choices = range(max(1, request.n))
        fails_at = int(text.partition(FAILS_AT)[2] or 0)
        self.running.add(request_id)
        self.most_running = max(self.most_running, len(self.running - self.left))
        try:
            ignored = ["reasoning.effort"] if request.reasoning.effort else []
            yield [pb.Event(started=pb.Started(prompt_tokens=entry.prompt, ignored_parameters=ignored))]
            for number in range(1, request.sampling.max_tokens + 1):
                await self.going.wait()
                await asyncio.sleep(self.pace)
                if number == fails_at:
                    entry.ended = "broken"
                    raise Failure(Reason.INTERNAL, Message.verbatim("the engine broke"))
                entry.completion += len(choices)
                yield [pb.Event(delta=pb.Delta(index=index, content="x", token_count=1)) for index in choices]
            usage = pb.Usage(prompt_tokens=entry.prompt, completion_tokens=entry.completion, cached_tokens=1)
            entry.ended = "complete"
            finishes = [pb.Event(finish=pb.Finish(index=index, reason=pb.FINISH_REASON_STOP)) for index in choices]
            yield [*finishes, pb.Event(usage=usage)]
        finally:
            self.running.discard(request_id)

    async def RenderPrompt(  # noqa: N802
        self, request: pb.RenderPromptRequest, context: Any
    ) -> pb.RenderPromptResponse:
        self.rendered += 1
        return pb.RenderPromptResponse(prompt="p", prompt_tokens=1, token_ids=[1], remaining_tokens=1)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:  # noqa: N802
        return pb.ListModelsResponse(models=[pb.Model(id=model, owned_by="tests") for model in MODELS])

    async def WatchStatus(  # noqa: N802
        self, request: pb.WatchStatusRequest, context: Any
    ) -> AsyncIterator[pb.WatchStatusResponse]:
        small = pb.ModelStatus(
            model="small", ready=True, in_flight=3, queued=2, slots=8, kv_cache_use=0.25, tokens_per_second=41.5
        )
        yield pb.WatchStatusResponse(models=[small, pb.ModelStatus(model="large")])
        await asyncio.Future()


@asynccontextmanager
async def counting_worker(port: int) -> AsyncIterator[CountingWorker]:
    """Serve a CountingWorker on 127.0.0.1:`port`."""
    worker = CountingWorker()
    async with serving_inference(worker, port):
        yield worker
