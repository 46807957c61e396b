"""An inference worker for benchmarks that costs little: `python -m bench.tokens.source PORT STEP_MS`.

It sends one message per step with a token for every running call, or for the model `instant` as fast as the caller
reads. A call ends after `max_tokens` tokens.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

MODEL: Final = "source"
WORDS: Final = (" one", " two", " three", " four", " five", " six", " seven", " eight", " nine", " ten")


_ACCEPTS_CREDITS: Final[dict[str, Any]] = (
    {"accepts_credits": True} if "accepts_credits" in pb.GenerateManyResponse.DESCRIPTOR.fields_by_name else {}
)


class Source(inference_service_pb2_grpc.InferenceServiceServicer):
    """The worker."""

    def __init__(self, step_seconds: float) -> None:
        """Generate a token per step of `step_seconds`; 0: without a pace."""
        self._step_seconds: Final = step_seconds

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:  # noqa: N802
        """List the only model."""
        model = pb.Model(id=MODEL, owned_by="benchmark", context_length=100_000)
        model.capabilities.chat = True
        model.created.FromSeconds(1)
        return pb.ListModelsResponse(models=[model])

    async def GenerateMany(  # noqa: N802
        self, requests: AsyncIterator[pb.GenerateManyRequest], context: Any
    ) -> AsyncIterator[pb.GenerateManyResponse]:
        """Send a message per step."""
        left: dict[int, list[int]] = {}
        columns: set[int] = set()
        changed = asyncio.Event()
        reading = asyncio.create_task(_read(requests, left, columns, changed))
        next_step, number = time.monotonic(), 0
        try:
            while not reading.done():
                if not left:
                    changed.clear()
                    await changed.wait()
                    next_step = max(next_step, time.monotonic())
                if self._step_seconds:
                    next_step += self._step_seconds
                    await asyncio.sleep(max(0.0, next_step - time.monotonic()))
                number += 1
                yield _step(left, columns, WORDS[number % len(WORDS)])
                if not self._step_seconds:
                    await asyncio.sleep(0)
        finally:
            reading.cancel()


async def _read(
    requests: AsyncIterator[pb.GenerateManyRequest],
    left: dict[int, list[int]],
    columns: set[int],
    changed: asyncio.Event,
) -> None:
    async for request in requests:
        if request.HasField("start"):
            most = request.start.request.sampling.max_tokens or 16
            left[request.call] = [most, most]
            # An older proto does not have the field.
            if getattr(request.start, "accepts_text_deltas", False):
                columns.add(request.call)
            changed.set()
        elif request.HasField("cancel"):
            left.pop(request.call, None)


def _step(left: dict[int, list[int]], columns: set[int], word: str) -> pb.GenerateManyResponse:
    # Earlier protos, with which gateways of earlier versions are measured, do not have the field.
    response, calls = pb.GenerateManyResponse(**_ACCEPTS_CREDITS), []
    for call, counts in list(left.items()):
        is_first = counts[0] == counts[1]
        counts[0] -= 1
        if not is_first and counts[0] and call in columns:
            calls.append(call)
            continue
        output = response.outputs.add(call=call)
        if is_first:
            output.events.add().started.prompt_tokens = 5
        delta = output.events.add().delta
        delta.content, delta.token_count = word, 1
        if not counts[0]:
            output.events.add().finish.reason = pb.FINISH_REASON_LENGTH
            usage = output.events.add().usage
            usage.prompt_tokens, usage.completion_tokens = 5, counts[1]
            response.outputs.add(call=call, status=b"")
            del left[call]
            columns.discard(call)
    if calls:
        response.contents.calls.extend(calls)
        response.contents.texts.extend([word] * len(calls))
        response.contents.token_counts.extend([1] * len(calls))
    return response


async def serve(port: int, step_ms: float) -> None:
    """Serve until the process is stopped."""
    # Clients of this server call nothing else.
    source = Source(step_ms / 1000)  # type: ignore[abstract]
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 32 * 2**20)])
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(source, server)
    healthy = health.aio.HealthServicer()
    await healthy.set("vilix.inference.v1.InferenceService", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2])))
