"""A dialect is enough to serve an API that differs from OpenAI's in everything that a dialect decides."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, Final

import httpx
import pytest
from redis.asyncio import Redis
from starlette.applications import Starlette
from starlette.routing import Route
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.credential import Credential, KeyHeader
from services.gateway.dialects import sse
from services.gateway.dialects.collector import ResponseCollector
from services.gateway.dialects.dialect import ErrorReply, GenerateCall, ReadOptions, RenderedPrompt, ResponseHead
from services.gateway.dialects.error_text import MESSAGE_ID_HEADER, ErrorText, error_text
from services.gateway.dialects.ignored_fields import ignored_fields
from services.gateway.dialects.json_model import RequestModel, read_model
from services.gateway.dialects.retry_headers import retry_headers
from services.gateway.edge.access import Access
from services.gateway.endpoints.post import Post
from services.gateway.errors import ApiError
from services.gateway.limit_status import RateLimits, SpentBudget
from services.gateway.operations.generate import GenerateEndpoint
from services.gateway.operations.inference_parts import inference_parts
from services.gateway.settings import GatewaySettings
from services.gateway.tenancy import keys
from services.gateway.tenancy.limits import Limits
from services.gateway.wiring import connected
from services.runtime.failure import Failure, Reason, invalid
from services.runtime.messages.message import Message
from tests.support.scripted_worker import MODEL, ScriptedWorker, content, finish, started, usage
from tests.support.waits import until

URL = "/messages"
KEY_HEADER = KeyHeader("x-api-key")


class MessagesRequest(RequestModel):
    model: str
    text: str
    stream: bool | None = False


class MessagesCall(GenerateCall):
    def field_name(self, field: str) -> str:
        return {"sampling.max_tokens": "limit"}.get(field, field)


class MessagesStream:
    """Encodes named events. Before the first one, only comments may be sent."""

    def __init__(self, head: ResponseHead) -> None:
        self._head: Final = head
        self._has_begun = False
        self._spent: SpentBudget | None = None

    def encode(self, events: Iterable[pb.Event]) -> bytes:
        return b"".join(self._encode(event) for event in events)

    def _encode(self, event: pb.Event) -> bytes:
        match event.WhichOneof("event"):
            case "started":
                self._has_begun = True
                return _event("message_start", id=self._head.id)
            case "delta":
                return _event("content_block_delta", text=event.delta.content)
            case "usage":
                return _event("message_delta", output_tokens=event.usage.completion_tokens, **_ended_by(self._spent))
        return b""

    def note(self, budget: SpentBudget) -> None:
        self._spent = budget

    def end(self) -> bytes:
        return _event("message_stop")

    def error(self, error: ApiError) -> bytes:
        message = error_text(error)
        event = _event("error", error=_error(error, message), request_id=self._head.request_id)
        return sse.comment(f"{MESSAGE_ID_HEADER} {message.message_id}") + event

    def keep_alive(self) -> bytes:
        return _event("ping") if self._has_begun else sse.comment("ping")

    def queued(self, position: int) -> bytes:
        return sse.comment(f"queued {position}")


class Messages:
    """A dialect in the manner of Anthropic's Messages."""

    id_prefix: Final = "msg_"

    def credential(self, headers: Mapping[str, str]) -> Credential:
        return KEY_HEADER.read(headers)

    def error(self, error: ApiError, *, request_id: str) -> ErrorReply:
        message = error_text(error)
        body = {"type": "error", "error": _error(error, message), "request_id": request_id}
        headers = {
            "content-type": "application/json",
            "request-id": request_id,
            **message.headers(),
            **retry_headers(error),
            **error.headers,
        }
        return ErrorReply(error.status, headers, json.dumps(body).encode())

    def response_headers(self, limits: RateLimits, *, request_id: str) -> dict[str, str]:
        return {"request-id": request_id}

    def read(self, body: Any, options: ReadOptions) -> MessagesCall:
        request = read_model(MessagesRequest, body)
        generate = pb.GenerateRequest(model=request.model, prompt=request.text)
        ignored = ignored_fields(request, body, strict=options.strict)
        return MessagesCall(generate=generate, stream=request.stream or False, ignored=ignored)

    def encoder(self, call: MessagesCall, head: ResponseHead) -> MessagesStream:
        return MessagesStream(head)

    def response(self, call: MessagesCall, head: ResponseHead, collected: ResponseCollector) -> bytes:
        choice = collected.choices[0]
        text, stop_sequence = "".join(choice.content), choice.stop_string or None
        fields = {"id": head.id, "text": text, "stop_sequence": stop_sequence, **_ended_by(collected.ended_by)}
        return json.dumps(fields).encode()

    def prompt(self, call: MessagesCall, prompt: RenderedPrompt) -> bytes:
        raise NotImplementedError


def _event(name: str, **fields: Any) -> bytes:
    return sse.event(json.dumps({"type": name, **fields}).encode(), name=name)


def _error(error: ApiError, message: ErrorText) -> dict[str, Any]:
    return {"type": error.kind.name.lower(), "message": message.text, "field": message.field}


def _ended_by(budget: SpentBudget | None) -> dict[str, str]:
    return {} if budget is None else {"ended_by": budget.limit}


@pytest.fixture
async def client(redis_url: str, api_key: str, worker: ScriptedWorker) -> AsyncIterator[httpx.AsyncClient]:
    settings = GatewaySettings(
        redis_url=redis_url,
        redis_timeout=5,
        inference_workers=worker.address,
        early_commit=0.2,
        keep_alive=0.1,
        reserve_output=4,
    )
    async with connected(settings) as gateway:
        endpoint = GenerateEndpoint(Messages(), inference_parts(gateway))
        app = Starlette(routes=[Route(URL, Post(endpoint, gateway))])
        transport = httpx.ASGITransport(Access(app, origins=["*"]))
        headers = {"x-api-key": api_key}
        async with httpx.AsyncClient(transport=transport, base_url="http://gateway", headers=headers) as client:
            await until(gateway.fleet.any_ready)
            yield client


@pytest.fixture
async def small_budget(redis_url: str) -> AsyncIterator[dict[str, str]]:
    """Yield the header of a key with a hundred tokens per day."""
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        key, secret = await keys.create(redis, name=f"small-{secrets.token_hex(4)}", limits=Limits(daily_tokens=100))
        yield {"x-api-key": secret}
        await keys.revoke(redis, key.id)


def body(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "text": "hi", **fields}


def names(text: str) -> list[str]:
    """Return the names of a stream's events."""
    events = [part for part in text.split("\n\n") if part and not part.startswith(":")]
    assert all(part.startswith("event: ") and part.count("\n") == 1 for part in events)
    return [part.partition("\n")[0].removeprefix("event: ") for part in events]


async def test_a_request_without_stream_gets_one_response(client: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started(), content("a")], [content("b")], [finish(), usage()]]
    response = await client.post(URL, json=body(zeta=1))
    assert response.status_code == 200
    assert response.json()["text"] == "ab"
    assert response.json()["id"].startswith("msg_")
    assert response.headers["x-ignored-params"] == "zeta"
    assert response.headers["request-id"] == response.headers["x-request-id"]


async def test_the_stop_string_that_ended_the_text_is_in_the_response(
    client: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    ended = pb.Event(finish=pb.Finish(reason=pb.FINISH_REASON_STOP, stop_string="###"))
    worker.script = [[started(), content("a")], [ended, usage()]]
    assert (await client.post(URL, json=body())).json()["stop_sequence"] == "###"


@pytest.mark.parametrize("key", ["", "vlx_mistyped"])
async def test_a_401_names_the_header_of_the_api(client: httpx.AsyncClient, key: str) -> None:
    response = await client.post(URL, json=body(), headers={"x-api-key": key})
    assert response.status_code == 401
    assert "`x-api-key: KEY`" in response.json()["error"]["message"]
    assert "www-authenticate" not in response.headers


async def test_a_page_of_another_origin_may_read_the_headers_of_the_api(
    client: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    worker.script = [[started(), content("a")], [finish(), usage()]]
    response = await client.post(URL, json=body(), headers={"origin": "https://example.org"})
    assert "request-id" in response.headers["access-control-expose-headers"].split(", ")


async def test_a_stream_has_its_own_events_and_its_own_end(client: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    begin, proceed = asyncio.Event(), asyncio.Event()
    worker.script = [begin, [started(), content("a")], proceed, [finish(), usage()]]
    answering = asyncio.create_task(client.post(URL, json=body(stream=True)))
    await asyncio.sleep(0.5)
    begin.set()
    await asyncio.sleep(0.5)
    proceed.set()
    text = (await answering).text
    assert text.index(": ping") < text.index("event: message_start") < text.index("event: ping")
    found = [name for name in names(text) if name != "ping"]
    assert found == ["message_start", "content_block_delta", "message_delta", "message_stop"]
    assert "[DONE]" not in text


@pytest.mark.parametrize(
    ("method", "headers", "fields", "expected"),
    [
        ("GET", {}, {}, (405, "invalid_request")),
        ("POST", {"x-api-key": ""}, {}, (401, "authentication")),
        ("POST", {}, {"model": "nothing"}, (404, "not_found")),
        ("POST", {}, {"text": 5}, (400, "invalid_request")),
    ],
)
async def test_every_error_has_the_format_of_the_api(
    client: httpx.AsyncClient, method: str, headers: dict[str, str], fields: dict[str, Any], expected: tuple[int, str]
) -> None:
    response = await client.request(method, URL, headers=headers, json=body(**fields))
    assert (response.status_code, response.json()["error"]["type"]) == expected
    assert response.json()["type"] == "error"
    assert response.json()["request_id"] == response.headers["x-request-id"]


async def test_a_workers_error_uses_the_dialects_field_names(client: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [invalid(Message("over_limit", field="sampling.max_tokens", value=3, limit=2))]
    error = (await client.post(URL, json=body())).json()["error"]
    message = Message("over_limit", field="limit", value=3, limit=2)
    assert (error["field"], error["message"]) == ("limit", str(message))


async def test_an_error_is_in_the_callers_language_and_has_its_id(
    client: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    worker.script = [invalid(Message("over_limit", field="sampling.max_tokens", value=3, limit=2))]
    response = await client.post(URL, json=body(), headers={"accept-language": "fa"})
    message = Message("over_limit", field="limit", value=3, limit=2)
    assert response.json()["error"]["message"] == message.text("fa") != message.text("en")
    assert response.headers["content-language"] == "fa"
    assert response.headers["x-error-message-id"] == "over_limit"


async def test_an_error_says_when_to_retry(client: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [Failure(Reason.OVERLOADED, Message.verbatim("busy"), retry_after=3)]
    response = await client.post(URL, json=body())
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")


async def test_the_error_event_of_a_stream_is_in_the_callers_language_and_follows_its_id(
    client: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    failure = Failure(Reason.MODEL_UNAVAILABLE, Message("worker_lost"))
    worker.script = [[started(), content("half")], failure]
    text = (await client.post(URL, json=body(stream=True), headers={"accept-language": "fa"})).text
    comment, event = text.rstrip("\n").split("\n\n")[-2:]
    assert comment == ": x-error-message-id worker_lost"
    assert json.loads(event.partition("data: ")[2])["error"]["message"] == Message("worker_lost").text("fa")


async def test_a_budget_ends_a_stream_and_is_named_in_its_last_events(
    client: httpx.AsyncClient, worker: ScriptedWorker, small_budget: dict[str, str]
) -> None:
    worker.script = [[started(), *[content("a")] * 100], asyncio.Event()]
    text = (await client.post(URL, json=body(stream=True), headers=small_budget)).text
    *_, delta, end = [part for part in text.split("\n\n") if part and "ping" not in part]
    assert json.loads(delta.partition("data: ")[2]) == {
        "type": "message_delta",
        "output_tokens": 100,
        "ended_by": "daily_tokens",
    }
    assert end.startswith("event: message_stop")


async def test_a_budget_ends_a_whole_response_and_is_named_in_it(
    client: httpx.AsyncClient, worker: ScriptedWorker, small_budget: dict[str, str]
) -> None:
    worker.script = [[started(), *[content("a")] * 100], asyncio.Event()]
    response = (await client.post(URL, json=body(), headers=small_budget)).json()
    assert (response["text"], response["ended_by"]) == ("a" * 100, "daily_tokens")


async def test_a_stream_that_breaks_off_ends_with_the_dialects_error_event(
    client: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    worker.script = [[started(), content("half")], Failure(Reason.ENGINE_FAILED, Message.verbatim("gone"))]
    text = (await client.post(URL, json=body(stream=True))).text
    assert names(text) == ["message_start", "content_block_delta", "error"]
