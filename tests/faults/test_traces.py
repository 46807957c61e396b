"""One connected trace for each request, from the client's `traceparent` to the engine, in a collector's stand-in."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from tests.faults.chat_stream import MODEL, body, read
from tests.faults.everything import Everything, running_everything, tracebacks_in
from tests.faults.recordings import FAILING, SLOW
from tests.support.otlp_receiver import OtlpReceiver, ReceivedSpan, receiving
from tests.support.triton_servers import EMBEDDING_MODEL
from tests.support.waits import until

GENERATE, EMBED = "vilix.inference.v1.InferenceService/Generate", "vilix.embeddings.v1.EmbeddingsService/Embed"
CHAT_ROUTE = "POST /api/chat/completions"
STAGES = ["authenticate", "read", "admit", "serve"]
SLOW_SECONDS = 1.0
QUESTION = "what-nobody-should-see"


@pytest.fixture(scope="module")
def collector() -> Iterator[OtlpReceiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture(scope="module")
async def everything(collector: OtlpReceiver, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Everything]:
    """Run all parts: the workers export over gRPC, and the gateway over HTTP. No trace is sampled by its ratio."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.grpc_endpoint)
        environment.setenv("OTEL_TRACES_SAMPLER_ARG", "0")
        environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        environment.setenv("VILIX_TRACES_SLOW_SECONDS", str(SLOW_SECONDS))
        settings = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.http_endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }
        async with running_everything(tmp_path_factory.mktemp("traces"), gateway_settings=settings) as running:
            yield running


class Caller:
    """A span of a client."""

    def __init__(self, *, is_sampled: bool = True) -> None:
        self.trace_id, self.span_id = secrets.token_hex(16), secrets.token_hex(8)
        flags = "01" if is_sampled else "00"
        self.request_id = f"req-{self.span_id}"
        self.headers = {
            "traceparent": f"00-{self.trace_id}-{self.span_id}-{flags}",
            "tracestate": "vendor=1",
            "x-request-id": self.request_id,
        }


async def received(collector: OtlpReceiver, caller: Caller, count: int) -> list[ReceivedSpan]:
    """Wait for the spans of a trace."""
    await until(lambda: len(collector.spans(caller.trace_id)) >= count, what=f"{count} spans of a trace arrive")
    spans = collector.spans(caller.trace_id)
    assert len(spans) == count, [span.name for span in spans]
    return spans


def one(spans: list[ReceivedSpan], name: str, kind: str) -> ReceivedSpan:
    (span,) = [span for span in spans if (span.name, span.kind) == (name, kind)]
    return span


def check_connected(spans: list[ReceivedSpan], caller: Caller, engine: str, method: str) -> None:
    """Check that the spans are one tree below the caller's span, from the gateway to the engine."""
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans)
    (root,) = [span for span in spans if span.parent_id not in by_id]
    assert (root.parent_id, root.kind, root.service) == (caller.span_id, "server", "vilix-gateway")
    chain = [one(spans, engine, "client")]
    while chain[-1] is not root:
        chain.append(by_id[chain[-1].parent_id])
    service = "vilix-inference" if method == GENERATE else "vilix-embeddings"
    assert [(span.service, span.name, span.kind) for span in chain] == [
        (service, engine, "client"),
        (service, method, "server"),
        ("vilix-gateway", method, "client"),
        ("vilix-gateway", root.name, "server"),
    ]
    for span in spans:
        assert span.state == "vendor=1"
        assert root.begin <= span.begin <= span.end
    assert {span.attributes["vilix.request.id"] for span in chain} == {caller.request_id}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_chat_is_one_trace(everything: Everything, collector: OtlpReceiver, stream: bool) -> None:
    caller, client = Caller(), everything.system.client()
    content = body(stream=stream, max_tokens=50, messages=[{"role": "user", "content": QUESTION}])
    response = await client.post("/chat/completions", json=content, headers=caller.headers)
    assert response.status_code == 200
    version, trace_id, _, flags = response.headers["traceresponse"].split("-")
    assert (version, trace_id, flags) == ("00", caller.trace_id, "01")
    spans = await received(collector, caller, 1 + len(STAGES) + 1 + 3)
    check_connected(spans, caller, f"chat {MODEL}", GENERATE)

    root = one(spans, CHAT_ROUTE, "server")
    assert response.headers["traceresponse"].split("-")[2] == root.span_id
    expected = {
        "http.request.method": "POST",
        "http.route": "/api/chat/completions",
        "url.path": "/api/chat/completions",
        "http.response.status_code": 200,
        "gen_ai.request.model": MODEL,
        "gen_ai.request.stream": stream,
        "vilix.key.id": everything.system.key.id,
        "vilix.outcome": "complete",
    }
    assert expected.items() <= root.attributes.items()
    assert [span.name for span in spans if span.parent_id == root.span_id and span.kind == "internal"] == STAGES
    call = one(spans, GENERATE, "client")
    assert f"{call.attributes['server.address']}:{call.attributes['server.port']}" == everything.system.worker.address
    assert (call.attributes["rpc.system.name"], call.attributes["rpc.response.status_code"]) == ("grpc", "OK")
    assert call.events == ["first token"]
    worker = one(spans, GENERATE, "server")
    assert [span.name for span in spans if span.parent_id == worker.span_id] == ["render", f"chat {MODEL}"]
    engine = one(spans, f"chat {MODEL}", "client")
    described = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vilix",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.output_tokens": 6,
        "gen_ai.usage.cache_read.input_tokens": 0,
    }
    assert described.items() <= engine.attributes.items()
    assert engine.attributes["gen_ai.usage.input_tokens"] > 0
    assert engine.attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert {"vilix.engine.queue_seconds", "vilix.engine.prefill_seconds"} <= engine.attributes.keys()
    assert engine.events == ["first token"]
    assert not any(span.is_error for span in spans)
    for process in (everything.system.gateway, everything.system.worker):
        lines = [json.loads(line) for line in process.log.read_text().splitlines()]
        assert {line["trace_id"] for line in lines if line.get("request_id") == caller.request_id} == {caller.trace_id}


async def test_embeddings_are_one_trace(everything: Everything, collector: OtlpReceiver) -> None:
    caller, client = Caller(), everything.system.client()
    content = {"model": EMBEDDING_MODEL, "input": [QUESTION, "b"]}
    response = await client.post("/embeddings", json=content, headers=caller.headers)
    spans = await received(collector, caller, 1 + len(STAGES) + 1 + 3)
    check_connected(spans, caller, f"embeddings {EMBEDDING_MODEL}", EMBED)
    engine = one(spans, f"embeddings {EMBEDDING_MODEL}", "client")
    assert engine.attributes["gen_ai.operation.name"] == "embeddings"
    assert engine.attributes["gen_ai.usage.input_tokens"] == response.json()["usage"]["prompt_tokens"]
    assert engine.attributes["vilix.texts"] == 2


async def test_a_failure_of_the_engine_is_traced_though_nobody_sampled_it(
    everything: Everything, collector: OtlpReceiver
) -> None:
    caller, client = Caller(is_sampled=False), everything.system.client()
    response = await client.post("/chat/completions", json=body(FAILING), headers=caller.headers)
    assert '"error"' in response.text
    spans = await received(collector, caller, 1 + len(STAGES) + 1 + 3)
    check_connected(spans, caller, f"chat {MODEL}", GENERATE)
    failed = {(span.name, span.kind): span.attributes["error.type"] for span in spans if span.is_error}
    assert failed == {
        (CHAT_ROUTE, "server"): "INTERNAL",
        (GENERATE, "client"): "INTERNAL",
        (GENERATE, "server"): "ENGINE_FAILED",
        (f"chat {MODEL}", "client"): "ENGINE_FAILED",
    }
    # The ids of requests in Triton begin with that of the caller's request.
    triton = everything.system.triton.log.read_text()
    assert f"request '{caller.request_id}.0." in triton
    assert "out of luck" in triton


async def test_a_slow_request_is_traced_and_a_fast_one_is_not(everything: Everything, collector: OtlpReceiver) -> None:
    client = everything.system.client()
    fast, slow = Caller(is_sampled=False), Caller(is_sampled=False)
    await client.post("/chat/completions", json=body(stream=False), headers=fast.headers)
    await client.post("/chat/completions", json=body(SLOW, stream=False), headers=slow.headers)
    spans = await received(collector, slow, 1 + len(STAGES) + 1 + 3)
    check_connected(spans, slow, f"chat {MODEL}", GENERATE)
    lines = [json.loads(line) for line in everything.system.gateway.log.read_text().splitlines()]
    (duration,) = [line["duration_ms"] for line in lines if line.get("request_id") == fast.request_id]
    # On a machine that others keep busy, it may have been slow, too.
    assert bool(collector.spans(fast.trace_id)) == (duration >= SLOW_SECONDS * 1000)


async def test_a_request_without_a_context_begins_a_trace(everything: Everything, collector: OtlpReceiver) -> None:
    client = everything.system.client()
    headers = {"traceparent": "00-not-a-context-01"}
    response = await client.post("/chat/completions", json=body(SLOW, stream=False), headers=headers)
    trace_id = response.headers["traceresponse"].split("-")[1]
    await until(lambda: len(collector.spans(trace_id)) == 9, what="the trace arrives")
    assert one(collector.spans(trace_id), CHAT_ROUTE, "server").parent_id == ""


async def test_who_has_no_key_does_not_decide_what_is_traced(everything: Everything, collector: OtlpReceiver) -> None:
    client, stranger, caller = everything.system.client(), Caller(), Caller()
    headers = {**stranger.headers, "authorization": "Bearer vlx_nobody"}
    assert (await client.post("/chat/completions", json=body(), headers=headers)).status_code == 401
    await client.post("/chat/completions", json=body(), headers=caller.headers)
    await received(collector, caller, 9)
    assert collector.spans(stranger.trace_id) == []


async def test_a_grpc_caller_sends_its_context_in_metadata(everything: Everything, collector: OtlpReceiver) -> None:
    caller = Caller()
    request = pb.GenerateRequest(model=MODEL, prompt="Hello")
    async with grpc.aio.insecure_channel(everything.system.worker.address) as channel:
        stub: Any = InferenceServiceStub(channel)
        async for _ in stub.Generate(request, metadata=tuple(caller.headers.items())):
            pass
    worker, *below = await received(collector, caller, 3)
    assert (worker.parent_id, worker.kind, worker.name) == (caller.span_id, "server", GENERATE)
    assert {span.parent_id for span in below} == {worker.span_id}
    assert below[-1].attributes["gen_ai.operation.name"] == "text_completion"


async def test_no_span_has_content_or_keys(everything: Everything, collector: OtlpReceiver) -> None:
    caller, client = Caller(), everything.system.client()
    key = everything.system.api_key
    messages = [{"role": "user", "content": QUESTION}]
    content = {"model": f"{key}-x", "messages": messages}
    await client.post("/chat/completions", json=content, headers=caller.headers)
    await client.post(f"/chat/{key}", json=content, headers=Caller().headers)
    await received(collector, caller, 3)
    everything_received = b"".join(collector.requests)
    assert caller.request_id.encode() in everything_received
    assert QUESTION.encode() not in everything_received
    assert b" one two three" not in everything_received
    assert key.encode() not in everything_received
    assert b"vlx_nobody" not in everything_received


async def test_requests_are_served_while_the_collector_does_not_answer(
    everything: Everything, collector: OtlpReceiver
) -> None:
    client = everything.system.client()
    collector.waiting.clear()
    collector.gate.clear()
    try:
        for _ in range(20):
            assert (await read(client, "")).is_whole
            caller = Caller()
            response = await client.post("/chat/completions", json=body(stream=False), headers=caller.headers)
            assert response.status_code == 200
        await until(collector.waiting.is_set, what="the gateway exports")
    finally:
        collector.gate.set()
    await until(everything.system.is_idle)
    for log in everything.logs.values():
        assert list(tracebacks_in(log.read_text(errors="replace"))) == []
