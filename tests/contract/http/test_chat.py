"""The bytes of POST /chat/completions."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import httpx
import openai
import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.runtime.failure import Failure, Reason, invalid
from services.runtime.messages.message import Message
from tests.support.gateway import EXPECTED
from tests.support.messages import message_id_of
from tests.support.scripted_worker import (
    MODEL,
    ScriptedWorker,
    content,
    finish,
    reasoning,
    scripted_worker,
    started,
    usage,
)
from tests.support.waits import until

URL = "/api/chat/completions"
ANSWER: list[Any] = [[started(), reasoning("فکر")], [content("سلام\u200cها")], [finish(), usage()]]


def body(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], **fields}


def events(text: str) -> list[str]:
    """Return the events of a stream, without comments."""
    parts = text.split("\n\n")
    assert parts.pop() == ""
    return [part for part in parts if not part.startswith(":")]


async def until_status(http: httpx.AsyncClient, status: int) -> None:
    async def has_status() -> bool:
        return (await http.post(URL, json=body())).status_code == status

    await until(has_status, what=f"the status is {status}")


async def test_a_token_without_text_does_not_end_a_stream(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    read = asyncio.Event()
    silent = pb.Event(delta=pb.Delta(token_count=1))
    worker.script = [[started()], [content("a")], read, [silent], [content("b")], [finish(), usage()]]
    text = ""
    async with http.stream("POST", URL, json=body(stream=True)) as response:
        async for piece in response.aiter_text():
            text += piece
            if '"content":"a"' in text:
                # The gateway is waiting for the next event, and writes it at once.
                read.set()
    assert [json.loads(event[6:])["choices"][0]["delta"].get("content") for event in events(text)[1:3]] == ["a", "b"]
    assert events(text)[-1] == "data: [DONE]"


async def test_a_request_without_stream_gets_one_json_object(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = ANSWER
    response = await http.post(URL, json=body())
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    completion = response.json()
    assert completion.pop("system_fingerprint").startswith("fp_")
    assert completion | {"id": "", "created": 0} == {
        "id": "",
        "object": "chat.completion",
        "created": 0,
        "model": MODEL,
        "service_tier": "default",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "سلام\u200cها",
                    "refusal": None,
                    "annotations": [],
                    "reasoning_content": "فکر",
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "total_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


async def test_every_response_has_the_headers_of_limits_and_a_fingerprint(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    prints = set()
    for stream in (True, False):
        worker.script = ANSWER
        response = await http.post(URL, json=body(stream=stream))
        for name in ("requests", "tokens"):
            limit, remaining = (int(response.headers[f"x-ratelimit-{part}-{name}"]) for part in ("limit", "remaining"))
            assert limit == remaining == 2**31 - 1, "the key has no limits"
            assert response.headers[f"x-ratelimit-reset-{name}"] == "0ms"
        document = json.loads(events(response.text)[0].removeprefix("data: ")) if stream else response.json()
        assert document["service_tier"] == "default"
        prints.add(document["system_fingerprint"])
    assert len(prints) == 1, "the same model on the same engine"


async def test_a_request_with_stream_gets_server_sent_events(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = ANSWER
    response = await http.post(URL, json=body(stream=True, stream_options={"include_usage": True}))
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers
    received = events(response.text)
    assert received.pop() == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in received]
    assert [chunk["choices"][0]["delta"] if chunk["choices"] else None for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"reasoning_content": "فکر"},
        {"content": "سلام\u200cها"},
        {},
        None,
    ]
    assert response.text.count("[DONE]") == 1


async def test_tokens_are_sent_as_soon_as_they_arrive(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    proceed = asyncio.Event()
    worker.script = [[started(), content("first")], proceed, [finish(), usage()]]
    async with http.stream("POST", URL, json=body(stream=True)) as response:
        pieces = response.aiter_text()
        text = ""
        async with asyncio.timeout(20):
            while "first" not in text:
                text += await anext(pieces)
        assert "[DONE]" not in text
        proceed.set()
        assert "[DONE]" in "".join([piece async for piece in pieces])


async def test_comments_that_the_sdk_ignores_are_sent_during_silence(
    http: httpx.AsyncClient, worker: ScriptedWorker, gateway_url: str, api_key: str
) -> None:
    begin, proceed = asyncio.Event(), asyncio.Event()
    worker.script = [begin, [started(), content("a")], proceed, [finish(), usage()]]
    async with http.stream("POST", URL, json=body(stream=True)) as response:
        # The status is sent before the worker's first event.
        assert response.status_code == 200
        pieces = response.aiter_text()
        assert await anext(pieces) == ": keep-alive\n\n"
        begin.set()
        text = ""
        async with asyncio.timeout(20):
            while text.count(": keep-alive") < 2:
                text += await anext(pieces)
        assert text.index('"content":"a"') < text.rindex(": keep-alive")
        proceed.set()
        text += "".join([piece async for piece in pieces])
    assert text.endswith("data: [DONE]\n\n")


class Pause(asyncio.Event):
    """An event whose wait ends before the next comment is due."""

    async def wait(self) -> Literal[True]:
        await asyncio.sleep(0.05)
        return True


async def test_tokens_without_text_count_as_silence(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    hidden = [pb.Event(delta=pb.Delta(token_count=1))]
    worker.script = [[started(), content("a")], *([hidden, Pause()] * 400), [finish(), usage()]]
    async with http.stream("POST", URL, json=body(stream=True)) as response:
        text = ""
        async for piece in response.aiter_text():
            text += piece
            if ": keep-alive" in text:
                break
    assert text.count(": keep-alive") == 1
    assert 'finish_reason":"' not in text


async def test_the_sdk_parses_every_kind_of_event(
    worker: ScriptedWorker, http: httpx.AsyncClient, gateway_url: str, api_key: str
) -> None:
    call = [
        pb.ToolCallFragment(index=0, id="call_1", name="weather"),
        pb.ToolCallFragment(index=0, arguments_json='{"city":"تهران"}'),
    ]
    worker.script = [
        [started(), reasoning("hm")],
        [pb.Event(delta=pb.Delta(tool_call=fragment, token_count=1)) for fragment in call],
        [finish(pb.FINISH_REASON_TOOL_CALLS), usage(3)],
    ]
    async with openai.AsyncOpenAI(
        base_url=f"{gateway_url}/api", api_key=api_key, max_retries=0, _strict_response_validation=True
    ) as client:
        whole = await client.chat.completions.create(**body())
        choice = whole.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        assert choice.message.tool_calls is not None
        assert choice.message.tool_calls[0].function.arguments == '{"city":"تهران"}'
        async with client.chat.completions.stream(model=MODEL, messages=body()["messages"]) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_completion()
        assert final.choices[0].message.tool_calls is not None
        assert final.choices[0].message.tool_calls[0].function.name == "weather"


@pytest.mark.parametrize(
    "expected",
    [
        (Reason.INVALID_ARGUMENT, 400, "invalid_request_error", "invalid_value"),
        (Reason.UNSUPPORTED_PARAMETER, 400, "invalid_request_error", "unsupported_parameter"),
        (Reason.CONTEXT_LENGTH_EXCEEDED, 400, "invalid_request_error", "context_length_exceeded"),
        (Reason.MODEL_NOT_FOUND, 404, "invalid_request_error", "model_not_found"),
        (Reason.OVERLOADED, 429, "rate_limit_error", "rate_limit_exceeded"),
        (Reason.MODEL_UNAVAILABLE, 503, "service_unavailable_error", "service_unavailable"),
        (Reason.DRAINING, 503, "service_unavailable_error", "service_unavailable"),
        (Reason.TIMEOUT, 504, "server_error", "timeout"),
        (Reason.ENGINE_FAILED, 500, "server_error", "server_error"),
        (Reason.INTERNAL, 500, "server_error", "server_error"),
    ],
)
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_workers_failure_before_the_first_token_is_a_status(
    http: httpx.AsyncClient,
    worker: ScriptedWorker,
    expected: tuple[Reason, int, str, str],
    stream: bool,
) -> None:
    failure, status, error_type, code = expected
    worker.script = [Failure(failure, Message("over_limit", field="sampling.top_k", value=3, limit=2))]
    response = await http.post(URL, json=body(stream=stream))
    error = response.json()["error"]
    assert response.status_code == status
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["code"]) == (error_type, code)
    if status == 400:
        assert error["message"] == str(Message("over_limit", field="top_k", value=3, limit=2))
        assert (message_id_of(response), error["param"]) == ("over_limit", "top_k")
    if status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1
        assert int(response.headers["retry-after-ms"]) >= 1
    if status == 500:
        assert response.headers["x-request-id"] in error["message"]


@pytest.mark.parametrize(("retry_after", "header"), [(None, "false"), (2.0, None)])
async def test_clients_are_told_not_to_retry_what_takes_too_long_again(
    http: httpx.AsyncClient, worker: ScriptedWorker, retry_after: float | None, header: str | None
) -> None:
    worker.script = [Failure(Reason.TIMEOUT, Message("engine_not_begun", seconds="300"), retry_after=retry_after)]
    response = await http.post(URL, json=body())
    assert response.status_code == 504
    assert response.headers.get("x-should-retry") == header
    assert ("retry-after" in response.headers) == (header is None)


async def test_an_internal_error_of_the_worker_reveals_no_details(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    worker.script = [RuntimeError("the secret plan")]
    response = await http.post(URL, json=body())
    assert response.status_code == 500
    assert "secret plan" not in response.text


@pytest.mark.parametrize(
    "end", [Failure(Reason.ENGINE_FAILED, Message.verbatim("gone")), None], ids=["failure", "early end"]
)
async def test_a_stream_that_breaks_off_never_looks_complete(
    http: httpx.AsyncClient, worker: ScriptedWorker, end: Failure | None
) -> None:
    worker.script = [[started(), content("half")], *([end] if end else [])]
    response = await http.post(URL, json=body(stream=True))
    received = events(response.text)
    assert "half" in received[-2]
    assert json.loads(received[-1].removeprefix("data: "))["error"]["type"] == "server_error"
    assert "[DONE]" not in response.text
    assert '"finish_reason":"' not in response.text
    assert (await http.post(URL, json=body())).status_code == 500


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("begun", [True, False], ids=["begun", "waiting"])
async def test_a_client_disconnect_cancels_the_workers_call(
    http: httpx.AsyncClient, worker: ScriptedWorker, gateway_url: str, stream: bool, begun: bool
) -> None:
    worker.script = [*([[started(), content("a")]] if begun else []), asyncio.Event()]
    task = asyncio.create_task(http.post(URL, json=body(stream=stream)))
    await until(lambda: worker.requests, what="the worker has the request")
    task.cancel()
    await until(worker.cancelled.is_set, what="the call is cancelled")


@pytest.mark.parametrize(
    ("field", "param"),
    [
        ("sampling.top_k", "top_k"),
        ("logprobs.top", "top_logprobs"),
        ("reasoning.enabled", "enable_thinking"),
        ("tools[3].parameters_json", "tools[3].function.parameters"),
        ("messages[0].content[1].image", "messages[0].content[1].image_url"),
        ("messages[2].content", "messages[2].content"),
    ],
)
async def test_a_workers_error_uses_the_callers_field_names(
    http: httpx.AsyncClient, worker: ScriptedWorker, field: str, param: str
) -> None:
    worker.script = [invalid(Message("text_empty", field=field))]
    error = (await http.post(URL, json=body())).json()["error"]
    assert (error["param"], error["message"]) == (param, str(Message("text_empty", field=param)))


async def test_ignored_fields_are_reported_in_a_header(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[pb.Event(started=pb.Started(ignored_parameters=["sampling.seed"])), finish(), usage()]]
    response = await http.post(URL, json=body(zeta=1, alpha=2, **{"bad\nname": 1}))
    assert response.headers["x-ignored-params"] == "alpha,zeta,seed"
    strict = await http.post(URL, json=body(zeta=1), headers={"x-strict-params": "true"})
    assert (strict.status_code, strict.json()["error"]["param"]) == (400, "zeta")


async def test_ignored_fields_are_reported_in_the_stream_if_the_headers_were_sent_before(
    http: httpx.AsyncClient, worker: ScriptedWorker, gateway_url: str, api_key: str
) -> None:
    begin = asyncio.Event()
    begun = [pb.Event(started=pb.Started(ignored_parameters=["sampling.seed", "tools[0].strict"])), content("a")]
    worker.script = [begin, begun, [finish(), usage()]]
    async with http.stream("POST", URL, json=body(stream=True, zeta=1)) as response:
        assert response.headers["x-ignored-params"] == "zeta"
        begin.set()
        text = "".join([piece async for piece in response.aiter_text()])
    assert text.count(": x-ignored-params zeta,seed,tools[0].function.strict\n\n") == 1
    assert text.index(": x-ignored-params") < text.index('"content":"a"')
    begin.clear()
    async with openai.AsyncOpenAI(base_url=f"{gateway_url}/api", api_key=api_key, max_retries=0) as client:
        chunks = await client.chat.completions.create(**body(stream=True))
        begin.set()
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in chunks]) == "a"


async def test_ignored_fields_in_the_headers_are_not_reported_again_in_the_stream(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    begin = asyncio.Event()
    worker.script = [[pb.Event(started=pb.Started(ignored_parameters=["sampling.seed"])), finish(), usage()]]
    early = await http.post(URL, json=body(stream=True))
    assert early.headers["x-ignored-params"] == "seed"
    worker.script = [begin, [started(), finish(), usage()]]
    async with http.stream("POST", URL, json=body(stream=True, zeta=1)) as response:
        begin.set()
        late = "".join([piece async for piece in response.aiter_text()])
    assert "x-ignored-params" not in early.text + late


async def test_the_worker_receives_the_request_id(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = ANSWER
    response = await http.post(URL, json=body(), headers={"x-request-id": "mine-1"})
    assert (response.headers["x-request-id"], worker.request_ids[0]) == ("mine-1", "mine-1")


@pytest.mark.parametrize("given", ["", "has space", "x" * 129, "läßt"])
async def test_an_invalid_request_id_is_replaced(http: httpx.AsyncClient, given: str) -> None:
    response = await http.get("/healthz", headers={"x-request-id": given.encode()})
    assert response.headers["x-request-id"].startswith("req-")


async def test_an_expected_model_without_a_worker_is_503_and_an_unknown_one_404(http: httpx.AsyncClient) -> None:
    missing = await http.post(URL, json=body() | {"model": EXPECTED})
    assert (missing.status_code, missing.json()["error"]["type"]) == (503, "service_unavailable_error")
    assert int(missing.headers["retry-after"]) >= 1
    unknown = await http.post(URL, json=body() | {"model": "nothing"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_worker_that_comes_back_is_found_again(
    http: httpx.AsyncClient, worker: ScriptedWorker, worker_port: int
) -> None:
    await worker.server.stop(None)
    await until_status(http, 503)
    async with scripted_worker(worker_port) as second:
        second.script = ANSWER
        await until_status(http, 200)
