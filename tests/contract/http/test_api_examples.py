"""The examples of the API's document match what the gateway accepts and returns."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from tests.support.api_document import BY_PATH, check, content, key_headers, requests
from tests.support.scripted_worker import MODEL, ScriptedWorker, finish, reasoning, started, usage
from tests.support.scripted_worker import content as delta

EXAMPLES = [
    pytest.param(path, body, id=f"{path} {name}")
    for path in (
        "/chat/completions",
        "/completions",
        "/responses",
        "/responses/input_tokens",
        "/tokenize",
        "/messages",
        "/messages/count_tokens",
    )
    for name, body in requests(path).items()
]
LOGPROB = pb.TokenLogprob(token="a", logprob=-0.5, token_bytes=b"a", top=[pb.TopLogprob(token="b", logprob=-1)])
CALL = pb.ToolCallFragment(index=0, id="c", name="f", arguments_json="{}")


@pytest.mark.parametrize(("path", "body"), EXAMPLES)
async def test_every_example_is_accepted(
    http: httpx.AsyncClient, api_key: str, worker: ScriptedWorker, path: str, body: dict[str, Any]
) -> None:
    worker.script = [[started(), delta("a"), finish(), usage()]]
    headers = {**key_headers(path, api_key), "x-strict-params": "true"}
    response = await http.post(f"/api{path}", json={**body, "model": MODEL}, headers=headers)
    assert (response.status_code, response.headers.get("x-ignored-params")) == (200, None), response.text
    if body.get("stream"):
        check_events(path, response.text)
    else:
        check(response.json(), content(BY_PATH[path]))


@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_every_kind_of_answer_is_documented(
    http: httpx.AsyncClient, worker: ScriptedWorker, path: str, streamed: bool
) -> None:
    logprob = pb.Event(delta=pb.Delta(content="a", token_count=1, logprobs=[LOGPROB]))
    deltas = [reasoning("r"), pb.Event(delta=pb.Delta(tool_call=CALL))] if path == "/chat/completions" else []
    worker.script = [[started(), *deltas, logprob, finish(), usage()]]
    options = {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    body = {**next(iter(requests(path).values())), "model": MODEL, "logprobs": 1 if path == "/completions" else True}
    response = await http.post(f"/api{path}", json={**body, **(options if streamed else {})})
    assert response.status_code == 200
    if streamed:
        assert check_events(path, response.text) > 3
    else:
        check(response.json(), content(BY_PATH[path]))


@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
async def test_a_dry_run_is_documented(http: httpx.AsyncClient, path: str) -> None:
    body = {**next(iter(requests(path).values())), "model": MODEL, "dry_run": True}
    response = await http.post(f"/api{path}", json=body)
    assert response.json()["object"].endswith("dry_run")
    check(response.json(), content(BY_PATH[path]))


@pytest.mark.parametrize("path", ["/models", "/models/{id}", "/usage"])
async def test_responses_to_get_requests_match_their_documentation(http: httpx.AsyncClient, path: str) -> None:
    response = await http.get(f"/api{path}".format(id=MODEL))
    assert response.status_code == 200
    check(response.json(), content(BY_PATH[path]))


@pytest.mark.parametrize("path", BY_PATH)
async def test_errors_are_documented(http: httpx.AsyncClient, path: str) -> None:
    operation = BY_PATH[path]
    # The client's own key is in `Authorization`, which Anthropic's API reads too.
    headers = httpx.Headers({"authorization": ""})
    headers.update(key_headers(path, "nothing"))
    of_what = MODEL if path.startswith("/models") else "resp_1"
    response = await http.request(operation.method, f"/api{path}".format(id=of_what), headers=headers)
    assert response.status_code == 401
    (documented,) = operation.errors["4XX"].contents
    check(response.json(), documented)


def check_events(path: str, text: str) -> int:
    """Check all events of a stream, and return how many there are."""
    *events, last, _ = text.split("\n\n")
    if path == "/messages":
        events.append(last)
    else:
        assert last == "data: [DONE]"
    for event in events:
        check(json.loads(event.partition("data: ")[2]), content(BY_PATH[path], "text/event-stream"))
    return len(events)
