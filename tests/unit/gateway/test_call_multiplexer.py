"""The gateway's end of a stream that many calls share, tested against the worker's end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import pytest
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.gateway.errors import ApiError
from services.gateway.routing import call_multiplexer
from services.gateway.routing.call_multiplexer import (
    WINDOW,
    CallCancelledError,
    CallMultiplexer,
    MultiplexedCall,
    SilentWorkerError,
)
from services.gateway.routing.event_sink import EventSink
from services.gateway.routing.inference_client import MAX_MESSAGE_BYTES, InferenceClient, Timeouts
from services.gateway.routing.message_size import ENVELOPE_BYTES
from services.runtime import idle_timer
from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from services.worker.grpc_server import WorkerServer
from tests.support.waits import until
from tests.unit.inference.test_call_demultiplexer import Servicer

LIMIT = 10.0
IDLE_SECONDS = 0.3


@asynccontextmanager
async def serving(servicer: Any, port: int = 0) -> AsyncIterator[tuple[grpc.aio.Server, int]]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield server, port
    finally:
        await server.stop(None)


@pytest.fixture
def servicer() -> Servicer:
    return Servicer()


@asynccontextmanager
async def client_of(port: int, *, idle_seconds: float = IDLE_SECONDS) -> AsyncIterator[InferenceClient]:
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 100)]
    ) as channel:
        client = InferenceClient(channel, Timeouts(idle_seconds=idle_seconds, stream_seconds=60))
        yield client
        await client.close()


@pytest.fixture
async def client(servicer: Servicer) -> AsyncIterator[InferenceClient]:
    async with serving(servicer) as (_, port), client_of(port) as client:
        yield client


def begin(client: InferenceClient, model: str) -> MultiplexedCall:
    return client.generate(pb.GenerateRequest(model=model), request_id="r")


async def read(call: MultiplexedCall) -> int:
    """Read a call to its end, and return the number of its events."""
    async with asyncio.timeout(LIMIT):
        return sum([len(events) async for events in call])


async def test_each_call_gets_only_its_own_events(client: InferenceClient) -> None:
    calls = [begin(client, str(number)) for number in range(1, 30)]
    assert await asyncio.gather(*map(read, calls)) == list(range(1, 30))


async def test_a_slow_reader_pauses_its_generation_and_loses_no_event(
    servicer: Servicer, client: InferenceClient
) -> None:
    call = begin(client, str(3 * WINDOW))
    assert await call.start(seconds=LIMIT)
    await until(lambda: servicer.produced == WINDOW + 1)
    assert await read(begin(client, "5")) == 5, "other calls are not delayed"
    assert servicer.produced == WINDOW + 1 + 5
    assert await read(call) == 3 * WINDOW


async def test_cancelling_a_call_ends_it_on_both_sides(servicer: Servicer, client: InferenceClient) -> None:
    call = begin(client, "waits")
    waiting = asyncio.create_task(call.start(seconds=None))
    await until(lambda: servicer.running == 1)
    call.cancel()
    with pytest.raises(CallCancelledError):
        await waiting
    await until(lambda: servicer.running == 0)
    call.cancel()


class Sink:
    """Takes the events for which `takes` is true, and writes them when it is flushed."""

    def __init__(self, takes: Callable[[Sequence[pb.Event]], bool] = lambda _: True) -> None:
        self.takes = takes
        self.taken: list[pb.Event] = []
        self.written: list[pb.Event] = []

    def take(self, events: Sequence[pb.Event]) -> bool:
        if not self.takes(events):
            return False
        self.taken.extend(events)
        return True

    def flush(self) -> None:
        self.written += self.taken[len(self.written) :]


class RecordingServicer(inference_service_pb2_grpc.InferenceServiceServicer):
    """Records the messages about calls, once it may read."""

    def __init__(self) -> None:
        self.may_read = asyncio.Event()
        self.received: list[tuple[int, str | None]] = []

    async def GenerateMany(self, requests: Any, context: Any) -> AsyncIterator[pb.GenerateManyResponse]:  # noqa: N802
        await self.may_read.wait()
        async for request in requests:
            self.received.append((request.call, request.WhichOneof("action")))
        yield pb.GenerateManyResponse()


class SteppingRpc:
    """A stream to a worker, which sends a token for each of some calls in each step, and reads credit."""

    def __init__(self, calls: int, steps: int, *, accepts_credits: bool) -> None:
        numbers = range(1, calls + 1)
        step = pb.GenerateManyResponse(outputs=[token_of(number) for number in numbers])
        self.messages = [pb.GenerateManyResponse(accepts_credits=accepts_credits), *([step] * steps)]
        self.all_read = asyncio.Event()
        self.received: list[pb.GenerateManyRequest] = []

    async def read(self) -> pb.GenerateManyResponse:
        if not self.messages:
            self.all_read.set()
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        return self.messages.pop(0)

    async def write(self, request: pb.GenerateManyRequest) -> None:
        self.received.append(request)

    def cancel(self) -> None: ...


def token_of(call: int) -> pb.CallOutput:
    return pb.CallOutput(call=call, events=[pb.Event(delta=pb.Delta(content="x", token_count=1))])


@pytest.mark.parametrize("accepts_credits", [True, False])
async def test_calls_are_acknowledged_together_if_the_worker_reads_that(accepts_credits: bool) -> None:
    calls, steps = 20, 3 * WINDOW
    rpc: Any = SteppingRpc(calls, steps, accepts_credits=accepts_credits)
    multiplexer = CallMultiplexer(rpc)
    readers = []
    for _ in range(calls):
        call = multiplexer.call(pb.StartCall(), idle_seconds=LIMIT)
        call.offer_to(Sink())
        readers.append(asyncio.ensure_future(read(call)))
    async with asyncio.timeout(LIMIT):
        await rpc.all_read.wait()
    await multiplexer.close()
    await asyncio.gather(*readers, return_exceptions=True)
    credit = dict.fromkeys(range(1, calls + 1), 0)
    messages = [request for request in rpc.received if not request.HasField("start")]
    for request in messages:
        columns = request.credits if accepts_credits else pb.Credits(calls=[request.call], credits=[request.credit])
        for number, outputs in zip(columns.calls, columns.credits, strict=True):
            credit[number] += outputs
    assert all(steps - WINDOW < outputs <= steps for outputs in credit.values()), "no engine had to pause"
    if accepts_credits:
        assert len(messages) <= steps / (WINDOW // 2)
    else:
        assert len(messages) >= calls * (steps / (WINDOW // 2) - 1)


async def test_more_calls_than_a_message_acknowledges_are_acknowledged_in_several(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call_multiplexer, "MOST_ACKNOWLEDGED", 3)
    calls = 20
    rpc: Any = SteppingRpc(calls, WINDOW, accepts_credits=True)
    multiplexer = CallMultiplexer(rpc)
    started = [multiplexer.call(pb.StartCall(), idle_seconds=LIMIT) for _ in range(calls)]
    async with asyncio.timeout(LIMIT):
        await rpc.all_read.wait()
    # Each has a whole window to read, and gets no more outputs before it is acknowledged.
    readers = [asyncio.ensure_future(read(call)) for call in started]

    def acknowledged() -> list[int]:
        return sorted(call for request in rpc.received for call in request.credits.calls)

    await until(lambda: acknowledged() == list(range(1, calls + 1)))
    assert max(len(request.credits.calls) for request in rpc.received) == 3
    await multiplexer.close()
    await asyncio.gather(*readers, return_exceptions=True)


async def test_calls_cancelled_before_a_worker_reads_are_never_sent_to_it() -> None:
    servicer = RecordingServicer()
    async with serving(servicer) as (_, port), client_of(port) as client:
        large = pb.GenerateRequest(model="m", prompt="a" * 3_000_000)
        calls = [client.generate(large, request_id="r") for _ in range(50)]
        # Long enough to fill the buffers between the two processes.
        await asyncio.sleep(0.1)
        for call in calls[:-1]:
            call.cancel()
        servicer.may_read.set()
        await until(lambda: (50, "start") in servicer.received)
        calls[-1].cancel()
        await until(lambda: (50, "cancel") in servicer.received)
    started = {call for call, action in servicer.received if action == "start"}
    assert started == {call for call, action in servicer.received if action == "cancel"}
    assert len(started) < 10


async def test_a_call_of_a_silent_worker_times_out(servicer: Servicer, client: InferenceClient) -> None:
    with pytest.raises(SilentWorkerError):
        await read(begin(client, "waits"))
    await until(lambda: servicer.running == 0)


class HeartbeatServicer(inference_service_pb2_grpc.InferenceServiceServicer):
    """Sends heartbeats for its call, and nothing else."""

    async def GenerateMany(self, requests: Any, context: Any) -> AsyncIterator[pb.GenerateManyResponse]:  # noqa: N802
        request = await anext(requests)
        while True:
            yield pb.GenerateManyResponse(outputs=[pb.CallOutput(call=request.call)])
            await asyncio.sleep(IDLE_SECONDS / 20)


@contextmanager
def worker_in_a_thread() -> Iterator[int]:
    """Serve a HeartbeatServicer on an event loop of its own. Yields its port."""
    ports: Future[int] = Future()
    stop = threading.Event()

    async def serve() -> None:
        async with serving(HeartbeatServicer()) as (_, port):
            ports.set_result(port)
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield ports.result(LIMIT)
    finally:
        stop.set()
        thread.join(LIMIT)


async def test_heartbeats_that_arrive_while_the_event_loop_is_blocked_count() -> None:
    with worker_in_a_thread() as port:
        async with client_of(port) as client:
            call = begin(client, "m")
            assert not await call.start(seconds=IDLE_SECONDS / 4)
            waiting = asyncio.create_task(call.start(seconds=None))
            for _ in range(5):
                await asyncio.sleep(IDLE_SECONDS / 20)
                time.sleep(IDLE_SECONDS * 2)  # noqa: ASYNC251  # the loop is to be blocked
            assert not waiting.done()
            call.cancel()
            with pytest.raises(CallCancelledError):
                await waiting


async def test_messages_for_one_call_count_as_heartbeats_of_all_calls(
    servicer: Servicer, client: InferenceClient
) -> None:
    late, busy = begin(client, "waits"), begin(client, "steps")
    loop = asyncio.get_running_loop()

    async def step() -> None:
        while loop.time() < began + 4 * IDLE_SECONDS:
            servicer.step += 1
            await asyncio.sleep(IDLE_SECONDS / 10)

    began = loop.time()
    reading, waiting = asyncio.create_task(read(busy)), asyncio.create_task(read(late))
    await step()
    assert not waiting.done()
    with pytest.raises(SilentWorkerError):
        await waiting
    with pytest.raises(SilentWorkerError):
        await reading


async def test_a_call_that_hangs_times_out_although_its_worker_sends_for_others(
    servicer: Servicer, client: InferenceClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idle_timer, "MOST_IDLE_TIMES", 2)
    hanging, busy = begin(client, "waits"), begin(client, "steps")
    # Its events are written without waking its reader.
    busy.offer_to(Sink())
    waiting, reading = asyncio.create_task(read(hanging)), asyncio.create_task(read(busy))
    async with asyncio.timeout(LIMIT):
        while not waiting.done():
            servicer.step += 1
            await asyncio.sleep(IDLE_SECONDS / 10)
    with pytest.raises(SilentWorkerError):
        await waiting
    for _ in range(30):
        servicer.step += 1
        await asyncio.sleep(IDLE_SECONDS / 10)
    assert not reading.done(), "a call that gets messages does not time out"
    busy.cancel()
    with pytest.raises(CallCancelledError):
        await reading


async def test_a_call_raises_the_failure_of_the_worker(client: InferenceClient) -> None:
    with pytest.raises(Failure) as caught:
        await begin(client, "fails").start(seconds=None)
    assert caught.value.message == Message("verbatim", text="the queue is full")
    assert (caught.value.reason, caught.value.retry_after) == (Reason.OVERLOADED, 2.0)


async def test_a_dead_worker_ends_all_calls_and_is_used_again_after_its_restart(servicer: Servicer) -> None:
    async with serving(servicer) as (server, port), client_of(port) as client:
        calls = [begin(client, "waits") for _ in range(3)]
        await until(lambda: servicer.running == 3)
        reading = [asyncio.create_task(read(call)) for call in calls]
        await server.stop(None)
        for task in reading:
            with pytest.raises(Failure) as caught:
                await task
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(Failure):
            await read(begin(client, "1"))

        async def responds() -> bool:
            try:
                assert await read(begin(client, "7")) == 7
            except Failure:
                return False
            return True

        async with serving(servicer, port):
            await until(responds, LIMIT, "the worker responds again")


async def test_events_that_a_sink_takes_are_not_read(servicer: Servicer, client: InferenceClient) -> None:
    call = begin(client, "waits")
    sink = Sink(lambda _: len(sink.taken) < 10)
    call.offer_to(sink)
    reading = asyncio.create_task(read(call))
    await until(lambda: servicer.running == 1)
    servicer.going.set()
    call_of_500 = begin(client, "500")
    assert await read(call_of_500) == 500, "an endless generation does not delay others"
    await until(lambda: len(sink.written) == 10)
    assert sink.written == sink.taken
    call.cancel()
    with pytest.raises(CallCancelledError):
        await reading


async def test_a_sink_can_take_all_of_a_long_generation(client: InferenceClient) -> None:
    sink = Sink()
    call = begin(client, str(5 * WINDOW))
    call.offer_to(sink)
    assert await read(call) + len(sink.written) == 5 * WINDOW
    assert sink.written


async def test_the_order_is_kept_if_a_sink_takes_only_some_events(client: InferenceClient) -> None:
    sink = Sink(lambda events: events[0].delta.token_count % 5 != 0)
    call = begin(client, "1000")
    call.offer_to(sink)
    async with asyncio.timeout(LIMIT):
        async for events in call:
            assert sink.written == sink.taken, "events that were taken are written first"
            sink.taken += events
            sink.written += events
    assert [event.delta.token_count for event in sink.written] == list(range(1000))


class FaultyTake(Sink):
    def take(self, events: Sequence[pb.Event]) -> bool:
        raise RuntimeError("a bug")


class FaultyFlush(Sink):
    def flush(self) -> None:
        raise RuntimeError("a bug")


@pytest.mark.parametrize("sink", [FaultyTake(), FaultyFlush()], ids=["taking", "writing"])
async def test_an_exception_in_a_sink_ends_only_its_call(client: InferenceClient, sink: EventSink) -> None:
    call = begin(client, "20000")
    call.offer_to(sink)
    with pytest.raises(RuntimeError, match="a bug"):
        await read(call)
    assert await read(begin(client, "8")) == 8


async def test_a_request_that_is_too_large_is_rejected_and_ends_no_other_call(
    servicer: Servicer, client: InferenceClient
) -> None:
    waiting = begin(client, "waits")
    await until(lambda: servicer.running == 1)
    large = pb.GenerateRequest(model="1", prompt="a" * (19 * 2**20))
    image = large.messages.add(role=pb.ROLE_USER).content.add().image
    image.data = b"a" * (24 * 2**20)
    with pytest.raises(ApiError) as caught:
        client.generate(large, request_id="r")
    assert caught.value.message == Message("request_too_large_for_worker", value=45088798, limit=33488896)
    assert (caught.value.status, caught.value.code) == (413, "request_too_large")
    with pytest.raises(ApiError) as caught:
        await client.render(large, request_id="r")
    assert caught.value.message == Message("request_too_large_for_worker", value=45088798, limit=33488896)
    servicer.going.set()
    reading = asyncio.create_task(read(waiting))
    assert await read(begin(client, "3")) == 3
    assert not reading.done()
    waiting.cancel()
    with pytest.raises(CallCancelledError):
        await reading


@pytest.mark.parametrize("size", [0, 1])
async def test_the_largest_request_is_accepted(size: int) -> None:
    async with worker_with_message_limits() as (servicer, port), client_of(port, idle_seconds=LIMIT) as client:
        request = pb.GenerateRequest(model="2", prompt="a")
        capacity = MAX_MESSAGE_BYTES - ENVELOPE_BYTES - request.ByteSize() - 2
        request.prompt = "a" * (capacity + size)
        if size:
            with pytest.raises(ApiError):
                client.generate(request, request_id="r" * 128)
        else:
            assert await read(client.generate(request, request_id="r" * 128)) == 2
        assert servicer.running == 0


async def test_a_message_that_is_too_large_ends_only_its_own_stream() -> None:
    async with worker_with_message_limits() as (servicer, port), client_of(port, idle_seconds=LIMIT) as client:
        waiting = begin(client, "waits")
        await until(lambda: servicer.running == 1)
        unlimited = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", unlimited) as channel:
            other = inference_service_pb2_grpc.InferenceServiceStub(channel).GenerateMany()
            request = pb.GenerateRequest(model="1", prompt="a" * (MAX_MESSAGE_BYTES + 1))
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await other.write(pb.GenerateManyRequest(call=1, start=pb.StartCall(request=request)))
                await other.read()
            assert await other.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        servicer.going.set()
        assert await read(begin(client, "3")) == 3
        assert servicer.running == 1
        waiting.cancel()


@asynccontextmanager
async def worker_with_message_limits() -> AsyncIterator[tuple[Servicer, int]]:
    """Serve with the message limits of a real worker."""
    servicer, server = Servicer(), WorkerServer("test")
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server.grpc)
    port = server.grpc.add_insecure_port("127.0.0.1:0")
    await server.grpc.start()
    try:
        yield servicer, port
    finally:
        await server.grpc.stop(None)
