"""The reader's end of a stream of steps, against a stand-in for Triton that the test directs."""

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
from services.worker.triton_client import TritonClient
from services.worker.triton_messages import EngineOutput
from tests.support.waits import until

LIMIT = 10.0
LARGE = range(1_000_000)
"""A prompt of 4 MB: more than the buffers on the way to a server that does not read."""
ENDED = {"finish_reason": "stop", "usage": {"cached_tokens": 0, "timings": {}}}


class Triton(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Keeps what it receives, and sends what the test puts into `answers`."""

    def __init__(self) -> None:
        self.params: list[dict[str, Any]] = []
        self.ids: list[str] = []
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.streams = 0
        self.whole = 0
        """The number of calls that the client has ended in order."""

    async def ModelStreamInfer(self, requests: Any, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        self.streams += 1
        reading = asyncio.create_task(self._read(requests))
        while (answer := await self.answers.get()) is not None:
            yield answer
        await reading
        self.whole += 1

    async def _read(self, requests: Any) -> None:
        await self.may_read.wait()
        async for request in requests:
            self.ids.append(request.id)
            self.params.append(json.loads(request.raw_input_contents[0][4:]))
            if self.params[-1] == {"cancel": {"request_id": self.name}}:
                self.answers.put_nowait(None)

    @property
    def name(self) -> str:
        """The name of the last stream."""
        return [i for i, params in zip(self.ids, self.params, strict=True) if "open_steps" in params][-1]

    @property
    def numbers(self) -> list[int]:
        """The numbers of the requests that were received."""
        return [params["step"]["request"] for params in self.params if "step" in params]

    def step(self, *entries: tuple[int, list[int]], ends: tuple[dict[str, Any], ...] = ()) -> None:
        """Send a step: pairs of a request's number and its tokens."""
        answer = service_pb2.ModelInferResponse(id=self.name)
        tokens = [token for _, ids in entries for token in ids]
        for name, values in (
            ("step_requests", [number for number, _ in entries]),
            ("step_counts", [len(ids) for _, ids in entries]),
            ("token_ids", tokens),
        ):
            answer.outputs.add(name=name, datatype="INT32", shape=[len(values)])
            answer.raw_output_contents.append(np.array(values, "<i4").tobytes())
        if ends:
            answer.outputs.add(name="step_ends", datatype="BYTES", shape=[len(ends)])
            texts = [json.dumps(end).encode() for end in ends]
            answer.raw_output_contents.append(b"".join(len(t).to_bytes(4, "little") + t for t in texts))
        self.answers.put_nowait(service_pb2.ModelStreamInferResponse(infer_response=answer))

    def reject(self, request_id: str, error: str) -> None:
        answer = service_pb2.ModelInferResponse(id=request_id)
        self.answers.put_nowait(service_pb2.ModelStreamInferResponse(infer_response=answer, error_message=error))


@pytest.fixture
async def triton() -> Triton:
    return Triton()


@pytest.fixture
async def client(triton: Triton) -> AsyncIterator[TritonClient]:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 32 * 2**20)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = TritonClient(f"127.0.0.1:{port}")
    async with asyncio.timeout(LIMIT):
        yield client
    triton.answers.put_nowait(None)
    await client.close()
    await server.stop(None)


def generate(client: TritonClient, **options: Any) -> Any:
    return client.generate_in_steps("m", **({"request_id": "r", "prompt_token_ids": [1], "params": {}} | options))


async def read(client: TritonClient, **options: Any) -> list[EngineOutput]:
    return [output async for output in generate(client, **options)]


async def test_every_request_gets_its_own_part_of_a_step(triton: Triton, client: TritonClient) -> None:
    readers = [asyncio.create_task(read(client)) for _ in range(2)]
    await until(lambda: len(triton.numbers) == 2)
    triton.step((1, [10]), (2, [20, 21]))
    triton.step((2, [22]), (1, []), (2, [23]), ends=({"request": 2, **ENDED},))
    triton.step((1, [11]), ends=({"request": 1, **ENDED},))
    first, second = await asyncio.gather(*readers)
    assert [token for output in first for token in output.token_ids] == [10, 11]
    assert [token for output in second for token in output.token_ids] == [20, 21, 22, 23]
    assert [output.finish_reason for output in second] == [None, None, "stop"]
    assert triton.streams == 1


async def test_an_error_in_a_step_ends_only_its_request(triton: Triton, client: TritonClient) -> None:
    readers = [asyncio.create_task(read(client)) for _ in range(2)]
    await until(lambda: len(triton.numbers) == 2)
    triton.step((1, [10]), (2, [20]), ends=({"request": 1, "error": "OVERLOADED: {}"},))
    triton.step((2, [21]), ends=({"request": 2, **ENDED},))
    first, second = await asyncio.gather(*readers, return_exceptions=True)
    assert isinstance(first, Failure)
    assert first.reason is Reason.OVERLOADED
    assert isinstance(second, list)
    assert second[-1].finish_reason == "stop"


async def test_a_rejection_ends_only_its_request(triton: Triton, client: TritonClient) -> None:
    readers = [asyncio.create_task(read(client)) for _ in range(2)]
    await until(lambda: len(triton.numbers) == 2)
    triton.reject(triton.ids[1], "INVALID_ARGUMENT: {}")
    triton.step((2, [21]), ends=({"request": 2, **ENDED},))
    first, second = await asyncio.gather(*readers, return_exceptions=True)
    assert isinstance(first, Failure)
    assert first.reason is Reason.INVALID_ARGUMENT
    assert isinstance(second, list)


async def test_a_request_that_meets_an_ended_stream_is_sent_again_on_a_new_one(
    triton: Triton, client: TritonClient
) -> None:
    reader = asyncio.create_task(read(client))
    await until(lambda: len(triton.numbers) == 1)
    triton.reject(triton.ids[1], "STREAM_ENDED: {}")
    await until(lambda: len(triton.numbers) == 2)
    triton.answers.put_nowait(None)
    await until(lambda: triton.whole == 1)
    triton.step((1, [5]), ends=({"request": 1, **ENDED},))
    assert [output.token_ids for output in await reader] == [[5]]
    assert triton.streams == 2


async def test_a_broken_stream_fails_its_requests_and_the_next_request_opens_another(
    triton: Triton, client: TritonClient
) -> None:
    readers = [asyncio.create_task(read(client)) for _ in range(2)]
    await until(lambda: len(triton.numbers) == 2)
    triton.reject(triton.name, "Stub process 'm' is not healthy.")
    failures = await asyncio.gather(*readers, return_exceptions=True)
    assert [failure.reason for failure in failures if isinstance(failure, Failure)] == [Reason.MODEL_UNAVAILABLE] * 2
    triton.answers.put_nowait(None)
    reader = asyncio.create_task(read(client))
    await until(lambda: len(triton.numbers) == 3)
    triton.step((1, [5]), ends=({"request": 1, **ENDED},))
    assert len(await reader) == 1


async def test_a_cancelled_request_is_cancelled_in_the_engine_and_the_others_go_on(
    triton: Triton, client: TritonClient
) -> None:
    cancelled, reader = (asyncio.create_task(read(client)) for _ in range(2))
    await until(lambda: len(triton.numbers) == 2)
    cancelled.cancel()
    await until(lambda: {"cancel": {"stream": triton.name, "requests": [1]}} in triton.params)
    # A token that was on its way.
    triton.step((1, [10]), (2, [20]), ends=({"request": 2, **ENDED},))
    assert len(await reader) == 1


async def test_a_request_that_is_cancelled_before_it_is_sent_is_never_sent(
    triton: Triton, client: TritonClient
) -> None:
    triton.may_read.clear()
    # The first ones fill all buffers on the way.
    running = [asyncio.create_task(read(client, prompt_token_ids=LARGE)) for _ in range(4)]
    await until(lambda: triton.streams == 1)
    await asyncio.sleep(0.05)
    unsent = running.pop()
    unsent.cancel()
    await asyncio.gather(unsent, return_exceptions=True)
    triton.may_read.set()
    await until(lambda: len(triton.numbers) == 3)
    triton.step(*((number, [1]) for number in (1, 2, 3)), ends=tuple({"request": n, **ENDED} for n in (1, 2, 3)))
    await asyncio.gather(*running)
    assert triton.numbers == [1, 2, 3]
    assert not any("cancel" in params for params in triton.params)


async def test_outputs_are_acknowledged_when_they_were_read(triton: Triton, client: TritonClient) -> None:
    outputs = generate(client, window=4)
    first = asyncio.ensure_future(anext(outputs))
    await until(lambda: len(triton.numbers) == 1)
    for _ in range(4):
        triton.step((1, [1]))
    await first
    await asyncio.sleep(0.05)
    assert not any("acknowledge" in params for params in triton.params)
    await anext(outputs)
    await until(lambda: {"acknowledge": {"stream": triton.name, "responses": {"1": 2}}} in triton.params)
    await outputs.aclose()


async def test_tokens_that_the_sink_takes_are_not_read_but_acknowledged(triton: Triton, client: TritonClient) -> None:
    class Sink:
        def __init__(self) -> None:
            self.taken: list[int] = []

        def take(self, token_ids: list[int]) -> bool:
            # Leaves the third step to the reader.
            if 3 in token_ids:
                return False
            self.taken += token_ids
            return True

    sink = Sink()
    reader = asyncio.create_task(read(client, sink=sink, window=4))
    await until(lambda: len(triton.numbers) == 1)
    for token in (1, 2, 3):
        triton.step((1, [token]))
        await asyncio.sleep(0.02)
    triton.step((1, [4]))
    await until(lambda: {"acknowledge": {"stream": triton.name, "responses": {"1": 4}}} in triton.params)
    triton.step((1, []), ends=({"request": 1, **ENDED},))
    assert [output.token_ids for output in await reader] == [[3], []]
    assert sink.taken == [1, 2, 4]


async def test_a_client_that_is_closed_cancels_the_stream_and_lets_triton_end_it(triton: Triton) -> None:
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    client = TritonClient(f"127.0.0.1:{port}")
    reader = asyncio.create_task(read(client))
    await until(lambda: len(triton.numbers) == 1)
    async with asyncio.timeout(LIMIT):
        await client.close()
    with contextlib.suppress(Failure):
        await reader
    assert triton.params[-1] == {"cancel": {"request_id": triton.name}}
    assert triton.whole == 1
    await server.stop(None)
