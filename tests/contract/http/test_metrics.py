"""The promises of the gateway's metrics: a bounded number of series, exemplars, and the state of every model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from services.gateway.record import Outcome
from services.gateway.tenancy.limits import LIMITS
from tests.support.gateway import EXPECTED
from tests.support.scripted_worker import MODEL, ScriptedWorker, content, finish, started, usage
from tests.support.waits import until

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
METHODS = ["GET", "POST", "PROPFIND", "X" * 50, "TRACE", "VILIX"]
HOSTILE = 'x"} 1\nvilix_fake{a="'


@pytest.fixture
def metrics_url(http: httpx.AsyncClient, metrics_port: int) -> str:
    return f"http://127.0.0.1:{metrics_port}/metrics"


async def families(url: str, *, is_openmetrics: bool = False) -> list[Metric]:
    async with httpx.AsyncClient(headers=OPENMETRICS if is_openmetrics else {"Accept": "text/plain"}) as client:
        response = await client.get(url)
    assert response.status_code == 200
    parse: Any = openmetrics.text_string_to_metric_families if is_openmetrics else text_string_to_metric_families
    return list(parse(response.text))


def series(found: list[Metric]) -> set[tuple[str, frozenset[tuple[str, str]]]]:
    return {(sample.name, frozenset(sample.labels.items())) for family in found for sample in family.samples}


def bodies(hostile: str) -> Iterator[tuple[str, Any]]:
    message = {"role": "user", "content": "a"}
    yield "/chat/completions", {"model": hostile, "messages": [message]}
    yield "/completions", {"model": hostile, "prompt": "a"}
    yield "/embeddings", {"model": hostile, "input": "a"}
    yield "/messages", {"model": hostile, "messages": [message], "max_tokens": 1}
    yield "/responses", {"model": hostile, "input": "a"}
    yield "/tokenize", {"model": hostile, "prompt": "a"}


async def attack(client: httpx.AsyncClient, number: int) -> None:
    """Send everything that a caller chooses freely, with a text of its own for each number."""
    hostile = f"{HOSTILE}{number}"
    for path, body in bodies(hostile):
        await client.post(path, json=body, headers={"x-request-id": f"hostile-{number}", "user-agent": repr(hostile)})
        await client.post(path, json=body, headers={"authorization": f"Bearer hostile-{number}"})
    for method in [*METHODS, f"M{number}"]:
        # The server rejects some of them without an answer.
        with contextlib.suppress(httpx.HTTPError):
            await client.request(method, f"/nothing-{number}/{'a/' * number}b", params={"q": hostile})
        with contextlib.suppress(httpx.HTTPError):
            await client.request(method, "/chat/completions", content=hostile)
    await client.get(f"/models/hostile-{number}")
    await client.get(f"/responses/hostile-{number}")
    await client.delete(f"/responses/hostile-{number}")


async def test_no_text_of_a_caller_creates_series(http: httpx.AsyncClient, metrics_url: str) -> None:
    await attack(http, 1)
    before = series(await families(metrics_url))
    for number in range(2, 12):
        await attack(http, number)
    after = series(await families(metrics_url))
    assert after - before == set()
    values = {value for _, labels in after for _, value in labels}
    assert not [value for value in values if "hostile" in value or "nothing" in value or "fake" in value]
    assert not values & {*METHODS} - {"GET", "POST"}


async def test_slow_requests_are_linked_by_exemplars(
    http: httpx.AsyncClient, worker: ScriptedWorker, metrics_url: str
) -> None:
    worker.script = [[started(), content("a")], [content("b")], [finish(), usage()]]
    body = {"model": MODEL, "messages": [{"role": "user", "content": "a"}]}
    response = await http.post("/chat/completions", json=body, headers={"x-request-id": "linked"})
    assert response.status_code == 200, response.text
    names = {"vilix_http_request_duration_seconds", "vilix_first_token_seconds"}
    for family in await families(metrics_url, is_openmetrics=True):
        if family.name in names:
            linked = [sample.exemplar for sample in family.samples if sample.exemplar]
            assert any(exemplar.labels == {"request_id": "linked"} for exemplar in linked), family.name
            names.remove(family.name)
    assert not names
    # The text format has no exemplars, and so nothing about callers.
    async with httpx.AsyncClient() as plain:
        assert "linked" not in (await plain.get(metrics_url)).text


async def test_the_build_and_every_models_workers_are_exported(
    http: httpx.AsyncClient, worker: ScriptedWorker, metrics_url: str
) -> None:
    found = await families(metrics_url)
    build = next(family for family in found if family.name == "vilix_build_info").samples
    assert [(sample.labels["component"], sample.value) for sample in build] == [("gateway", 1.0)]
    names = {sample.name for family in found for sample in family.samples}
    limits = {s.labels["limit"] for f in found for s in f.samples if s.name == "vilix_limits_rejected_total"}
    assert limits == {*LIMITS}, "an alert must see the first rejection"
    counted = [s.labels for f in found for s in f.samples if s.name == "vilix_request_outcomes_total"]
    for model in (EXPECTED, "none", "unknown"):
        seen = {labels["outcome"] for labels in counted if labels["model"] == model}
        assert seen >= {*Outcome} - {Outcome.REJECTED, Outcome.LOST}, "an alert must see the first failure"
    assert not [name for name in names if name.startswith("vilix_") and name.endswith("_created")]

    async def values(model: str) -> dict[str, float]:
        samples = [sample for family in await families(metrics_url) for sample in family.samples]
        names = ("vilix_model_workers", "vilix_model_available")
        return {s.name: s.value for s in samples if s.name in names and s.labels["model"] == model}

    async def is_counted() -> bool:
        return await values(MODEL) == {"vilix_model_workers": 1.0, "vilix_model_available": 1.0}

    # A model whose workers never came has a series that an alert can follow.
    assert await values(EXPECTED) == {"vilix_model_workers": 0.0, "vilix_model_available": 0.0}

    await until(is_counted)
