"""The spans of a request, made of its record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.types import Receive, Scope, Send
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.edge.access import Access, publish
from services.gateway.edge.content_attributes import MOST_MESSAGES, MOST_TEXT, content_attributes
from services.gateway.edge.exchange import Exchange
from services.gateway.operations.detached import detached
from services.gateway.record import Outcome, RequestRecord
from services.gateway.transcript import Transcript
from services.runtime.tracing.local_trace import Tracer
from services.runtime.tracing.sampling import Sampling
from services.runtime.tracing.span import Span, SpanKind
from services.runtime.tracing.trace_context import CURRENT

CALLER = (b"traceparent", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01")
METHOD = "vilix.inference.v1.InferenceService/Generate"


class Exported:
    """Collects what is exported."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def __call__(self, spans: Sequence[Span]) -> None:
        self.spans += spans

    def one(self, name: str) -> Span:
        (span,) = [span for span in self.spans if span.name == name]
        return span


@pytest.fixture
def exported() -> Exported:
    return Exported()


async def serve(
    exported: Exported,
    handle: Any = None,
    *,
    path: str = "/api/chat/completions",
    headers: Sequence[tuple[bytes, bytes]] = (),
    ratio: float = 1.0,
) -> dict[bytes, bytes]:
    """Serve a request whose record `handle` fills, and return the headers of the response."""
    sent: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        record: RequestRecord = scope["state"]["record"]
        status = 200 if handle is None else handle(record, scope)
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError

    scope = {"type": "http", "method": "POST", "path": path, "scheme": "https", "headers": list(headers)}
    await Access(app, origins=[], tracer=Tracer(Sampling(ratio), 30.0, exported))(scope, receive, send)
    return dict(sent[0]["headers"])


async def test_stages_follow_each_other_to_the_end(exported: Exported) -> None:
    def handle(record: RequestRecord, _: Scope) -> int:
        record.enter("authenticate")
        record.enter("read")
        return 200

    await serve(exported, handle)
    root, first, last = exported.one("POST"), exported.one("authenticate"), exported.one("read")
    assert [span.kind for span in exported.spans] == [SpanKind.SERVER, SpanKind.INTERNAL, SpanKind.INTERNAL]
    assert root.begin <= first.begin <= first.end == last.begin <= last.end <= root.end
    assert {span.parent for span in (first, last)} == {root.context}
    assert root.attributes["url.scheme"] == "https"


@pytest.mark.parametrize("path", ["/readyz", "/healthz", "/v1/health", "/ping"])
async def test_a_probe_is_not_traced(exported: Exported, path: str) -> None:
    headers = await serve(exported, path=path)
    assert exported.spans == []
    assert b"traceresponse" not in headers


async def test_each_call_of_a_worker_is_a_span(exported: Exported) -> None:
    def handle(record: RequestRecord, _: Scope) -> int:
        assert record.trace is not None
        record.trace.call("10.0.0.1:9001", METHOD).end("UNAVAILABLE")
        record.trace.call("[::1]:9001", METHOD).end(None)
        record.outcome = Outcome.COMPLETE
        return 200

    await serve(exported, handle)
    root, failed, second = exported.spans
    assert (root.error, failed.error, second.error) == (None, "UNAVAILABLE", None)
    assert (failed.attributes["server.address"], failed.attributes["server.port"]) == ("10.0.0.1", 9001)
    assert second.attributes["server.address"] == "[::1]"
    assert second.attributes["rpc.response.status_code"] == "OK"
    assert failed.context.span_id != second.context.span_id


@pytest.mark.parametrize(
    ("status", "outcome", "worker_status", "error"),
    [
        (200, Outcome.COMPLETE, None, None),
        (200, Outcome.BUDGET, None, None),
        (200, Outcome.CLIENT_GONE, None, None),
        (404, Outcome.REJECTED, "NOT_FOUND", None),
        (429, None, None, None),
        (503, None, None, "503"),
        (500, Outcome.BROKEN_OFF, "INTERNAL", "INTERNAL"),
        (200, Outcome.BROKEN_OFF, "INTERNAL", "INTERNAL"),
        (200, Outcome.SILENT, None, "silent"),
        (200, Outcome.DRAINED, None, "drained"),
    ],
)
async def test_only_faults_of_the_server_are_errors_and_exported_always(
    exported: Exported, status: int, outcome: Outcome | None, worker_status: str | None, error: str | None
) -> None:
    def handle(record: RequestRecord, _: Scope) -> int:
        record.outcome, record.worker_status = outcome, worker_status
        return status

    await serve(exported, handle, ratio=0.0)
    assert [span.error for span in exported.spans] == ([] if error is None else [error])


async def test_background_work_is_a_part_of_the_trace_that_began_it(exported: Exported) -> None:
    def handle(record: RequestRecord, scope: Scope) -> int:
        work = detached(Exchange(scope, None, None)).record  # type: ignore[arg-type]  # nobody reads or writes
        assert record.trace is not None
        assert work.trace is not None
        assert work.trace.parent == record.trace.context
        publish(work)
        return 200

    headers = await serve(exported, handle, headers=[CALLER])
    assert headers[b"traceresponse"].startswith(b"00-" + b"a" * 32)
    work, request = exported.one("background"), exported.one("POST")
    assert (work.kind, work.parent, work.has_remote_parent) == (SpanKind.INTERNAL, request.context, False)
    assert "http.route" not in work.attributes
    assert request.has_remote_parent
    assert {span.context.trace_id for span in (work, request)} == {"a" * 32}


async def test_a_response_in_the_background_counts_once_as_an_outcome(exported: Exported) -> None:
    def handle(record: RequestRecord, scope: Scope) -> int:
        record.note_model("in-the-background", is_known=True)
        work = detached(Exchange(scope, None, None)).record  # type: ignore[arg-type]  # nobody reads or writes
        work.outcome = Outcome.FAILED
        publish(work)
        return 200

    await serve(exported, handle)
    counted = {
        outcome: REGISTRY.get_sample_value(
            "vilix_request_outcomes_total", {"model": "in-the-background", "outcome": outcome}
        )
        for outcome in ("complete", "failed")
    }
    assert counted == {"complete": None, "failed": 1.0}


async def test_a_state_in_several_headers_is_joined(exported: Exported) -> None:
    def handle(record: RequestRecord, _: Scope) -> int:
        assert record.trace is not None
        assert CURRENT.get() == record.trace.context
        assert record.trace.context.state == "a=1,b=2"
        return 200

    assert await serve(exported, handle, headers=[CALLER, (b"tracestate", b"a=1"), (b"tracestate", b"b=2")])


async def test_no_attribute_has_a_key_or_is_long(exported: Exported) -> None:
    secret = "vlx_0123456789abcdef"

    def handle(record: RequestRecord, _: Scope) -> int:
        record.note_model(f"{secret}-{'m' * 1000}", is_known=False)
        return 404

    await serve(exported, handle, path=f"/{secret}/{'p' * 1000}")
    (root,) = exported.spans
    values = [str(value) for value in (root.name, *root.attributes.values())]
    assert not [value for value in values if secret in value or len(value) > 256]


def test_content_has_the_form_of_the_conventions() -> None:
    image = pb.ContentPart(image=pb.Image(data=b"picture"))
    request = pb.GenerateRequest(
        messages=[
            pb.Message(role=pb.ROLE_SYSTEM, content=[pb.ContentPart(text="Be brief.")]),
            pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="سلام"), image]),
        ]
    )
    transcript = Transcript(request)
    deltas = [pb.Delta(reasoning_content="Hm."), pb.Delta(content="Hel"), pb.Delta(content="lo")]
    call = pb.ToolCallFragment(id="call_1", name="f", arguments_json="{}")
    transcript.add([pb.Event(delta=delta) for delta in (*deltas, pb.Delta(tool_call=call))])
    attributes = content_attributes(transcript)
    assert json.loads(str(attributes["gen_ai.input.messages"])) == [
        {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
        {"role": "user", "parts": [{"type": "text", "content": "سلام"}, {"type": "image"}]},
    ]
    assert json.loads(str(attributes["gen_ai.output.messages"])) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Hm."},
                {"type": "text", "content": "Hello"},
                {"type": "tool_call", "id": "call_1", "name": "f", "arguments": "{}"},
            ],
        }
    ]


def test_a_prompt_without_messages_is_one_message() -> None:
    attributes = content_attributes(Transcript(pb.GenerateRequest(prompt="Once")))
    assert json.loads(str(attributes["gen_ai.input.messages"])) == [
        {"role": "user", "parts": [{"type": "text", "content": "Once"}]}
    ]


def test_long_content_is_cut() -> None:
    messages = [pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text=f"{n}" * 10_000)]) for n in range(10)]
    text = str(content_attributes(Transcript(pb.GenerateRequest(messages=messages)))["gen_ai.input.messages"])
    kept = json.loads(text)
    assert len(text) <= MOST_MESSAGES + 100
    assert [message["parts"][0]["content"][0] for message in kept] == ["7", "8", "9"]
    assert {len(message["parts"][0]["content"]) for message in kept} == {MOST_TEXT}


def test_content_has_no_keys() -> None:
    secret = "vlx_0123456789abcdef"
    called = pb.ToolCall(id=secret, name="f", arguments_json=json.dumps({"key": secret}))
    message = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text=f"my\n{secret}\nkey")], tool_calls=[called])
    transcript = Transcript(pb.GenerateRequest(messages=[message]))
    transcript.add([pb.Event(delta=pb.Delta(content=secret, reasoning_content=secret))])
    attributes = content_attributes(transcript)
    assert secret not in str(attributes)
    assert json.loads(str(attributes["gen_ai.input.messages"]))[0]["parts"][0]["content"] == "my\nvlx_…\nkey"


@pytest.mark.parametrize(("text", "kept"), [("a" * MOST_TEXT, "a" * MOST_TEXT), ("\0" * MOST_TEXT, "…")])
def test_a_newest_message_that_is_too_long_is_cut(text: str, kept: str) -> None:
    old = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="old")])
    newest = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text=text)] * 5)
    text = str(content_attributes(Transcript(pb.GenerateRequest(messages=[old, newest])))["gen_ai.input.messages"])
    (message,) = json.loads(text)
    assert len(text) <= MOST_MESSAGES + 100
    assert message["role"] == "user"
    assert {part["content"] for part in message["parts"]} == {kept}
