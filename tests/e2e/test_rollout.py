"""An update of the whole installation under load cuts off no request and rejects none.

Gateways, workers, Tritons and Nginx are real, with the variables, arguments and timings of the rendered chart.
tests/e2e/pods.py simulates Kubernetes: it starts new pods before it stops old ones, and Nginx learns of both late.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.inference.model.tokenizer import ModelTokenizer
from services.inference.weights.model_repository import write_model
from services.stack.image import prepare
from tests.e2e.nginx import Nginx, running_nginx
from tests.e2e.pods import Pod, ports, until_http_ok, until_serving
from tests.support.helm import Manifest, containers, find, template
from tests.support.valkey import running_valkey
from tests.support.waits import until

MODEL = "replay"
TEXT = "می\u200cخواهم همه‌ی این متن تا آخر برسد، بدون آن\u200cکه چیزی از آن کم شود. " * 2
STREAMS = 12
LONGEST, PRE_STOP = 15, 3
STREAM_SECONDS = 5
"""Longer than preStop, so that some streams are running when a pod gets SIGTERM."""
VALUES = {
    MODEL: {
        "engine": "replay",
        "gpus": 0,
        "weights": {"source": "package"},
        "catalog": {
            "created": "2026-01-01",
            "owned_by": "tests",
            "checkpoint": "none",
            "licence": "none",
            "context_length": 512,
            "engine": {"name": "replay"},
            "descriptions": {"en": "A recording."},
        },
    }
}
SITE = """
upstream vilix {{ {servers} keepalive 16; }}
server {{
  listen 127.0.0.1:{port};
  location / {{
    proxy_pass http://vilix;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_connect_timeout 2s;
  }}
}}
"""


@dataclass
class Load:
    """Clients that read streams without a pause."""

    complete: int = 0
    broken: list[str] = field(default_factory=list)

    async def client(self, http: httpx.AsyncClient) -> None:
        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "سلام"}]}
        while True:
            try:
                async with http.stream("POST", "/api/chat/completions", json=body) as response:
                    lines = [line async for line in response.aiter_lines() if line.startswith("data: ")]
            except httpx.HTTPError as error:
                self.broken.append(repr(error))
                continue
            if response.status_code != 200 or lines[-1:] != ["data: [DONE]"] or _text(lines[:-1]) != TEXT:
                self.broken.append(f"{response.status_code} {lines[-2:]}")
            else:
                self.complete += 1


class Cluster:
    """The pods of the chart on this machine."""

    def __init__(self, directory: Path, manifests: list[Manifest], redis_url: str) -> None:
        self._directory = directory
        self._manifests = manifests
        self._redis_url = redis_url
        self._count = 0
        self.worker_ports = ports(2)
        self.pods: list[Pod] = []
        catalog = directory / "catalog"
        catalog.mkdir()
        for name, text in find(manifests, "ConfigMap", "vilix-catalog")["data"].items():
            (catalog / name).write_text(text)
        self._catalog = catalog
        self._image = directory / "image"
        prepare(self._image)
        self.model_directory = self._image / "weights" / "smollm2-135m"
        recordings = directory / "recordings.json"
        token_ids = [*ModelTokenizer(self.model_directory).encode(TEXT), 2]
        interval = round(STREAM_SECONDS * 1000 / len(token_ids))
        recordings.write_text(json.dumps([{"name": "text", "token_ids": token_ids, "interval_ms": interval}]))
        self._repository = directory / "repository"
        arguments = {"recordings": str(recordings), "context_length": 512, "slots": 64}
        write_model(self._repository, model_id=MODEL, engine="replay", engine_args=arguments)

    async def start_gateway(self) -> tuple[Pod, str]:
        """Start a gateway, and return it with its port once it is ready."""
        pod = self._pod("Deployment", "vilix-gateway")
        port, metrics = ports(2)
        changes = {
            "VILIX_HOST": "127.0.0.1",
            "VILIX_PORT": port,
            "VILIX_METRICS_PORT": metrics,
            "VILIX_REDIS_URL": self._redis_url,
            "VILIX_REDIS_TIMEOUT": "5",
            # The ports replace the addresses from DNS.
            "VILIX_INFERENCE_WORKERS": ",".join(f"127.0.0.1:{worker}" for worker in self.worker_ports),
        }
        pod.start_python("gateway", changes)
        path = containers(pod.manifest)["gateway"]["readinessProbe"]["httpGet"]["path"]
        await until_http_ok(f"http://127.0.0.1:{port}{path}")
        return pod, port

    async def start_worker(self, port: str) -> Pod:
        """Start a worker with its Triton, and return the pod once it is ready."""
        pod = self._pod("Deployment", f"vilix-{MODEL}")
        http, triton, triton_metrics, health, metrics = ports(5)
        pod.start_triton(
            {
                "--model-repository": str(self._repository),
                "--http-port": http,
                "--grpc-port": triton,
                "--metrics-port": triton_metrics,
                "--metrics-address": "127.0.0.1",
            },
            image=self._image,
        )
        await until_http_ok(f"http://127.0.0.1:{http}/v2/health/ready")
        changes = {
            "VILIX_LISTEN": f"127.0.0.1:{port}",
            "VILIX_HEALTH_LISTEN": f"127.0.0.1:{health}",
            "VILIX_TRITON": f"127.0.0.1:{triton}",
            "VILIX_METRICS_PORT": metrics,
            "VILIX_MODELS": f"{MODEL}={self.model_directory}",
            "VILIX_CATALOG_DIR": str(self._catalog),
        }
        pod.start_python("worker", changes)
        await until_serving(f"127.0.0.1:{health}")
        return pod

    def _pod(self, kind: str, name: str) -> Pod:
        self._count += 1
        pod = Pod(find(self._manifests, kind, name), self._directory / f"{name}-{self._count}")
        self.pods.append(pod)
        return pod


@pytest.fixture
def manifests() -> list[Manifest]:
    sets = [f"models={json.dumps(VALUES)}", f"maxStreamSeconds={LONGEST}", f"preStopSeconds={PRE_STOP}"]
    return template(sets=[*sets, "gateway.autoscaling.enabled=false"])


@pytest.fixture
def cluster(tmp_path: Path, manifests: list[Manifest]) -> Iterator[Cluster]:
    with running_valkey(tmp_path / "valkey") as redis_url:
        cluster = Cluster(tmp_path, manifests, redis_url)
        try:
            yield cluster
        finally:
            for pod in reversed(cluster.pods):
                pod.kill()


@contextlib.asynccontextmanager
async def under_load(url: str, redis_url: str) -> AsyncIterator[Load]:
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        _, key = await keys.create(redis, name="load")
    load = Load()
    # A reload of Nginx closes idle connections of clients, perhaps while one sends a request. This is not ours to test,
    # and ingress controllers change endpoints without a reload.
    limits = httpx.Limits(max_connections=STREAMS, max_keepalive_connections=0)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60, limits=limits) as http:
        clients = [asyncio.create_task(load.client(http)) for _ in range(STREAMS)]
        try:
            yield load
        finally:
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)


async def test_an_update_of_all_pods_breaks_no_stream(
    tmp_path: Path, cluster: Cluster, manifests: list[Manifest]
) -> None:
    replicas = find(manifests, "Deployment", "vilix-gateway")["spec"]["replicas"]
    worker = await cluster.start_worker(cluster.worker_ports[0])
    gateways = [await cluster.start_gateway() for _ in range(replicas)]
    (proxy,) = ports(1)
    (tmp_path / "nginx").mkdir()
    with running_nginx(tmp_path / "nginx", _site(proxy, gateways), port=int(proxy)) as nginx:
        async with under_load(f"http://127.0.0.1:{proxy}", cluster._redis_url) as load:
            await _progress(load, STREAMS)
            for old in list(gateways):
                gateways.append(await cluster.start_gateway())
                gateways.remove(old)
                await asyncio.gather(_reload_late(nginx, _site(proxy, gateways)), old[0].delete())
            # Gateways find the new worker before the old one stops, within the time of preStop.
            await cluster.start_worker(cluster.worker_ports[1])
            seconds = await worker.delete()
            await _progress(load, STREAMS)
    assert not load.broken
    assert load.complete > 3 * STREAMS
    assert seconds > PRE_STOP


async def _reload_late(nginx: Nginx, site: str) -> None:
    """Reload the proxy some time after a pod begins to stop, because proxies learn of endpoints late."""
    await asyncio.sleep(PRE_STOP * 0.6)
    nginx.reload(site)


async def _progress(load: Load, count: int) -> None:
    """Wait until `count` more streams are complete."""
    target = load.complete + count

    async def is_reached() -> bool:
        assert not load.broken, load.broken[:3]
        return load.complete >= target

    await until(is_reached, seconds=60)


def _site(port: str, gateways: list[tuple[Pod, str]]) -> str:
    servers = "".join(f"server 127.0.0.1:{gateway};" for _, gateway in gateways)
    return SITE.format(servers=servers, port=port)


def _text(lines: list[str]) -> str:
    deltas = (choice["delta"] for line in lines for choice in json.loads(line[6:])["choices"])
    return "".join(delta.get("content") or "" for delta in deltas)
