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


@dataclass
class Entry:
    """The tokens of one request."""

    prompt: int
    completion: int = 0
    ended: str = "cancelled"


class CountingWorker(InferenceStandIn):
    """Generates `max_tokens` tokens, one every `pace` seconds, while `going`; with `seed` n it fails after n - 1."""

    def __init__(self) -> None:
        super().__init__()
        self.books: dict[str, Entry] = {}
        self.pace = 0.0
        self.running = 0
        self.most_running = 0
        self.rendered = 0
        self.going = asyncio.Event()
        self.going.set()

    async def generate(self, request: pb.GenerateRequest, request_id: str) -> AsyncGenerator[list[pb.Event], None]:
        text = request.messages[-1].content[0].text if request.messages else request.prompt
        entry = self.books[request_id] = Entry(prompt=len(text) + len(request.prompt_token_ids))
        choices = range(max(1, request.n))
        fails_at = request.sampling.seed if request.sampling.HasField("seed") else None
        self.running += 1
        self.most_running = max(self.most_running, self.running)
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
            self.running -= 1

    async def RenderPrompt(  # noqa: N802
        self, request: pb.RenderPromptRequest, context: Any
    ) -> pb.RenderPromptResponse:
        self.rendered += 1
        return pb.RenderPromptResponse(prompt="p", prompt_tokens=1, token_ids=[1], remaining_tokens=1)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:  # noqa: N802
        return pb.ListModelsResponse(models=[pb.Model(id=model, owned_by="tests") for model in MODELS])


@asynccontextmanager
async def counting_worker(port: int) -> AsyncIterator[CountingWorker]:
    """Serve a CountingWorker on 127.0.0.1:`port`."""
    worker = CountingWorker()
    async with serving_inference(worker, port):
        yield worker
