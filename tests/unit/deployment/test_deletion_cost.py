"""The order in which the pods of a scaled pool are removed, with a stand-in for the Kubernetes API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.deployment.deletion_cost import ANNOTATION, Cluster, cost_of, running_requests, update
from services.deployment.kubernetes_api import KubernetesApi
from services.embeddings import metrics as embeddings_metrics
from services.inference import metrics as inference_metrics


class Api(ThreadingHTTPServer):
    """The Kubernetes API, and the metrics of all pods."""

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, Handler)
        self.pods: list[dict[str, Any]] = []
        self.metrics: dict[str, str] = {}
        """The metrics by the address of a pod. Other pods do not answer."""
        self.gone: set[str] = set()
        self.patches: list[tuple[str, str]] = []
        self.tokens: set[str | None] = set()


class Handler(BaseHTTPRequestHandler):
    server: Api

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self, status: int, body: str = "") -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self) -> None:
        if self.path == "/metrics":
            address = self.headers["Host"].rpartition(":")[0]
            text = self.server.metrics.get(address)
            self._answer(200 if text is not None else 500, text or "")
            return
        assert self.path == "/api/v1/namespaces/ai/pods?labelSelector=vilix%2Fworker%3Dtrue"
        self.server.tokens.add(self.headers["Authorization"])
        self._answer(200, json.dumps({"items": self.server.pods}))

    def do_PATCH(self) -> None:
        name = self.path.rpartition("/")[2]
        patch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.headers["Content-Type"] == "application/merge-patch+json"
        self.server.patches.append((name, patch["metadata"]["annotations"][ANNOTATION]))
        self._answer(404 if name in self.server.gone else 200)


@contextmanager
def running_api(host: str = "127.0.0.1", port: int = 0) -> Iterator[Api]:
    with Api((host, port)) as api:
        thread = threading.Thread(target=api.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield api
        finally:
            api.shutdown()
            thread.join(10)


@pytest.fixture
def api() -> Iterator[Api]:
    with running_api() as running:
        yield running


@pytest.fixture
def cluster(api: Api, tmp_path: Path) -> Cluster:
    (tmp_path / "token").write_text("the-token\n")
    url = f"http://127.0.0.1:{api.server_port}"
    return Cluster(KubernetesApi(url, "ai", token_file=tmp_path / "token"), "vilix/worker=true")


def pod(name: str, address: str = "", cost: int | None = None, **metadata: str) -> dict[str, Any]:
    annotations = {} if cost is None else {ANNOTATION: str(cost)}
    status = {"podIP": address} if address else {}
    return {"metadata": {"name": name, "annotations": annotations, **metadata}, "status": status}


def metrics(running: int) -> str:
    return f'vilix_worker_requests_in_flight{{model="m"}} {running}.0\nvilix_engine_queued{{model="m"}} 9.0\n'


def test_a_pod_with_more_open_requests_costs_more(api: Api, cluster: Cluster) -> None:
    api.pods = [pod("busy", "127.0.0.1"), pod("idle", "127.0.0.2"), pod("starting")]
    api.metrics = {"127.0.0.1": metrics(40)}
    with running_api("127.0.0.2", api.server_port) as other:
        other.metrics = {"127.0.0.2": metrics(0)}
        update(cluster, metrics_port=api.server_port)
    assert sorted(api.patches) == [("busy", "32"), ("idle", "0")]
    assert api.tokens == {"Bearer the-token"}


def test_only_changes_are_written(api: Api, cluster: Cluster) -> None:
    api.pods = [pod("same", "127.0.0.1", cost=4)]
    api.metrics = {"127.0.0.1": metrics(7)}
    update(cluster, metrics_port=api.server_port)
    assert api.patches == []
    api.metrics = {"127.0.0.1": metrics(8)}
    update(cluster, metrics_port=api.server_port)
    assert api.patches == [("same", "8")]


def test_a_pod_without_an_answer_keeps_its_cost(api: Api, cluster: Cluster) -> None:
    api.pods = [pod("silent", "127.0.0.1", cost=16)]
    update(cluster, metrics_port=api.server_port)
    assert api.patches == []


def test_a_pod_that_is_being_removed_is_left_alone(api: Api, cluster: Cluster) -> None:
    api.pods = [pod("leaving", "127.0.0.1", deletionTimestamp="2026-11-29T00:00:00Z")]
    api.metrics = {"127.0.0.1": metrics(1)}
    update(cluster, metrics_port=api.server_port)
    assert api.patches == []


def test_a_pod_that_is_gone_stops_nothing(api: Api, cluster: Cluster) -> None:
    api.pods, api.gone = [pod("gone", "127.0.0.1"), pod("here", "127.0.0.1")], {"gone"}
    api.metrics = {"127.0.0.1": metrics(1)}
    update(cluster, metrics_port=api.server_port)
    assert api.patches == [("gone", "1"), ("here", "1")]


def test_costs_follow_the_load_in_steps() -> None:
    costs = [cost_of(running) for running in range(100)]
    assert costs == sorted(costs)
    assert len(set(costs)) < 10


@pytest.mark.parametrize(
    "gauge", [inference_metrics.REQUESTS_IN_FLIGHT, embeddings_metrics.IN_FLIGHT], ids=["inference", "embeddings"]
)
def test_the_workers_metrics_are_understood(gauge: Any) -> None:
    registry = CollectorRegistry()
    registry.register(gauge)
    gauge.labels("model-of-a-test").set(3)
    try:
        assert running_requests(generate_latest(registry).decode()) == 3
    finally:
        gauge.remove("model-of-a-test")
    assert running_requests("vilix_engine_queued 1.0") is None
