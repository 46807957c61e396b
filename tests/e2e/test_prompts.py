"""What a request would become, without an answer: `dry_run` and POST /tokenize."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from tests.e2e.stack import RunningStack
from tests.support.models import smollm2

MODEL = "smollm2-135m"
TEXT = "سلام دنیا 👋 and hello"
MESSAGES: Any = [{"role": "user", "content": TEXT}]


@pytest.fixture(scope="module")
def http(stack: RunningStack) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    with httpx.Client(base_url=stack.url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(smollm2() / "tokenizer.json"))


def test_a_dry_run_shows_the_prompt_that_an_answer_would_have(http: httpx.Client, tokenizer: Tokenizer) -> None:
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 5, "nonsense": 1}
    shown = http.post("/chat/completions", json={**body, "dry_run": True}).json()
    assert shown["object"] == "chat.completion.dry_run"
    assert shown["prompt"].endswith(f"<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n")
    assert shown["prompt_tokens"] == len(tokenizer.encode(shown["prompt"], add_special_tokens=False).ids)
    assert shown["prompt_tokens"] + shown["remaining_tokens"] == 2048
    assert "nonsense" in shown["ignored_parameters"]
    assert shown["worker"].startswith("127.0.0.1:")
    answered = http.post("/chat/completions", json=body).json()
    assert answered["usage"]["prompt_tokens"] == shown["prompt_tokens"]


def test_a_rendered_prompt_is_completed_as_the_chat_is_answered(http: httpx.Client, tokenizer: Tokenizer) -> None:
    body = {"model": MODEL, "max_tokens": 12, "temperature": 0, "seed": 1}
    prompt = http.post("/chat/completions", json={**body, "messages": MESSAGES, "dry_run": True}).json()["prompt"]
    answered = http.post("/chat/completions", json={**body, "messages": MESSAGES}).json()
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    for given in (prompt, ids):
        completed = http.post("/completions", json={**body, "prompt": given}).json()
        assert completed["choices"][0]["text"] == answered["choices"][0]["message"]["content"]
        assert completed["usage"]["prompt_tokens"] == answered["usage"]["prompt_tokens"]


def test_a_dry_run_of_a_text_shows_its_tokens_and_completes_nothing(http: httpx.Client, tokenizer: Tokenizer) -> None:
    before = http.get("/usage").json()["today"]
    body = {"model": MODEL, "prompt": TEXT, "dry_run": True, "nonsense": 1, "user": "u"}
    answer = http.post("/completions", json=body)
    shown = answer.json()
    assert (shown["object"], shown["prompt"]) == ("text_completion.dry_run", TEXT)
    assert shown["prompt_tokens"] == len(tokenizer.encode(TEXT, add_special_tokens=False).ids)
    assert "choices" not in shown
    assert shown["ignored_parameters"] == answer.headers["x-ignored-params"].split(",") == ["nonsense"]
    assert http.get("/usage").json()["today"]["completion_tokens"] == before["completion_tokens"]


@pytest.mark.parametrize("given", [{"prompt": TEXT}, {"messages": MESSAGES}, {"prompt": TEXT, "messages": MESSAGES}])
def test_what_has_no_influence_on_tokens_is_reported_or_rejected(http: httpx.Client, given: dict[str, Any]) -> None:
    body = {"model": MODEL, **given, "nonsense": 1}
    answer = http.post("/tokenize", json=body)
    assert answer.status_code == 200
    ignored = ["nonsense", *(["prompt"] if len(given) > 1 else [])]
    assert answer.headers["x-ignored-params"].split(",") == ignored
    strict = http.post("/tokenize", json=body, headers={"x-strict-params": "true"})
    assert strict.status_code == 400
    assert strict.json()["error"]["param"] == "nonsense"
    del body["nonsense"]
    good = http.post("/tokenize", json=body, headers={"x-strict-params": "true"})
    assert good.status_code == (200 if len(given) == 1 else 400)


def test_a_dry_run_is_checked_and_costs_no_tokens(http: httpx.Client) -> None:
    before = http.get("/usage").json()["today"]
    body = {"model": MODEL, "messages": MESSAGES, "dry_run": True, "stream": True}
    assert http.post("/chat/completions", json=body).headers["content-type"].startswith("application/json")
    wrong = http.post("/chat/completions", json={**body, "temperature": 7})
    assert wrong.status_code == 400
    assert wrong.json()["error"]["param"] == "temperature"
    after = http.get("/usage").json()["today"]
    assert after["prompt_tokens"] == before["prompt_tokens"]
    assert after["completion_tokens"] == before["completion_tokens"]


def test_texts_and_conversations_are_tokenized(http: httpx.Client, tokenizer: Tokenizer) -> None:
    shown = http.post("/tokenize", json={"model": MODEL, "prompt": TEXT}).json()
    assert shown["tokens"] == tokenizer.encode(TEXT, add_special_tokens=False).ids
    assert (shown["count"], shown["max_model_len"]) == (len(shown["tokens"]), 2048)
    chat = http.post("/tokenize", json={"model": MODEL, "messages": MESSAGES}).json()
    assert chat["count"] > shown["count"]
    assert TEXT in tokenizer.decode(chat["tokens"])


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"prompt": "x"}, 400, "model"),
        ({"model": MODEL}, 400, "prompt"),
        ({"model": MODEL, "prompt": 3}, 400, "prompt"),
        ({"model": "nobody", "prompt": "x"}, 404, "model"),
    ],
)
def test_what_is_wrong_is_named(http: httpx.Client, body: dict[str, Any], status: int, param: str) -> None:
    answer = http.post("/tokenize", json=body)
    assert answer.status_code == status
    assert answer.json()["error"]["param"] == param
