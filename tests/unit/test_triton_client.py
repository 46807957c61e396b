"""The client's end of a Triton stream, against a stand-in that can delay its reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from services.worker.triton_client import TritonClient
from services.worker.triton_messages import MAX_MESSAGE_BYTES

LIMIT = 10.0
LARGE = range(1_000_000)
"""A prompt of 4 MB: more than the buffers on the way to a server that does not read."""


class Triton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Generates `outputs` tokens, one by one, and reads further messages once `may_read` is set."""

    def __init__(self, *, outputs: int) -> None:
        self.outputs = outputs
        self.may_read = asyncio.Event()
        self.begun = asyncio.Event()
        self.controls: list[str] = []
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        try:
            self.begun.set()
            first = await anext(requests) if self.outputs else None
            reading = asyncio.create_task(self._read(requests))
            for number in range(self.outputs):
                yield _token(first.id, number)
            await reading
        except asyncio.CancelledError:
            self.end.set_result("cancelled")
            raise
        self.end.set_result("whole")

    async def _read(self, requests: Any) -> None:
        await self.may_read.wait()
        async for request in requests:
            self.controls += json.loads(request.raw_input_contents[0][4:]).keys() & {"acknowledge", "cancel"}


def _token(request_id: str, number: int) -> Any:
    answer = service_pb2.ModelInferResponse(id=request_id)
    answer.outputs.add(name="token_ids", datatype="INT32", shape=[1])
    answer.raw_output_contents.append(np.array([number], "<i4").tobytes())
    return service_pb2.ModelStreamInferResponse(infer_response=answer)


@contextlib.asynccontextmanager
async def serving(triton: Triton) -> AsyncIterator[TritonClient]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 32 * 2**20)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = TritonClient(f"127.0.0.1:{port}")
    try:
        yield client
    finally:
        await client.close()
        await server.stop(None)


async def test_cancelling_a_request_while_it_is_sent_sends_a_cancel_message() -> None:
    triton = Triton(outputs=0)
    async with serving(triton) as client, asyncio.timeout(LIMIT):
        outputs = client.generate("m", request_id="r", prompt_token_ids=LARGE, params={})
        reading = asyncio.ensure_future(anext(outputs))
        await triton.begun.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        triton.may_read.set()
        assert await triton.end == "whole"
    assert triton.controls == ["cancel"]


async def test_cancelling_a_request_while_an_acknowledgement_is_sent_sends_a_cancel_message() -> None:
    triton = Triton(outputs=1000)
    received = 0

    async def read(client: TritonClient) -> None:
        nonlocal received
        outputs = client.generate("m", request_id="r" * 50_000, prompt_token_ids=[1], params={}, window=2)
        async for _ in outputs:
            received += 1

    async with serving(triton) as client, asyncio.timeout(LIMIT):
        reading = asyncio.create_task(read(client))
        # The long id makes acknowledgements large, so that the client soon waits until one can be sent.
        before = -1
        while received != before or not received:
            before = received
            await asyncio.sleep(0.2)
        assert received < triton.outputs
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        triton.may_read.set()
        assert await triton.end == "whole"
    assert triton.controls.count("acknowledge") == received
    assert triton.controls[-1] == "cancel"


async def test_a_request_larger_than_a_message_may_be_is_rejected_before_it_is_sent() -> None:
    images = [b"a" * (MAX_MESSAGE_BYTES // 2)] * 2
    async with serving(Triton(outputs=1)) as client:
        with pytest.raises(Failure) as caught:
            await anext(client.generate("m", request_id="r", prompt_token_ids=[1], params={}, images=images))
        assert caught.value.message == Message("request_too_large_for_model", value=33554560, limit=33554432)
        assert caught.value.reason is Reason.INVALID_ARGUMENT
        with pytest.raises(Failure) as caught:
            await client.infer("m", {"texts": images}, request_id="r", seconds=1)
        assert caught.value.reason is Reason.INVALID_ARGUMENT
