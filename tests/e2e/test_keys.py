"""`vilix keys` with a running stack."""

from __future__ import annotations

import json
import subprocess

import httpx

from tests.e2e.stack import RunningStack


def models_status(stack: RunningStack, api_key: str) -> httpx.Response:
    return httpx.get(f"{stack.url}/models", headers={"Authorization": f"Bearer {api_key}"}, timeout=10)


def created(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    return str(json.loads(result.stdout)["key"])


def test_a_new_key_works_until_it_is_revoked(stack: RunningStack) -> None:
    api_key = created(stack.vilix("keys", "create", "--name", "shop", "--json"))
    assert models_status(stack, api_key).status_code == 200
    assert "shop" in stack.vilix("keys", "list").stdout
    assert api_key not in stack.vilix("keys", "list").stdout, "a key is shown only once"
    assert stack.vilix("keys", "revoke", "shop").returncode == 0
    assert models_status(stack, api_key).status_code == 401


def test_requests_per_minute_are_enforced_and_reported(stack: RunningStack) -> None:
    api_key = created(stack.vilix("keys", "create", "--name", "limited", "--rpm", "3", "--json"))
    body = {"model": "smollm2-135m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    responses = [
        httpx.post(
            f"{stack.url}/chat/completions", headers={"Authorization": f"Bearer {api_key}"}, json=body, timeout=30
        )
        for _ in range(4)
    ]
    assert [response.status_code for response in responses] == [200, 200, 200, 429]
    assert [response.headers["x-ratelimit-remaining-requests"] for response in responses][:3] == ["2", "1", "0"]
    rejected = responses[3]
    assert rejected.json()["error"]["code"] == "rate_limit_exceeded"
    assert 1 <= int(rejected.headers["retry-after"]) <= 21


def test_a_secret_as_an_argument_is_rejected_with_the_reason(stack: RunningStack) -> None:
    result = stack.vilix("keys", "revoke", stack.api_key)
    assert result.returncode != 0
    assert "process list" in result.stderr
    assert stack.api_key not in result.stderr
    assert models_status(stack, stack.api_key).status_code == 200


def test_an_unknown_key_name_is_reported_in_one_line(stack: RunningStack) -> None:
    result = stack.vilix("keys", "revoke", "nobody")
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "nobody" in result.stderr


def test_valkey_does_not_store_the_secret(stack: RunningStack) -> None:
    api_key = created(stack.vilix("keys", "create", "--name", "hidden", "--json"))
    stored = b"".join(path.read_bytes() for path in (stack.directory / "valkey").rglob("*") if path.is_file())
    assert b"hidden" in stored
    assert api_key.encode() not in stored
    assert api_key[4:].encode() not in stored


def test_the_next_turn_of_a_conversation_is_read_from_the_cache_of_its_own_key_only(stack: RunningStack) -> None:
    other_key = created(stack.vilix("keys", "create", "--name", "neighbour", "--json"))
    messages = [{"role": "user", "content": "Repeat after me: " + " ".join(map(str, range(60)))}]

    def usage(api_key: str) -> tuple[int, int]:
        response = httpx.post(
            f"{stack.url}/chat/completions",
            headers={"Authorization": f"Bearer {api_key}"},
            json={"model": "smollm2-135m", "messages": messages, "max_tokens": 4, "temperature": 0},
            timeout=60,
        ).json()
        messages.append(response["choices"][0]["message"])
        messages.append({"role": "user", "content": "Go on."})
        return response["usage"]["prompt_tokens"], response["usage"]["prompt_tokens_details"]["cached_tokens"]

    first, cached = usage(stack.api_key)
    assert cached == 0
    _, cached = usage(stack.api_key)
    # What the template writes behind a message may differ from what began the answer.
    assert cached >= first - 8
    assert usage(other_key)[1] == 0
