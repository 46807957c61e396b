"""Rendered prompts and their tokens without a generation: `dry_run` and POST /tokenize."""

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


def test_a_dry_run_returns_the_prompt_of_the_request(http: httpx.Client, tokenizer: Tokenizer) -> None:
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 5, "nonsense": 1}
    rendered = http.post("/chat/completions", json={**body, "dry_run": True}).json()
    assert rendered["object"] == "chat.completion.dry_run"
    assert rendered["prompt"].endswith(f"<|im_start|>user\n{TEXT}<|im_end|>\n<|im_start|>assistant\n")
    assert rendered["prompt_tokens"] == len(tokenizer.encode(rendered["prompt"], add_special_tokens=False).ids)
    assert rendered["prompt_tokens"] + rendered["remaining_tokens"] == 2048
    assert "nonsense" in rendered["ignored_parameters"]
    assert rendered["worker"].startswith("127.0.0.1:")
    completion = http.post("/chat/completions", json=body).json()
    assert completion["usage"]["prompt_tokens"] == rendered["prompt_tokens"]


def test_completing_a_rendered_prompt_yields_the_text_of_the_chat(http: httpx.Client, tokenizer: Tokenizer) -> None:
    body = {"model": MODEL, "max_tokens": 12, "temperature": 0, "seed": 1}
    prompt = http.post("/chat/completions", json={**body, "messages": MESSAGES, "dry_run": True}).json()["prompt"]
    chat = http.post("/chat/completions", json={**body, "messages": MESSAGES}).json()
    ids = tokenizer.encode(prompt, add_special_tokens=False).ids
    for text_or_ids in (prompt, ids):
        completed = http.post("/completions", json={**body, "prompt": text_or_ids}).json()
        assert completed["choices"][0]["text"] == chat["choices"][0]["message"]["content"]
        assert completed["usage"]["prompt_tokens"] == chat["usage"]["prompt_tokens"]


def test_a_dry_run_of_a_text_counts_its_tokens_and_generates_nothing(http: httpx.Client, tokenizer: Tokenizer) -> None:
    before = http.get("/usage").json()["today"]
    body = {"model": MODEL, "prompt": TEXT, "dry_run": True, "nonsense": 1, "user": "u"}
    response = http.post("/completions", json=body)
    rendered = response.json()
    assert (rendered["object"], rendered["prompt"]) == ("text_completion.dry_run", TEXT)
    assert rendered["prompt_tokens"] == len(tokenizer.encode(TEXT, add_special_tokens=False).ids)
    assert "choices" not in rendered
    assert rendered["ignored_parameters"] == response.headers["x-ignored-params"].split(",") == ["nonsense"]
    assert http.get("/usage").json()["today"]["completion_tokens"] == before["completion_tokens"]


@pytest.mark.parametrize("fields", [{"prompt": TEXT}, {"messages": MESSAGES}, {"prompt": TEXT, "messages": MESSAGES}])
def test_fields_that_tokenize_ignores_are_reported_or_rejected(http: httpx.Client, fields: dict[str, Any]) -> None:
    body = {"model": MODEL, **fields, "nonsense": 1}
    response = http.post("/tokenize", json=body)
    assert response.status_code == 200
    ignored = ["nonsense", *(["prompt"] if len(fields) > 1 else [])]
    assert response.headers["x-ignored-params"].split(",") == ignored
    strict = http.post("/tokenize", json=body, headers={"x-strict-params": "true"})
    assert strict.status_code == 400
    assert strict.json()["error"]["param"] == "nonsense"
    del body["nonsense"]
    good = http.post("/tokenize", json=body, headers={"x-strict-params": "true"})
    assert good.status_code == (200 if len(fields) == 1 else 400)


def test_a_dry_run_is_validated_and_costs_no_tokens(http: httpx.Client) -> None:
    before = http.get("/usage").json()["today"]
    body = {"model": MODEL, "messages": MESSAGES, "dry_run": True, "stream": True}
    assert http.post("/chat/completions", json=body).headers["content-type"].startswith("application/json")
    wrong = http.post("/chat/completions", json={**body, "temperature": 7})
    assert wrong.status_code == 400
    assert wrong.json()["error"]["param"] == "temperature"
    after = http.get("/usage").json()["today"]
    assert after["prompt_tokens"] == before["prompt_tokens"]
    assert after["completion_tokens"] == before["completion_tokens"]


def test_tokenize_accepts_texts_and_conversations(http: httpx.Client, tokenizer: Tokenizer) -> None:
    rendered = http.post("/tokenize", json={"model": MODEL, "prompt": TEXT}).json()
    assert rendered["tokens"] == tokenizer.encode(TEXT, add_special_tokens=False).ids
    assert (rendered["count"], rendered["max_model_len"]) == (len(rendered["tokens"]), 2048)
    chat = http.post("/tokenize", json={"model": MODEL, "messages": MESSAGES}).json()
    assert chat["count"] > rendered["count"]
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
def test_tokenize_rejects_invalid_requests_with_the_field(
    http: httpx.Client, body: dict[str, Any], status: int, param: str
) -> None:
    response = http.post("/tokenize", json=body)
    assert response.status_code == status
    assert response.json()["error"]["param"] == param
