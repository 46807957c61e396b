"""Errors in the caller's language, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from services.runtime.failure import Failure, Reason, invalid
from services.runtime.messages.message import Message
from tests.support.scripted_worker import MODEL, ScriptedWorker, content, started

CHAT = "/api/chat/completions"
PERSIAN = {"accept-language": "fa-IR,fa;q=0.9,en;q=0.8"}


def body(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "سلام"}], **fields}


def is_persian(text: str) -> bool:
    return sum("\u0600" <= letter <= "\u06ff" for letter in text) > 12


@pytest.mark.parametrize(
    ("method", "path", "request_body"),
    [
        ("GET", "/api/nothing", None),
        ("DELETE", CHAT, None),
        ("GET", "/api/models/none", None),
        ("POST", CHAT, {}),
        ("POST", CHAT, []),
        ("POST", CHAT, body(model="none")),
        ("POST", CHAT, body(model=7)),
        ("POST", CHAT, body(messages=[])),
        ("POST", CHAT, body(messages=[{"role": "cook", "content": "x"}])),
        ("POST", CHAT, body(temperature="hot")),
        ("POST", CHAT, body(top_logprobs=3)),
        ("POST", CHAT, body(tools=[{"type": "web"}])),
        ("POST", CHAT, body(response_format={"type": "xml"})),
        ("POST", CHAT, body(stream_options={})),
        ("POST", CHAT, body(user="x" * 110_000)),
        ("POST", "/api/completions", {"model": MODEL}),
        ("POST", "/api/embeddings", {"model": MODEL}),
    ],
)
async def test_only_the_message_of_an_error_is_translated(
    http: httpx.AsyncClient, method: str, path: str, request_body: Any
) -> None:
    content = {"json": request_body} if request_body is not None else {}
    persian = await http.request(method, path, headers=PERSIAN, **content)
    english = await http.request(method, path, **content)
    errors = [response.json()["error"] for response in (persian, english)]
    assert [is_persian(error.pop("message")) for error in errors] == [True, False]
    assert errors[0] == errors[1]
    assert persian.status_code == english.status_code
    assert persian.status_code >= 400
    assert (persian.headers["content-language"], english.headers["content-language"]) == ("fa", "en")
    assert "accept-language" in persian.headers["vary"].lower()
    assert "accept-language" in english.headers["vary"].lower()


async def test_errors_about_invalid_json_and_a_missing_key_are_persian(http: httpx.AsyncClient) -> None:
    response = await http.post(CHAT, headers=PERSIAN, content=b"{")
    assert is_persian(response.json()["error"]["message"])
    http.headers.pop("authorization")
    response = await http.post(CHAT, headers=PERSIAN, json=body())
    assert response.status_code == 401
    assert is_persian(response.json()["error"]["message"])


@pytest.mark.parametrize(
    ("failure", "status"),
    [
        (invalid(Message("out_of_range", field="sampling.temperature", value=3, least=0, most=2)), 400),
        (Failure(Reason.OVERLOADED, Message("engine_queue_full", count=64)), 429),
        (Failure(Reason.TIMEOUT, Message("model_timed_out", model="m")), 504),
        (Failure(Reason.INTERNAL, Message.verbatim("secret")), 500),
    ],
)
async def test_a_workers_error_is_persian(
    http: httpx.AsyncClient, worker: ScriptedWorker, failure: Failure, status: int
) -> None:
    worker.script = [failure]
    response = await http.post(CHAT, headers=PERSIAN, json=body())
    assert response.status_code == status
    assert is_persian(response.json()["error"]["message"])


async def test_the_error_event_of_a_stream_is_persian(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    errors = []
    for headers in (PERSIAN, {}):
        worker.script = [[started(), content("one")], Failure(Reason.ENGINE_FAILED, Message.verbatim("secret"))]
        response = await http.post(CHAT, headers=headers, json=body(stream=True))
        assert response.status_code == 200
        errors.append(json.loads(response.text.split("data: ")[-1])["error"])
    assert [is_persian(error.pop("message")) for error in errors] == [True, False]
    assert errors[0] == errors[1]
