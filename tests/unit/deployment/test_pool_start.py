"""The start of pools after their downloads, with a stand-in for the Kubernetes API."""

from __future__ import annotations

import copy
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.deployment import kubernetes_api, pool_start
from services.deployment.kubernetes_api import KubernetesApi
from services.deployment.pool_start import ANNOTATION, WaitingPool, start_complete
from tests.support.kubernetes_api import KubernetesServer, StoredObject, running_kubernetes

FIRST, SECOND = (WaitingPool(f"vilix-{name}", f"{name}/us--{name}@main", f"vilix-{name}-weights") for name in "ab")


@pytest.fixture
def server() -> Iterator[KubernetesServer]:
    with running_kubernetes() as running:
        yield running


@pytest.fixture
def api(server: KubernetesServer, tmp_path: Path) -> KubernetesApi:
    (tmp_path / "token").write_text("the-token\n")
    return KubernetesApi(server.url, "ai", token_file=tmp_path / "token")


def add(server: KubernetesServer, resource: str, name: str, **content: Any) -> StoredObject:
    stored = server.objects[resource, name] = StoredObject()
    metadata = {"name": name, **content.pop("metadata", {})}
    stored.apply({"metadata": metadata, **copy.deepcopy(content)}, "helm", force=False)
    return stored


def add_pool(server: KubernetesServer, pool: WaitingPool, *, condition: str = "", **spec: Any) -> StoredObject:
    conditions = [{"type": "Suspended", "status": "False"}]
    if condition:
        conditions.append({"type": condition, "status": "True"})
    add(server, "jobs", pool.job, status={"conditions": conditions})
    metadata = {"annotations": {ANNOTATION: pool.weights}}
    return add(server, "deployments", pool.deployment, metadata=metadata, spec={"replicas": 2, "paused": True, **spec})


def test_each_pool_starts_when_its_own_download_is_complete(server: KubernetesServer, api: KubernetesApi) -> None:
    first, second = add_pool(server, FIRST, condition="Complete"), add_pool(server, SECOND)
    assert start_complete(api, [FIRST, SECOND]) == {SECOND: "the Job vilix-b-weights"}
    assert first.content["spec"] == {"replicas": 2}
    assert second.content["spec"] == {"replicas": 2, "paused": True}


def test_helm_keeps_what_it_owns_after_a_start(server: KubernetesServer, api: KubernetesApi) -> None:
    stored = add_pool(server, FIRST, condition="Complete")
    assert start_complete(api, [FIRST]) == {}
    stored.apply({**stored.content, "spec": {"replicas": 3, "paused": True}}, "helm", force=False)
    assert stored.content["spec"] == {"replicas": 3, "paused": True}


def test_a_pool_that_waits_for_other_weights_is_not_started(
    server: KubernetesServer, api: KubernetesApi, caplog: pytest.LogCaptureFixture
) -> None:
    """Helm has changed the pool since the Job began, and has made a Job for the change."""
    stored = add_pool(server, FIRST, condition="Complete")
    stored.content["metadata"]["annotations"][ANNOTATION] = "a/us--a@v2"
    with caplog.at_level(logging.INFO):
        assert start_complete(api, [FIRST]) == {}
    assert stored.content["spec"]["paused"]
    assert "does not wait" in caplog.text


def test_a_pool_that_somebody_started_or_removed_needs_nothing(server: KubernetesServer, api: KubernetesApi) -> None:
    stored = add_pool(server, FIRST, condition="Complete")
    del stored.content["spec"]["paused"]
    add_pool(server, SECOND, condition="Complete")
    del server.objects["deployments", SECOND.deployment]
    assert start_complete(api, [FIRST, SECOND]) == {}


def test_a_download_that_failed_or_does_not_exist_yet_is_waited_for(
    server: KubernetesServer, api: KubernetesApi
) -> None:
    stored = add_pool(server, FIRST, condition="Failed")
    assert start_complete(api, [FIRST, SECOND]) == {
        FIRST: "the Job vilix-a-weights, which has failed: its log says why",
        SECOND: "the Job vilix-b-weights, which does not exist",
    }
    assert stored.content["spec"]["paused"]


def test_an_api_that_is_away_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("the-token\n")
    away = KubernetesApi("http://127.0.0.1:1", "ai", token_file=tmp_path / "token")
    assert "the Kubernetes API: " in start_complete(away, [FIRST])[FIRST]


def test_the_program_ends_when_all_pools_have_started(
    server: KubernetesServer, api: KubernetesApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = add_pool(server, FIRST)
    waits: list[float] = []

    def complete(seconds: float) -> None:
        waits.append(seconds)
        server.get("jobs", FIRST.job)["status"]["conditions"].append({"type": "Complete", "status": "True"})

    monkeypatch.setattr(time, "sleep", complete)
    monkeypatch.setattr(kubernetes_api, "from_environment", lambda: api)
    pool = {"deployment": FIRST.deployment, "weights": FIRST.weights, "job": FIRST.job}
    monkeypatch.setenv("VILIX_POOLS", json.dumps([pool]))
    monkeypatch.setenv("VILIX_INTERVAL_SECONDS", "5")
    pool_start.main()
    assert waits == [5]
    assert "paused" not in first.content["spec"]
