"""The bytes of POST /v1/messages, Anthropic's Messages API."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.tenancy import keys
from services.runtime.failure import Failure, Reason, invalid
from services.runtime.messages.message import Message
from tests.support.pictures import encoded
from tests.support.scripted_worker import MODEL, ScriptedWorker, content, finish, reasoning, usage

URL = "/v1/messages"


def started(**fields: Any) -> pb.Event:
    return pb.Event(started=pb.Started(prompt_tokens=3, **fields))


def call(*arguments: str, name: str = "get_weather", index: int = 0) -> list[pb.Event]:
    fragments = [pb.ToolCallFragment(index=index, id=f"call_{index}", name=name)]
    fragments += [pb.ToolCallFragment(index=index, arguments_json=text) for text in arguments]
    return [pb.Event(delta=pb.Delta(tool_call=fragment, token_count=1)) for fragment in fragments]


def body(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}], **fields}


def events(text: str) -> list[dict[str, Any]]:
    """Return the data of a stream's events, whose names are their types."""
    parts = [part for part in text.split("\n\n") if part and not part.startswith(":")]
    found = []
    for part in parts:
        name, data = part.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


ANSWER: list[Any] = [
    [started(cached_tokens=2), reasoning("فک")],
    [reasoning("ر"), content("سلام")],
    [content(" دنیا"), *call('{"city":', '"Tehran"}')],
    [
        finish(pb.FINISH_REASON_TOOL_CALLS),
        pb.Event(usage=pb.Usage(prompt_tokens=3, completion_tokens=6, cached_tokens=2, reasoning_tokens=2)),
    ],
]


async def test_a_stream_has_one_block_after_another(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = ANSWER
    response = await http.post(URL, json=body(stream=True))
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    found = events(response.text)
    signature = found[4]["delta"].pop("signature")
    assert signature
    usage = {
        "input_tokens": 1,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 2,
        "output_tokens": 0,
        "output_tokens_details": {"thinking_tokens": 0},
        "server_tool_use": None,
    }
    message = found[0]["message"]
    assert message.pop("id").startswith("msg_")
    assert found == [
        {
            "type": "message_start",
            "message": {
                "type": "message",
                "role": "assistant",
                "model": MODEL,
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "stop_details": None,
                "container": None,
                "usage": {
                    **usage,
                    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
                    "inference_geo": None,
                    "service_tier": "standard",
                },
            },
        },
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        },
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "فک"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "ر"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "content_block_start",
            "index": 1,
            "content_block": {"type": "text", "text": "", "citations": None},
        },
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "سلام"}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": " دنیا"}},
        {"type": "content_block_stop", "index": 1},
        {
            "type": "content_block_start",
            "index": 2,
            "content_block": {
                "type": "tool_use",
                "id": "toolu_0",
                "name": "get_weather",
                "input": {},
                "caller": {"type": "direct"},
            },
        },
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"city":'}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '"Tehran"}'}},
        {"type": "content_block_stop", "index": 2},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None, "stop_details": None, "container": None},
            "usage": {**usage, "output_tokens": 6, "output_tokens_details": {"thinking_tokens": 2}},
        },
        {"type": "message_stop"},
    ]


async def test_a_whole_message_has_the_same_content(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = ANSWER
    response = await http.post(URL, json=body())
    message = response.json()
    assert message["content"][0].pop("signature")
    assert message["content"] == [
        {"type": "thinking", "thinking": "فکر"},
        {"type": "text", "text": "سلام دنیا", "citations": None},
        {
            "type": "tool_use",
            "id": "toolu_0",
            "name": "get_weather",
            "input": {"city": "Tehran"},
            "caller": {"type": "direct"},
        },
    ]
    assert (message["stop_reason"], message["usage"]["input_tokens"]) == ("tool_use", 1)
    assert message["usage"]["cache_read_input_tokens"] == 2
    assert response.headers["request-id"] == response.headers["x-request-id"]


async def test_the_request_reaches_the_worker(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started(), content("a")], [finish(), usage()]]
    picture = base64.b64encode(encoded("PNG", 2, 2)).decode()
    tool = {"name": "get_weather", "description": "d", "input_schema": {"type": "object"}, "defer_loading": True}
    billing = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1;"}
    request = body(
        max_tokens=9,
        system=[billing, {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "look"}, image(picture)]},
            {"role": "system", "content": "The date has changed."},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "stolen", "signature": "EqQBCgIYAhIM"},
                    {"type": "redacted_thinking", "data": "x"},
                    {"type": "text", "text": "I look it up."},
                    {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "تهران"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "no such city", "is_error": True},
                    {"type": "text", "text": "Try again."},
                ],
            },
            {"role": "user", "content": "Please."},
        ],
        tools=[tool, {"type": "bash_20250124", "name": "bash"}, {"type": "web_search_20260318", "name": "web_search"}],
        tool_choice={"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
        stop_sequences=["a", "b", "c", "d", "e", "f"],
        temperature=0.5,
        top_k=3,
        thinking={"type": "enabled", "budget_tokens": 1024},
        output_config={"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
        context_management={"edits": []},
        metadata={"user_id": "u"},
        service_tier="auto",
        betas_of_tomorrow=True,
    )
    headers = {"anthropic-beta": "never-heard-of-2027-01-01", "anthropic-version": "2026-10-21"}
    response = await http.post(URL, json=request, headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["x-omitted-blocks"] == "system[0]"
    assert (
        response.headers["x-ignored-params"] == "betas_of_tomorrow,context_management,tools[0].defer_loading,tools[2]"
    )
    sent = worker.requests[-1]
    assert [(message.role, "".join(part.text for part in message.content)) for message in sent.messages] == [
        (pb.ROLE_SYSTEM, "Be brief."),
        (pb.ROLE_USER, "look"),
        (pb.ROLE_SYSTEM, "The date has changed."),
        (pb.ROLE_ASSISTANT, "I look it up."),
        (pb.ROLE_TOOL, "Error: no such city"),
        (pb.ROLE_USER, "Try again.\n\nPlease."),
    ]
    assert sent.messages[1].content[1].image.mime_type == "image/png"
    assert sent.messages[3].reasoning_content == ""
    assert json.loads(sent.messages[3].tool_calls[0].arguments_json) == {"city": "تهران"}
    assert sent.messages[4].tool_call_id == "toolu_1"
    assert [tool.name for tool in sent.tools] == ["get_weather", "bash"]
    assert (sent.tool_choice.required, list(sent.tool_choice.function_names)) == (True, ["get_weather"])
    assert sent.parallel_tool_calls is False
    assert (list(sent.sampling.stop), sent.sampling.max_tokens, sent.sampling.top_k) == (list("abcdef"), 9, 3)
    assert (sent.reasoning.enabled, sent.reasoning.budget_tokens) == (True, 1024)
    assert sent.reasoning.effort == pb.REASONING_EFFORT_HIGH
    assert sent.response_format.json_schema.schema_json == '{"type":"object"}'
    assert not sent.continue_final_message


def image(data: str) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


async def test_a_last_message_of_the_assistant_is_continued(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started(), content("B)")], [finish(), usage()]]
    turns = [{"role": "user", "content": "A or B?"}, {"role": "assistant", "content": "The best answer is ("}]
    assert (await http.post(URL, json=body(messages=turns))).json()["content"][0]["text"] == "B)"
    assert worker.requests[-1].continue_final_message


@pytest.mark.parametrize("display", ["summarized", "omitted", "something new"])
async def test_signed_thinking_returns_into_the_prompt(
    http: httpx.AsyncClient, worker: ScriptedWorker, display: str
) -> None:
    worker.script = ANSWER
    thinking = {"type": "adaptive", "display": display}
    for stream in (False, True):
        response = await http.post(URL, json=body(thinking=thinking, stream=stream))
        block = thinking_of(events(response.text)) if stream else response.json()["content"][0]
        assert block["thinking"] == ("" if display == "omitted" else "فکر")
        turns = [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [block, {"type": "text", "text": "a"}]},
        ]
        await http.post(URL, json=body(messages=[*turns, {"role": "user", "content": "more"}]))
        assert worker.requests[-1].messages[1].reasoning_content == "فکر"
        block["signature"] = block["signature"][:-6] + "AAAA=="
        await http.post(URL, json=body(messages=[*turns, {"role": "user", "content": "more"}]))
        assert worker.requests[-1].messages[1].reasoning_content == ""


@pytest.mark.parametrize("display", ["summarized", "omitted"])
async def test_signed_thinking_returns_only_for_its_tenant(
    redis_url: str, http: httpx.AsyncClient, worker: ScriptedWorker, display: str
) -> None:
    worker.script = ANSWER
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        owners = {f"{name}-{display}": name[0] for name in ("a1", "a2", "b1")}
        first, second, other = [(await keys.create(redis, name=name, owner=owners[name]))[1] for name in owners]

    async def post(secret: str, *turns: dict[str, Any]) -> httpx.Response:
        messages = [{"role": "user", "content": "hi"}, *turns]
        fields = body(thinking={"type": "adaptive", "display": display}, messages=messages)
        return await http.post(URL, json=fields, headers={"authorization": f"Bearer {secret}"})

    block = (await post(first)).json()["content"][0]
    for secret, expected in ((first, "فکر"), (second, "فکر"), (other, "")):
        await post(secret, {"role": "assistant", "content": [block]}, {"role": "user", "content": "more"})
        assert worker.requests[-1].messages[1].reasoning_content == expected


def thinking_of(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the block of thinking that the events of a stream make."""
    block: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": ""}
    for event in found:
        delta = event.get("delta", {})
        if delta.get("type") == "thinking_delta":
            block["thinking"] += delta["thinking"]
        elif delta.get("type") == "signature_delta":
            block["signature"] = delta["signature"]
    return block


async def test_thinking_is_off_unless_the_request_asks_for_it(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started(ignored_parameters=["reasoning.enabled"]), content("a")], [finish(), usage()]]
    enabled = []
    for fields in ({}, {"thinking": {"type": "disabled"}}, {"thinking": {"type": "adaptive"}}):
        response = await http.post(URL, json=body(**fields))
        assert response.headers.get("x-ignored-params") == ("thinking" if fields else None)
        reasoning = worker.requests[-1].reasoning
        assert reasoning.if_supported
        enabled.append(reasoning.enabled)
    assert enabled == [False, False, True]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (pb.Finish(reason=pb.FINISH_REASON_STOP), ("end_turn", None)),
        (pb.Finish(reason=pb.FINISH_REASON_STOP, stop_string="###"), ("stop_sequence", "###")),
        (pb.Finish(reason=pb.FINISH_REASON_LENGTH), ("max_tokens", None)),
        (pb.Finish(reason=pb.FINISH_REASON_CONTENT_FILTER), ("refusal", None)),
    ],
)
async def test_the_reason_for_the_end(
    http: httpx.AsyncClient,
    worker: ScriptedWorker,
    end: pb.Finish,
    expected: tuple[str, str | None],
    stream: bool,
) -> None:
    worker.script = [[started(), content("a")], [pb.Event(finish=end), usage()]]
    response = await http.post(URL, json=body(stream=stream))
    found = events(response.text)[-2]["delta"] if stream else response.json()
    assert (found["stop_reason"], found["stop_sequence"]) == expected


@pytest.mark.parametrize("stream", [False, True])
async def test_max_tokens_beyond_the_window_are_cut_and_reported(
    http: httpx.AsyncClient, worker: ScriptedWorker, stream: bool
) -> None:
    worker.script = [[started(max_tokens=97), content("a")], [finish(pb.FINISH_REASON_LENGTH), usage()]]
    response = await http.post(URL, json=body(max_tokens=32_000, stream=stream))
    assert worker.requests[-1].clamp_max_tokens
    assert response.headers["x-clamped-params"] == "max_tokens=97"
    end = events(response.text)[-2]["delta"] if stream else response.json()
    assert end["stop_reason"] == "model_context_window_exceeded"


async def test_no_tokens_only_fill_the_cache(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started(), finish(pb.FINISH_REASON_LENGTH), usage(0)]]
    message = (await http.post(URL, json=body(max_tokens=0))).json()
    assert worker.requests[-1].prefill_only
    assert (message["content"], message["stop_reason"], message["usage"]["output_tokens"]) == ([], "max_tokens", 0)


async def test_requests_of_a_session_have_one_affinity_key(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started(), content("a"), finish(), usage()]]
    for session, agent in (("s", ""), ("s", ""), ("t", ""), ("s", "a"), ("", "")):
        headers = {"x-claude-code-session-id": session, "x-claude-code-agent-id": agent}
        assert (await http.post(URL, json=body(), headers=headers)).status_code == 200
    keys = [request.affinity_key for request in worker.requests[-5:]]
    assert keys[0] == keys[1]
    assert len({keys[0], keys[2], keys[3]}) == 3
    assert keys[4] == ""


async def test_tokens_are_counted(http: httpx.AsyncClient) -> None:
    request = body(system="s", tools=[{"name": "f", "input_schema": {"type": "object"}}])
    del request["max_tokens"]
    for prefix in ("/v1", "/api", "/api/v1"):
        response = await http.post(f"{prefix}/messages/count_tokens?beta=true", json=request)
        assert response.json() == {"input_tokens": 3}


async def test_pings_keep_a_silent_stream_alive(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    begin, proceed = asyncio.Event(), asyncio.Event()
    worker.script = [begin, [started()], proceed, [content("a"), finish(), usage()]]
    text = ""
    async with http.stream("POST", URL, json=body(stream=True)) as response:
        async for piece in response.aiter_text():
            text += piece
            if ": keep-alive" in text:
                begin.set()
            if "event: ping" in text:
                proceed.set()
    assert text.index("event: message_start") < text.index("event: ping") < text.index("event: message_stop")


@pytest.mark.parametrize(
    ("path", "headers", "fields", "expected"),
    [
        ("/v1/messages/batches", {}, {}, (404, "not_found_error")),
        ("/v1/messages", {"authorization": ""}, {}, (401, "authentication_error")),
        ("/api/messages", {"authorization": "", "x-api-key": "vlx_no"}, {}, (401, "authentication_error")),
        ("/api/v1/messages", {}, {"model": "nothing"}, (404, "not_found_error")),
        ("/v1/messages", {}, {"max_tokens": None}, (400, "invalid_request_error")),
        ("/api/v1/messages/count_tokens", {}, {"messages": 5}, (400, "invalid_request_error")),
        ("/v1/messages", {}, {"system": "x" * 200_000}, (413, "request_too_large")),
        ("/v1/messages", {"x-long": "x" * 40_000}, {}, (431, "invalid_request_error")),
    ],
)
async def test_every_error_has_anthropics_format(
    http: httpx.AsyncClient, path: str, headers: dict[str, str], fields: dict[str, Any], expected: tuple[int, str]
) -> None:
    response = await http.post(path, headers={"accept-language": "fa", **headers}, json=body(**fields))
    check_error(response, *expected)
    if expected[0] != 431:
        assert response.headers["content-language"] == "fa"


async def test_a_wrong_method_has_anthropics_format(http: httpx.AsyncClient) -> None:
    check_error(await http.get(URL), 405, "invalid_request_error")


def check_error(response: httpx.Response, status: int, kind: str) -> None:
    error = response.json()
    assert (response.status_code, error["type"], error["error"]["type"]) == (status, "error", kind)
    assert error["request_id"] == response.headers["request-id"]
    assert error["error"]["message"]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            Message("context_full", field="messages", model=MODEL, value=120, limit=100),
            "prompt is too long: 120 tokens > 99 maximum",
        ),
        (Message("over_limit", field="sampling.stop[3]", value=3, limit=2), "stop_sequences[3] is 3"),
        (Message("part_empty", field="messages[1].content[0]"), "messages[0] "),
        (Message("schema_not_object", field="tools[0].parameters_json"), "tools[1].input_schema "),
    ],
)
async def test_a_workers_error_uses_anthropics_words(
    http: httpx.AsyncClient, worker: ScriptedWorker, message: Message, expected: str
) -> None:
    worker.script = [invalid(message)]
    tools = [{"type": "web_search_20260318", "name": "web_search"}, {"name": "f", "input_schema": {}}]
    if message.id == "context_full":
        worker.script = [Failure(Reason.CONTEXT_LENGTH_EXCEEDED, message)]
    request = body(system="s", tools=tools)
    response = await http.post(URL, json=request)
    assert response.status_code == 400
    assert response.json()["error"]["message"].startswith(expected)


async def test_a_prompt_that_is_too_long_is_found_by_its_words_in_persian_too(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    message = Message("context_full", field="messages", model=MODEL, value=120, limit=100)
    worker.script = [Failure(Reason.CONTEXT_LENGTH_EXCEEDED, message)]
    response = await http.post(URL, json=body(), headers={"accept-language": "fa"})
    assert response.headers["content-language"] == "fa"
    assert "prompt is too long: 120 tokens > 99 maximum" in response.json()["error"]["message"]


async def test_an_overload_says_when_to_retry(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [Failure(Reason.MODEL_UNAVAILABLE, Message("worker_lost"), retry_after=3)]
    response = await http.post(URL, json=body())
    assert (response.status_code, response.json()["error"]["type"]) == (503, "overloaded_error")
    assert response.headers["retry-after"] == "3"


async def test_a_stream_that_breaks_off_ends_with_the_error(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started(), content("half")], Failure(Reason.MODEL_UNAVAILABLE, Message("worker_lost"))]
    text = (await http.post(URL, json=body(stream=True), headers={"accept-language": "fa"})).text
    *begun, error = events(text)
    assert [event["type"] for event in begun] == ["message_start", "content_block_start", "content_block_delta"]
    assert error["error"]["type"] == "overloaded_error"
    assert error["error"]["message"] == Message("worker_lost").text("fa")
    assert ": x-error-message-id worker_lost\n\nevent: error" in text


@pytest.mark.parametrize("path", ["/v1/models", "/api/models", "/api/v1/models"])
async def test_the_list_of_models_has_the_format_of_the_api_that_asks(
    http: httpx.AsyncClient, api_key: str, path: str
) -> None:
    ours = (await http.get(path)).json()
    assert "has_more" not in ours
    headers = {"authorization": "", "x-api-key": api_key, "anthropic-version": "2023-06-01"}
    theirs = (await http.get(path, params={"limit": 1}, headers=headers)).json()
    assert theirs["has_more"]
    assert theirs["first_id"] == theirs["last_id"]
    found = [theirs["data"][0]]
    while theirs["has_more"]:
        after = {"after_id": theirs["last_id"], "limit": 1000}
        theirs = (await http.get(path, params=after, headers=headers)).json()
        found += theirs["data"]
    model = next(model for model in found if model["id"] == MODEL)
    assert (model["type"], model["created_at"]) == ("model", "1970-01-01T00:00:01Z")
    one = await http.get(f"{path}/{MODEL}", headers=headers)
    assert one.json() == model
    missing = await http.get(f"{path}/nothing", headers=headers)
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found_error")
    assert (await http.get(path, headers={**headers, "x-api-key": ""})).json()["error"][
        "type"
    ] == "authentication_error"


async def test_a_probe_of_the_root_is_answered(http: httpx.AsyncClient) -> None:
    assert (await http.head("/")).status_code < 500


async def test_a_page_of_another_origin_may_send_anthropics_headers(http: httpx.AsyncClient) -> None:
    headers = {
        "origin": "https://example.org",
        "access-control-request-method": "POST",
        "access-control-request-headers": "x-api-key,anthropic-version,anthropic-beta",
    }
    response = await http.options(URL, headers=headers)
    assert response.status_code == 204
    assert "*" in response.headers["access-control-allow-headers"].split(", ")
