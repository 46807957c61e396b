"""The demo of values-cpu-demo.yaml without Kubernetes: its processes, started by the manifests, pass `helm test`.

Only the container images are replaced: the program that the Dockerfile runs makes the contents of the CPU image, and
the command of the pods' init container writes Triton's model repositories.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.stack.image import prepare
from tests.e2e.pods import Pod, ports, until_http_ok, until_serving
from tests.support.helm import containers, find, template
from tests.support.valkey import running_valkey

CHAT, EMBEDDINGS = "smollm2-135m", "multilingual-e5-small"


@pytest.fixture
def pods() -> Iterator[list[Pod]]:
    pods: list[Pod] = []
    try:
        yield pods
    finally:
        for pod in reversed(pods):
            pod.kill()


async def test_the_cpu_demo_passes_helm_test(tmp_path: Path, pods: list[Pod]) -> None:
    manifests = template("values-cpu-demo", sets=["preStopSeconds=0", "maxStreamSeconds=10"])
    image = tmp_path / "image"
    await asyncio.to_thread(prepare, image)
    for model_id in (CHAT, EMBEDDINGS):
        pool = find(manifests, "Deployment", f"vilix-{model_id}")
        _render(containers(pool)["render"]["command"], tmp_path, model_id, image)
    targets = {}
    for model_id in (CHAT, EMBEDDINGS):
        pod = Pod(find(manifests, "Deployment", f"vilix-{model_id}"), tmp_path / f"pod-{model_id}")
        pods.append(pod)
        http, triton, triton_metrics, port, health, metrics = ports(6)
        pod.start_triton(
            {
                "--model-repository": str(tmp_path / model_id),
                "--http-port": http,
                "--grpc-port": triton,
                "--metrics-port": triton_metrics,
                "--metrics-address": "127.0.0.1",
            },
            image=image,
        )
        await until_http_ok(f"http://127.0.0.1:{http}/v2/health/ready")
        changes = {
            "VILIX_LISTEN": f"127.0.0.1:{port}",
            "VILIX_HEALTH_LISTEN": f"127.0.0.1:{health}",
            "VILIX_TRITON": f"127.0.0.1:{triton}",
            "VILIX_METRICS_HOST": "127.0.0.1",
            "VILIX_METRICS_PORT": metrics,
            # The demo has no catalog entries of its own.
            "VILIX_CATALOG_DIR": str(tmp_path),
        }
        if model_id == CHAT:
            changes["VILIX_MODELS"] = f"{CHAT}={image / 'weights' / CHAT}"
        pod.start_python("worker", changes)
        await until_serving(f"127.0.0.1:{health}")
        targets[model_id] = f"127.0.0.1:{port}"
    with running_valkey(tmp_path / "valkey") as redis_url:
        async with Redis.from_url(redis_url, decode_responses=True) as redis:
            _, key = await keys.create(redis, name="test")
        gateway = Pod(find(manifests, "Deployment", "vilix-gateway"), tmp_path / "pod-gateway")
        pods.append(gateway)
        port, metrics = ports(2)
        changes = {
            "VILIX_HOST": "127.0.0.1",
            "VILIX_PORT": port,
            "VILIX_METRICS_HOST": "127.0.0.1",
            "VILIX_METRICS_PORT": metrics,
            "VILIX_REDIS_URL": redis_url,
            "VILIX_INFERENCE_WORKERS": targets[CHAT],
            "VILIX_EMBEDDINGS_WORKERS": targets[EMBEDDINGS],
        }
        gateway.start_python("gateway", changes)
        url = f"http://127.0.0.1:{port}"
        await until_http_ok(f"{url}/readyz")
        test = containers(find(manifests, "Pod", "vilix-one-token"))["one-token"]
        variables = {"URL": f"{url}/api", "MODELS": CHAT, "EMBEDDING_MODELS": EMBEDDINGS, "API_KEY": key}
        run = await asyncio.to_thread(_run, [sys.executable, *test["command"][1:]], variables)
        assert run.returncode == 0, run.stderr
        assert run.stdout == f"{CHAT}: one token\n{EMBEDDINGS}: 384 numbers\n"
        wrong = await asyncio.to_thread(_run, [sys.executable, *test["command"][1:]], {**variables, "API_KEY": "wrong"})
        assert wrong.returncode == 1
        assert f"{CHAT}: 401" in wrong.stderr
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=30) as http_client:
            response = await http_client.post(f"{url}/api/embeddings", json={"model": EMBEDDINGS, "input": "سلام"})
        assert len(response.json()["data"][0]["embedding"]) == 384
        for pod in reversed(pods):
            await pod.delete()


def _render(command: list[str], directory: Path, model_id: str, image: Path) -> None:
    paths = {"--output": directory / model_id, "--weights": image / "weights", "--catalog": directory}
    arguments = [
        f"{name}={paths[name]}" if (name := argument.partition("=")[0]) in paths else argument for argument in command
    ]
    arguments[0] = str(Path(sys.executable).with_name(arguments[0]))
    run = _run(arguments, {})
    assert run.returncode == 0, run.stderr


def _run(command: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
