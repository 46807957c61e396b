"""POST /responses: whole responses and streams, and everything that is done with stored ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel
from redis.asyncio import Redis
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.endpoints.responses import MOST_FOLLOWERS
from services.gateway.tenancy import keys
from services.gateway.tenancy.limits import Limits
from services.runtime.failure import Failure, Reason, invalid
from services.runtime.messages.message import Message
from tests.contract.http.responses_api import ANSWER, URL, body, check_sequence, read_events
from tests.support.messages import message_id_of
from tests.support.scripted_worker import MODEL, ScriptedWorker, Step, content, finish, started, usage
from tests.support.waits import until

FUNCTION = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}, "strict": False}


class Place(BaseModel):
    city: str


def call(name: str, arguments: str, *, call_id: str = "call_1", index: int = 0) -> pb.Event:
    fragment = pb.ToolCallFragment(index=index, id=call_id, name=name, arguments_json=arguments)
    return pb.Event(delta=pb.Delta(tool_call=fragment, token_count=1))


def called(*calls: pb.Event) -> list[Step]:
    return [[started()], list(calls), [finish(pb.FINISH_REASON_TOOL_CALLS), usage()]]


async def create(http: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    response = await http.post(URL, json=body(**fields))
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


async def stream(http: httpx.AsyncClient, **fields: Any) -> list[dict[str, Any]]:
    response = await http.post(URL, json=body(stream=True, **fields))
    assert response.status_code == 200, response.text
    return read_events(response.text)


@pytest.fixture
async def other(http: httpx.AsyncClient, gateway_url: str, redis_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client with another key."""
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        key, secret = await keys.create(redis, name=f"other-{id(http)}")
        headers = {"Authorization": f"Bearer {secret}"}
        async with httpx.AsyncClient(base_url=gateway_url, headers=headers, timeout=20) as client:
            yield client
        await keys.revoke(redis, key.id)


async def test_a_whole_response_has_every_field(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = ANSWER
    document = await create(http, metadata={"a": "b"}, instructions="Be brief.", temperature=0.5)
    assert document["id"].startswith("resp_")
    assert document["object"] == "response"
    assert document["status"] == "completed"
    assert document["completed_at"] >= document["created_at"]
    thought, message = document["output"]
    assert thought["content"] == [{"type": "reasoning_text", "text": "فکر"}]
    assert message["content"][0]["text"] == "سلام\u200cها!"
    assert {item["status"] for item in document["output"]} == {"completed"}
    assert document["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 5,
    }
    assert document["metadata"] == {"a": "b"}
    assert document["instructions"] == "Be brief."
    nullable = ("error", "incomplete_details", "previous_response_id", "max_output_tokens", "max_tool_calls")
    assert [document[name] for name in nullable] == [None] * len(nullable)
    assert document["text"] == {"format": {"type": "text"}}
    assert document["store"] is True
    (request,) = worker.requests
    assert [message.role for message in request.messages] == [pb.ROLE_SYSTEM, pb.ROLE_USER]
    assert request.sampling.temperature == pytest.approx(0.5)


async def test_a_stream_has_the_events_of_every_item_in_order(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [*ANSWER[:3], [call("get_weather", '{"city":'), call("", '"تهران"}', call_id="")], *ANSWER[3:]]
    bodies = await stream(http, tools=[FUNCTION])
    check_sequence(bodies)
    assert [event["type"].removeprefix("response.") for event in bodies] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    final = bodies[-1]["response"]
    done = [event["item"] for event in bodies if event["type"] == "response.output_item.done"]
    assert final["output"] == done
    added = [event["item"] for event in bodies if event["type"] == "response.output_item.added"]
    assert [item["id"] for item in added] == [item["id"] for item in done]
    assert {item["status"] for item in added} == {"in_progress"}
    assert done[-1]["arguments"] == '{"city":"تهران"}'
    assert done[-1]["call_id"] == "call_1"
    assert len({event["response"]["id"] for event in bodies if "response" in event}) == 1


async def test_an_answer_that_is_cut_is_incomplete(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started(), content("a")], [finish(pb.FINISH_REASON_LENGTH), usage()]]
    document = await create(http, max_output_tokens=1)
    assert document["status"] == "incomplete"
    assert document["incomplete_details"] == {"reason": "max_output_tokens"}
    assert document["output"][-1]["status"] == "incomplete"
    assert (await stream(http))[-1]["type"] == "response.incomplete"
    assert worker.requests[0].sampling.max_tokens == 1


async def test_an_error_after_the_beginning_ends_the_stream_as_failed(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    worker.script = [[started(), content("a")], Failure(Reason.ENGINE_FAILED, Message("engine_failed", reason="x"))]
    bodies = await stream(http)
    check_sequence(bodies)
    error, failed = bodies[-2:]
    assert error["type"] == "error"
    assert failed["type"] == "response.failed"
    assert failed["response"]["error"] == {"code": "server_error", "message": error["message"]}
    assert failed["response"]["output"][0]["status"] == "incomplete"
    stored = (await http.get(f"{URL}/{failed['response']['id']}")).json()
    assert stored["status"] == "failed"


async def test_errors_name_the_callers_fields_in_both_languages(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    for given, field in (
        ({"input": [{"type": "message", "role": "user", "content": [{"type": "x"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "nonsense"}]}, "input[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": {"type": "function", "name": "none"}}, "tool_choice.name"),
        ({"conversation": "c"}, "conversation"),
        ({"background": True, "store": False}, "background"),
    ):
        response = await http.post(URL, json={**body(), **given}, headers={"Accept-Language": "fa"})
        assert (response.status_code, response.json()["error"]["param"]) == (400, field), response.text
        assert response.headers["content-language"] == "fa"
    for path, field in (
        ("sampling.max_tokens", "max_output_tokens"),
        ("messages[1].content[0]", "input[0].content"),
        ("messages[2].tool_calls[0].name", "input[1].name"),
        ("messages[0]", "instructions"),
        ("tools[0].parameters_json", "tools[1].tools[0].parameters"),
        ("response_format.json_schema.schema_json", "text.format.schema"),
    ):
        worker.script = [invalid(Message("value_unknown", field=path, value=1))]
        items = [
            {"role": "user", "content": "a"},
            {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        ]
        namespace = {"type": "namespace", "name": "n", "tools": [FUNCTION]}
        tools = [{"type": "web_search"}, namespace]
        response = await http.post(URL, json=body(instructions="i", tools=tools) | {"input": items})
        assert (response.status_code, response.json()["error"]["param"]) == (400, field), response.text


@pytest.mark.parametrize("kind", [[], {}, 1])
async def test_an_item_whose_type_is_no_text_is_rejected(http: httpx.AsyncClient, kind: Any) -> None:
    response = await http.post(URL, json=body(input=[{"type": kind, "role": "user", "content": "a"}]))
    assert (response.status_code, response.json()["error"]["param"]) == (400, "input[0].type")


async def test_an_empty_id_of_a_previous_response_is_not_found(http: httpx.AsyncClient) -> None:
    response = await http.post(URL, json=body(previous_response_id=""))
    assert (response.status_code, message_id_of(response)) == (404, "previous_response_not_found")


async def test_items_with_one_id_are_all_listed_once(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = ANSWER
    items: list[dict[str, Any]] = [{"role": "user", "id": "a", "content": str(number)} for number in range(4)]
    response_id = (await create(http, input=[*items, {"role": "user", "id": 1, "content": "4"}]))["id"]
    listed: list[dict[str, Any]] = []
    while len(listed) <= len(items):
        after = {"after": listed[-1]["id"]} if listed else {}
        query = {"limit": 1, "order": "asc", **after}
        page = (await http.get(f"{URL}/{response_id}/input_items", params=query)).json()
        listed += page["data"]
    assert [item["content"][0]["text"] for item in listed] == ["0", "1", "2", "3", "4"]
    assert not page["has_more"]


async def test_null_stands_for_an_absent_type_in_items(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = ANSWER
    items = [
        {"type": "reasoning", "summary": [{"type": None, "text": "b"}]},
        {"type": None, "role": "user", "content": "a"},
    ]
    response = await http.post(URL, json=body() | {"input": items})
    assert response.status_code == 200, response.text
    assert [message.reasoning_content for message in worker.requests[0].messages] == ["b", ""]


async def test_hosted_tools_and_harmless_fields_are_accepted_and_reported(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    worker.script = ANSWER
    given = {
        "tools": [{"type": "web_search", "external_web_access": False}, FUNCTION, {"type": "tool_search"}],
        "client_metadata": {"a": "b"},
        "context_management": [{"type": "compaction"}],
        "input": [{"role": "user", "content": "a"}, {"type": "web_search_call", "id": "ws_1", "status": "completed"}],
        "include": ["reasoning.encrypted_content", "file_search_call.results"],
        "prompt_cache_key": "session",
        "service_tier": "flex",
        "tool_choice": {"type": "web_search"},
    }
    response = await http.post(URL, json=body(**given))
    assert response.status_code == 200, response.text
    reported = set(response.headers["x-ignored-params"].split(","))
    assert reported == {
        "context_management", "include[1]", "input[1]", "service_tier", "tool_choice", "tools[0]", "tools[2]"
    }  # fmt: skip
    (request,) = worker.requests
    assert [tool.name for tool in request.tools] == ["get_weather"]
    assert request.affinity_key
    assert [tool["type"] for tool in response.json()["tools"]] == ["web_search", "function", "tool_search"]
    strict = await http.post(URL, json=body(**given), headers={"x-strict-params": "true"})
    assert strict.status_code == 400


async def test_a_namespace_is_flattened_for_the_model_and_restored_in_calls(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    long = "x" * 60
    namespace = {"type": "namespace", "name": "agents", "tools": [{**FUNCTION, "name": "spawn"}]}
    tools = [FUNCTION, namespace, {"type": "namespace", "name": long, "tools": [FUNCTION]}]
    worker.script = called(call("agents__spawn", "{}"))
    item = (await create(http, tools=tools))["output"][0]
    assert (item["name"], item["namespace"]) == ("spawn", "agents")
    names = [tool.name for tool in worker.requests[0].tools]
    assert names[:2] == ["get_weather", "agents__spawn"]
    assert len(names[2]) <= 64
    output = {"type": "function_call_output", "call_id": item["call_id"], "output": "ok"}
    worker.script = ANSWER
    await create(http, tools=tools, input=[{"role": "user", "content": "a"}, item, output])
    _, assistant, result = worker.requests[1].messages
    assert assistant.tool_calls[0].name == "agents__spawn"
    assert (result.tool_call_id, result.name) == (item["call_id"], "agents__spawn")
    twice = await http.post(URL, json=body(tools=[namespace, {**FUNCTION, "name": "agents__spawn"}]))
    assert twice.json()["error"]["param"] == "tools[1].name"


async def test_a_custom_tool_is_called_with_text(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    tool = {"type": "custom", "name": "patch", "description": "Applies a patch."}
    worker.script = called(call("patch", '{"input":"*** Begin\\nسلام"}'))
    bodies = await stream(http, tools=[tool])
    check_sequence(bodies)
    kinds = [event["type"] for event in bodies]
    assert "response.custom_tool_call_input.delta" in kinds
    item = bodies[-1]["response"]["output"][0]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "patch", "*** Begin\nسلام")
    (offered,) = worker.requests[0].tools
    assert json.loads(offered.parameters_json)["required"] == ["input"]
    output = {"type": "custom_tool_call_output", "call_id": item["call_id"], "output": [
        {"type": "input_text", "text": "done"}
    ]}  # fmt: skip
    worker.script = ANSWER
    await create(http, tools=[tool], input=[{"role": "user", "content": "a"}, item, output])
    _, assistant, result = worker.requests[1].messages
    assert json.loads(assistant.tool_calls[0].arguments_json) == {"input": "*** Begin\nسلام"}
    assert result.content[0].text == "done"


@pytest.mark.parametrize(
    ("syntax", "definition", "field"),
    [("lark", 'start: "a" | "b"', "grammar"), ("regex", "a|b", "regex")],
)
async def test_a_custom_tool_that_must_be_called_is_held_to_its_grammar(
    http: httpx.AsyncClient, worker: ScriptedWorker, syntax: str, definition: str, field: str
) -> None:
    grammar = {"type": "grammar", "syntax": syntax, "definition": definition}
    tool = {"type": "custom", "name": "choose", "format": grammar}
    worker.script = [[started()], [content("a")], [finish(), usage()]]
    document = await create(http, tools=[tool], tool_choice={"type": "custom", "name": "choose"})
    (item,) = document["output"]
    assert (item["type"], item["name"], item["input"]) == ("custom_tool_call", "choose", "a")
    request = worker.requests[0]
    assert definition in getattr(request.response_format, field)
    assert request.tool_choice.mode == pb.TOOL_CHOICE_MODE_NONE
    worker.script = [invalid(Message("text_empty", field=f"response_format.{field}"))]
    refused = await http.post(URL, json=body(tools=[tool], tool_choice="required"))
    assert refused.json()["error"]["param"] == "tools[0].format.definition"


async def test_every_tool_choice_reaches_the_model(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = ANSWER
    tools = [FUNCTION, {"type": "custom", "name": "patch"}, {"type": "web_search"}]
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "patch"}]}
    nothing = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}]}
    functions = pb.TOOL_CHOICE_MODE_FUNCTIONS
    weather = pb.ToolChoice(mode=functions, function_names=["get_weather"], required=True)
    for choice, expected in (
        ("none", pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_NONE)),
        ("auto", pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_AUTO)),
        ("required", pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED)),
        ({"type": "function", "name": "get_weather"}, weather),
        ({"type": "custom", "name": "patch"}, pb.ToolChoice(mode=functions, function_names=["patch"], required=True)),
        (allowed, pb.ToolChoice(mode=functions, function_names=["patch"], required=True)),
        ({**allowed, "mode": "auto"}, pb.ToolChoice(mode=functions, function_names=["patch"])),
        (nothing, pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_NONE)),
    ):
        document = await create(http, tools=tools, tool_choice=choice)
        assert worker.requests[-1].tool_choice == expected
        assert document["tool_choice"] == choice


async def test_further_calls_than_allowed_are_left_out(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = called(call("get_weather", "{}"), call("get_weather", "{}", call_id="call_2", index=1))
    assert len((await create(http, tools=[FUNCTION]))["output"]) == 2
    assert len((await create(http, tools=[FUNCTION], max_tool_calls=1))["output"]) == 1
    assert worker.requests[1].parallel_tool_calls is False


async def test_a_response_continues_a_stored_one(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = ANSWER
    first = await create(http, instructions="Once.", input="first")
    second = await create(http, previous_response_id=first["id"], input="second")
    assert second["previous_response_id"] == first["id"]
    messages = worker.requests[1].messages
    assert [message.role for message in messages] == [pb.ROLE_USER, pb.ROLE_ASSISTANT, pb.ROLE_USER]
    assert messages[1].reasoning_content == "فکر"
    assert [message.content[0].text for message in messages] == ["first", "سلام\u200cها!", "second"]
    third = await create(http, previous_response_id=second["id"], input="third")
    assert len(worker.requests[2].messages) == 5
    reference = {"type": "item_reference", "id": first["output"][1]["id"]}
    await create(http, input=[{"role": "user", "content": "a"}, reference, {"role": "user", "content": "b"}])
    assert [message.content[0].text for message in worker.requests[3].messages] == ["a", "سلام\u200cها!", "b"]
    listed = (await http.get(f"{URL}/{third['id']}/input_items", params={"order": "asc", "limit": 3})).json()
    assert [item["type"] for item in listed["data"]] == ["message", "reasoning", "message"]
    assert listed["has_more"] is True
    rest = await http.get(f"{URL}/{third['id']}/input_items", params={"order": "asc", "after": listed["last_id"]})
    assert rest.json()["data"][-1]["content"] == [{"type": "input_text", "text": "third"}]
    counted = await http.post(f"{URL}/input_tokens", json=body(previous_response_id=third["id"]))
    assert counted.json() == {"object": "response.input_tokens", "input_tokens": 3}


async def test_a_response_belongs_to_its_key(
    http: httpx.AsyncClient, other: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    worker.script = ANSWER
    first = await create(http)
    assert (await http.get(f"{URL}/{first['id']}")).json() == first
    in_azures_header = http.build_request("GET", f"{URL}/{first['id']}")
    in_azures_header.headers["api-key"] = in_azures_header.headers.pop("authorization").removeprefix("Bearer ")
    assert (await http.send(in_azures_header)).json() == first
    item = {"type": "item_reference", "id": first["output"][1]["id"]}
    for foreign in (
        await other.get(f"{URL}/{first['id']}"),
        await other.get(f"{URL}/{first['id']}", params={"stream": "true"}),
        await other.get(f"{URL}/{first['id']}/input_items"),
        await other.post(f"{URL}/{first['id']}/cancel"),
        await other.delete(f"{URL}/{first['id']}"),
        await other.post(URL, json=body(previous_response_id=first["id"])),
        await other.post(URL, json=body(input=[item])),
    ):
        assert foreign.status_code == 404, foreign.text
    refused = await http.post(URL, json=body(previous_response_id="resp_none"))
    assert refused.json()["error"]["code"] == "previous_response_not_found"
    assert refused.json()["error"]["param"] == "previous_response_id"
    deleted = await http.delete(f"{URL}/{first['id']}")
    assert deleted.json() == {"id": first["id"], "object": "response.deleted", "deleted": True}
    assert (await http.get(f"{URL}/{first['id']}")).status_code == 404
    assert (await http.post(URL, json=body(previous_response_id=first["id"]))).status_code == 404


async def test_a_stream_is_replayed_from_every_event(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = ANSWER
    bodies = await stream(http)
    response_id = bodies[0]["response"]["id"]
    for after in (-1, 0, 5, len(bodies) - 2):
        params: dict[str, Any] = {"stream": "true", "starting_after": after}
        replayed = await http.get(f"{URL}/{response_id}", params=params)
        assert read_events(replayed.text) == bodies[after + 1 :]
    everything = await http.get(f"{URL}/{response_id}", params={"stream": "true"})
    assert read_events(everything.text) == bodies


async def test_a_stream_is_stored_as_cancelled_when_its_client_leaves(
    http: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    worker.script = [[started()], [content("a")], asyncio.Event()]
    async with http.stream("POST", URL, json=body(stream=True)) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                response_id = json.loads(line.removeprefix("data: "))["response"]["id"]
                break
    await asyncio.wait_for(worker.cancelled.wait(), 20)

    async def is_cancelled() -> bool:
        return bool((await http.get(f"{URL}/{response_id}")).json()["status"] == "cancelled")

    await until(is_cancelled, what="the response is cancelled")
    check_sequence(read_events((await http.get(f"{URL}/{response_id}", params={"stream": "true"})).text))


@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_response_is_cancelled_whose_client_leaves_before_it_begins(
    http: httpx.AsyncClient, state_redis_url: str, worker: ScriptedWorker, *, is_stream: bool
) -> None:
    worker.script = [asyncio.Event()]
    leaving = asyncio.create_task(http.post(URL, json=body(stream=is_stream)))
    await until(lambda: bool(worker.requests), what="the worker was called")
    async with Redis.from_url(state_redis_url, decode_responses=True) as state:
        names = [name async for name in state.scan_iter("vilix:{responses}:r:*")]
        running = [name for name in names if await state.hget(name, "status") == "in_progress"]
        assert running
        leaving.cancel()

        async def have_ended() -> bool:
            return {await state.hget(name, "status") for name in running} == {"cancelled"}

        await until(have_ended, what="the response is cancelled")


async def test_stored_items_are_referred_to_once(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = ANSWER
    reference = {"type": "item_reference", "id": (await create(http))["output"][1]["id"]}
    twice = await http.post(URL, json=body(input=[reference, reference]))
    assert (twice.status_code, message_id_of(twice)) == (400, "item_reference_repeated")
    assert twice.json()["error"]["param"] == "input[1].id"


async def test_a_background_response_survives_its_client(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    go_on = asyncio.Event()
    worker.script = [[started(), content("a")], go_on, [content("b")], [finish(), usage()]]
    first = await create(http, background=True)
    assert (first["status"], first["output"]) == ("queued", [])

    async def status() -> str:
        return str((await http.get(f"{URL}/{first['id']}")).json()["status"])

    # A client that follows from the beginning, and one that comes later, see the same.
    following = asyncio.create_task(http.get(f"{URL}/{first['id']}", params={"stream": "true"}))
    await until(lambda: bool(worker.requests), what="the worker was called")

    async def runs() -> bool:
        return await status() == "in_progress"

    await until(runs, what="a client that asks again learns that the response is being generated")
    go_on.set()
    bodies = read_events((await following).text)
    check_sequence(bodies)
    assert [event["type"] for event in bodies[:3]] == ["response.created", "response.queued", "response.in_progress"]
    assert await status() == "completed"
    assert bodies[-1]["response"]["output"][0]["content"][0]["text"] == "ab"
    again = await http.get(f"{URL}/{first['id']}", params={"stream": "true", "starting_after": 3})
    assert read_events(again.text) == bodies[4:]


async def test_a_background_stream_goes_on_without_its_client(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    go_on = asyncio.Event()
    worker.script = [[started(), content("a")], go_on, [finish(), usage()]]
    async with http.stream("POST", URL, json=body(background=True, stream=True)) as response:
        async for line in response.aiter_lines():
            if "output_text.delta" in line:
                break
            if line.startswith("data: ") and "response.created" in line:
                response_id = json.loads(line.removeprefix("data: "))["response"]["id"]
    go_on.set()
    bodies = read_events((await http.get(f"{URL}/{response_id}", params={"stream": "true"})).text)
    assert bodies[-1]["type"] == "response.completed"
    assert not worker.cancelled.is_set()


async def test_a_background_response_can_be_cancelled(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started(), content("a")], asyncio.Event()]
    first = await create(http, background=True)
    await until(lambda: bool(worker.requests), what="the worker was called")
    cancelled = (await http.post(f"{URL}/{first['id']}/cancel")).json()
    assert cancelled["status"] == "cancelled"
    assert (await http.post(f"{URL}/{first['id']}/cancel")).json() == cancelled
    await asyncio.wait_for(worker.cancelled.wait(), 20)
    check_sequence(read_events((await http.get(f"{URL}/{first['id']}", params={"stream": "true"})).text))
    worker.script = ANSWER
    foreground = await create(http)
    assert (await http.post(f"{URL}/{foreground['id']}/cancel")).status_code == 400


async def test_a_stream_of_a_deleted_response_ends_as_failed(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started(), content("a")], asyncio.Event()]
    response_id = (await create(http, background=True))["id"]
    query, persian = {"stream": "true"}, {"accept-language": "fa"}
    async with http.stream("GET", f"{URL}/{response_id}", params=query, headers=persian) as following:
        received = ""
        async for text in following.aiter_text():
            if "output_text.delta" in text and "output_text.delta" not in received:
                assert (await http.delete(f"{URL}/{response_id}")).status_code == 200
            received += text
    bodies = read_events(received)
    check_sequence(bodies)
    message = Message("response_not_found", value=repr(response_id)).text("fa")
    assert bodies[-1]["response"]["error"] == {"code": "response_not_found", "message": message}
    await asyncio.wait_for(worker.cancelled.wait(), 20)


async def test_a_key_reads_a_limited_number_of_stored_streams(
    http: httpx.AsyncClient, other: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    worker.script = [[started(), content("a")], asyncio.Event()]
    response_id = (await create(http, background=True))["id"]
    query = {"stream": "true"}
    async with AsyncExitStack() as followers:
        for _ in range(MOST_FOLLOWERS):
            following = await followers.enter_async_context(http.stream("GET", f"{URL}/{response_id}", params=query))
            assert following.status_code == 200
        rejected = await http.get(f"{URL}/{response_id}", params=query)
        assert (rejected.status_code, message_id_of(rejected)) == (429, "too_many_followers")
        assert (await http.get(f"{URL}/{response_id}")).status_code == 200
        assert (await other.get(f"{URL}/{response_id}", params=query)).status_code == 404, "the limit is that of a key"

    async def is_allowed() -> bool:
        async with http.stream("GET", f"{URL}/{response_id}", params=query) as following:
            return following.status_code == 200

    await until(is_allowed, what="the gateway has noticed that streams were closed")
    await http.delete(f"{URL}/{response_id}")
    await asyncio.wait_for(worker.cancelled.wait(), 20)


async def test_a_background_response_that_fails_says_why(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [Failure(Reason.CONTEXT_LENGTH_EXCEEDED, Message("prompt_empty"))]
    first = await create(http, background=True)
    bodies = read_events((await http.get(f"{URL}/{first['id']}", params={"stream": "true"})).text)
    check_sequence(bodies)
    assert bodies[-1]["response"]["error"]["code"] == "context_length_exceeded"


async def test_reasoning_is_sealed_for_clients_that_keep_it(
    http: httpx.AsyncClient, other: httpx.AsyncClient, worker: ScriptedWorker
) -> None:
    worker.script = ANSWER
    options = {"store": False, "include": ["reasoning.encrypted_content"], "reasoning": {"summary": "auto"}}
    thought, message = (await create(http, **options))["output"]
    assert thought["summary"] == [{"type": "summary_text", "text": "فکر"}]
    assert "content" not in thought
    sealed = {**thought, "summary": []}
    items = [{"role": "user", "content": "a"}, sealed, message, {"role": "user", "content": "b"}]
    await create(http, input=items, **options)
    assert worker.requests[1].messages[1].reasoning_content == "فکر"
    # Another tenant, and anybody who changes it, gets nothing out of it.
    changed = {**sealed, "encrypted_content": sealed["encrypted_content"][:-8] + "AAAAAAA="}
    for client, item in ((other, sealed), (http, changed), (http, {**sealed, "encrypted_content": "سلام"})):
        response = await client.post(URL, json=body(input=[items[0], item, *items[2:]], **options))
        assert response.status_code == 200
        assert response.headers["x-ignored-params"] == "input[1].encrypted_content"
        assert worker.requests[-1].messages[1].reasoning_content == ""


async def test_nothing_is_stored_without_store(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = ANSWER
    document = await create(http, store=False)
    assert document["store"] is False
    assert (await http.get(f"{URL}/{document['id']}")).status_code == 404


async def test_the_responses_of_a_revoked_key_are_deleted(
    http: httpx.AsyncClient,
    gateway_url: str,
    redis_url: str,
    state_redis_url: str,
    worker: ScriptedWorker,
) -> None:
    worker.script = ANSWER
    async with (
        Redis.from_url(redis_url, decode_responses=True) as redis,
        Redis.from_url(state_redis_url, decode_responses=True) as state,
    ):
        key, secret = await keys.create(redis, name="to be revoked")
        headers = {"Authorization": f"Bearer {secret}"}
        async with httpx.AsyncClient(base_url=gateway_url, headers=headers, timeout=20) as client:
            document = await create(client)
        name = f"vilix:{{responses}}:r:{document['id']}"
        assert await state.exists(name)
        await keys.revoke(redis, key.id)

        async def is_gone() -> bool:
            return not await state.exists(name)

        await until(is_gone, what="the response is deleted")


async def test_logprobs_are_sent_if_they_are_included(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    top = [pb.TopLogprob(token="b", token_bytes=b"b", logprob=-1.5)]
    logprob = pb.TokenLogprob(token="a", token_bytes=b"a", logprob=-0.5, top=top)
    delta = pb.Event(delta=pb.Delta(content="a", token_count=1, logprobs=[logprob]))
    worker.script = [[started(), delta], [finish(), usage()]]
    document = await create(http, include=["message.output_text.logprobs"], top_logprobs=1)
    (entry,) = document["output"][0]["content"][0]["logprobs"]
    assert (entry["token"], entry["logprob"], entry["bytes"]) == ("a", -0.5, [97])
    assert entry["top_logprobs"][0]["token"] == "b"
    assert worker.requests[0].logprobs.top == 1


async def test_the_oldest_turns_are_left_out_with_truncation(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [Failure(Reason.CONTEXT_LENGTH_EXCEEDED, Message("prompt_empty"))]
    items = [{"role": "user", "content": str(number)} for number in range(8)]
    response = await http.post(URL, json=body(input=items, instructions="i", truncation="auto"))
    assert response.json()["error"]["code"] == "context_length_exceeded"
    lengths = [len(request.messages) for request in worker.requests]
    assert lengths == sorted(set(lengths), reverse=True)
    assert [message.content[0].text for message in worker.requests[-1].messages] == ["i", "7"]
    worker.requests.clear()
    assert (await http.post(URL, json=body(input=items))).status_code == 400
    assert len(worker.requests) == 1


async def test_openais_sdk_works(
    http: httpx.AsyncClient, gateway_url: str, api_key: str, worker: ScriptedWorker
) -> None:
    worker.script = ANSWER
    async with openai.AsyncOpenAI(base_url=f"{gateway_url}/v1", api_key=api_key, max_retries=0) as client:
        whole = await client.responses.create(model=MODEL, input="hi")
        assert whole.output_text == "سلام\u200cها!"
        async with client.responses.stream(model=MODEL, input="hi") as running:
            kinds = [event.type async for event in running]
            final = await running.get_final_response()
        assert kinds[-1] == "response.completed"
        assert final.output_text == whole.output_text
        assert (await client.responses.retrieve(final.id)).output_text == whole.output_text
        items = [item async for item in client.responses.input_items.list(final.id)]
        assert len(items) == 1
        async with client.responses.stream(response_id=final.id, starting_after=2) as resumed:
            assert [event.type async for event in resumed] == kinds[3:]
        count = await client.responses.input_tokens.count(model=MODEL, input="hi")
        assert count.input_tokens == 3
        started_response = await client.responses.create(model=MODEL, input="hi", background=True)
        await client.responses.cancel(started_response.id)
        worker.script = [[started(), content('{"city": "تهران"}')], [finish(), usage()]]
        parsed = await client.responses.parse(model=MODEL, input="hi", text_format=Place)
        assert parsed.output_parsed == Place(city="تهران")
        await client.responses.delete(final.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(final.id)


async def test_other_methods_and_paths_are_rejected(http: httpx.AsyncClient) -> None:
    assert (await http.post(f"{URL}/compact", json=body())).status_code == 404
    for response in (await http.put(f"{URL}/resp_1"), await http.get(URL), await http.get(f"{URL}/resp_1/cancel")):
        assert response.status_code == 405
        assert message_id_of(response) == "method_not_allowed"


async def test_limits_apply_to_responses_in_every_mode(
    http: httpx.AsyncClient, gateway_url: str, redis_url: str, worker: ScriptedWorker
) -> None:
    worker.script = ANSWER
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        key, secret = await keys.create(redis, name="limited responses", limits=Limits(rpm=1))
        headers = {"Authorization": f"Bearer {secret}"}
        async with httpx.AsyncClient(base_url=gateway_url, headers=headers, timeout=20) as client:
            first = await client.post(URL, json=body())
            assert (first.status_code, first.headers["x-ratelimit-remaining-requests"]) == (200, "0")
            for mode in ({}, {"stream": True}, {"background": True}, {"background": True, "stream": True}):
                refused = await client.post(URL, json=body(**mode))
                assert (refused.status_code, refused.json()["error"]["type"]) == (429, "rate_limit_error")
        await keys.revoke(redis, key.id)
    assert len(worker.requests) == 1
