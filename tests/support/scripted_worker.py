"""A stand-in for an inference worker, which sends the events of a test's script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from vilix.inference.v1 import inference_service_pb2 as pb

from tests.support.stand_in_workers import InferenceStandIn, serving_inference

MODEL = "scripted/model-1.0"

Step = list[pb.Event] | Exception | asyncio.Event


def started(prompt_tokens: int = 3) -> pb.Event:
    return pb.Event(started=pb.Started(prompt_tokens=prompt_tokens))


def content(text: str, index: int = 0) -> pb.Event:
    return pb.Event(delta=pb.Delta(index=index, content=text, token_count=1))


def reasoning(text: str) -> pb.Event:
    return pb.Event(delta=pb.Delta(reasoning_content=text, token_count=1))


def finish(reason: pb.FinishReason.ValueType = pb.FINISH_REASON_STOP, index: int = 0) -> pb.Event:
    return pb.Event(finish=pb.Finish(index=index, reason=reason))


def usage(completion_tokens: int = 2) -> pb.Event:
    return pb.Event(usage=pb.Usage(prompt_tokens=3, completion_tokens=completion_tokens))


class ScriptedWorker(InferenceStandIn):
    """Plays `script` for every call: sends lists of events, raises exceptions, and waits for each asyncio.Event."""

    def __init__(self) -> None:
        super().__init__()
        self.script: list[Step] = []
        self.requests: list[pb.GenerateRequest] = []
        self.request_ids: list[str] = []
        self.cancelled = asyncio.Event()
        self.listed = asyncio.Event()
        """Set when a gateway has listed the models."""
        self.capabilities = pb.Capabilities(chat=True)

    async def generate(self, request: pb.GenerateRequest, request_id: str) -> AsyncGenerator[list[pb.Event], None]:
        self.requests.append(request)
        self.request_ids.append(request_id)
        try:
            for step in self.script:
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, asyncio.Event):
                    await step.wait()
                else:
                    yield step
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def RenderPrompt(  # noqa: N802
        self, request: pb.RenderPromptRequest, context: Any
    ) -> pb.RenderPromptResponse:
        return pb.RenderPromptResponse(prompt="a b c", token_ids=[1, 2, 3], prompt_tokens=3, remaining_tokens=97)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:  # noqa: N802
        self.listed.set()
        model = pb.Model(id=MODEL, owned_by="tests", context_length=100, supported_parameters=["sampling.top_k", "n"])
        model.capabilities.CopyFrom(self.capabilities)
        model.created.FromSeconds(1)
        return pb.ListModelsResponse(models=[model])


@asynccontextmanager
async def scripted_worker(port: int) -> AsyncIterator[ScriptedWorker]:
    """Serve a scripted worker on 127.0.0.1:`port`."""
    worker = ScriptedWorker()
    async with serving_inference(worker, port):
        yield worker
