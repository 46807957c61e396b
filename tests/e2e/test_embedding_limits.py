"""Keys, limits and usage of embedding requests."""

from __future__ import annotations

import re

import httpx

from tests.e2e.stack import RunningStack
from tests.support.messages import message_id_of

MODEL = "multilingual-e5-small"


def new_key(stack: RunningStack, name: str, *limits: str) -> httpx.Client:
    created = stack.vilix("keys", "create", "--name", name, *limits)
    assert created.returncode == 0, created.stderr
    secret = re.search(r"vlx_\w{36}", created.stdout)
    assert secret is not None, created.stdout
    return httpx.Client(base_url=stack.url, headers={"Authorization": f"Bearer {secret[0]}"}, timeout=60)


def embed(client: httpx.Client, *texts: str) -> httpx.Response:
    return client.post("/embeddings", json={"model": MODEL, "input": list(texts)})


def today(client: httpx.Client) -> dict[str, int]:
    return dict(client.get("/usage").json()["today"])


def test_usage_counts_tokens_exactly(stack: RunningStack) -> None:
    with new_key(stack, "embeds", "--daily-tokens", "10000") as client:
        responses = [embed(client, "سلام دنیا"), embed(client, "یک", "دو", "سه")]
        billed = sum(response.json()["usage"]["prompt_tokens"] for response in responses)
        usage = client.get("/usage").json()
        assert (usage["today"]["prompt_tokens"], usage["today"]["completion_tokens"]) == (billed, 0)
        assert usage["remaining"]["daily_tokens"] == 10_000 - billed
        assert (usage["running"], usage["reserved_tokens"]) == (0, 0)


def test_a_rejected_request_costs_nothing(stack: RunningStack) -> None:
    with new_key(stack, "embeds-wrongly", "--daily-tokens", "10000") as client:
        assert embed(client, "سلام", "").status_code == 400
        usage = client.get("/usage").json()
        assert usage["today"]["prompt_tokens"] == 0
        assert (usage["running"], usage["reserved_tokens"]) == (0, 0)


def test_a_rate_limit_rejects_requests_with_429(stack: RunningStack) -> None:
    with new_key(stack, "embeds-too-often", "--rpm", "1") as client:
        assert embed(client, "سلام").headers["x-ratelimit-remaining-requests"] == "0"
        rejected = embed(client, "سلام")
        assert rejected.status_code == 429
        assert rejected.json()["error"]["code"] == "rate_limit_exceeded"
        assert int(rejected.headers["retry-after"]) > 0


def test_a_request_with_more_tokens_than_the_limit_per_minute_is_rejected(stack: RunningStack) -> None:
    with new_key(stack, "embeds-too-much", "--tpm", "50") as client:
        rejected = embed(client, "سلام دنیا " * 40)
        assert rejected.status_code == 429
        assert message_id_of(rejected) == "request_over_token_rate"


def test_a_key_for_other_models_gets_403(stack: RunningStack) -> None:
    with new_key(stack, "chats-only", "--models", "smollm2-135m") as client:
        rejected = embed(client, "سلام")
        assert rejected.status_code == 403
        assert rejected.json()["error"]["code"] == "model_not_allowed"
