"""The gateway alone, with everything on, behind a cheap source and beside a bare writer.

The gateway or the bare writer has one core, and the load client, the source and Valkey have the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from redis.asyncio import Redis

from bench.processes import cpu_seconds
from bench.tokens.source import MODEL
from services.gateway.tenancy import keys
from services.gateway.tenancy.limits import Limits
from services.stack import readiness, valkey
from services.stack.ports import LOOPBACK, free_ports
from services.stack.supervisor import Program, Supervisor, Watcher

HERE: Final = Path(__file__).parent
PEERS: Final = ("vllm-router", "sglang-router")
PEERS_PYTHON: Final = HERE.parents[1] / ".cache" / "peers" / "bin" / "python"
LIMITS: Final = Limits(rpm=10**6, tpm=10**8, concurrency=10**4, daily_tokens=10**11, monthly_tokens=10**12)
MEMORY_SECONDS: Final = 0.5
"""The interval in which the memory of the server is read, whose peak is reported."""
STEP_MS: Final = 20.0
TOKENS: Final = 500


@dataclass(frozen=True)
class Alone:
    """The running processes."""

    directory: Path
    load: Path
    """The load client."""
    ports: Mapping[str, int]
    api_key: str
    supervisor: Supervisor

    def request(self, *, stream: bool, max_tokens: int, host: str = LOOPBACK) -> Path:
        """Write the bytes of a request to a file, and return its path."""
        body = json.dumps(
            {
                "model": MODEL,
                "stream": stream,
                "max_tokens": max_tokens,
                "messages": [{"role": "user", "content": "Count to ten, please."}],
            }
        )
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {self.api_key}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        path = self.directory / f"request-{stream}-{max_tokens}"
        path.write_text(head + body)
        return path

    def run(self, name: str, request: Path, *, connections: int, requests: int, rate: float = 0.0) -> dict[str, Any]:
        """Load the server `name`, and return the client's report with the server's processor seconds."""
        pid = self.supervisor.pids[name]
        before, memory_before = cpu_seconds(pid), psutil.Process(pid).memory_info().rss
        argv = [str(self.load), str(self.ports[name]), str(request), str(connections), str(requests), str(rate)]
        most = memory_before
        with subprocess.Popen(_on(_others(), argv), stdout=subprocess.PIPE) as client:
            while client.poll() is None and not _has_output(client):
                most = max(most, psutil.Process(pid).memory_info().rss)
            output, _ = client.communicate()
        if client.returncode:
            raise subprocess.CalledProcessError(client.returncode, argv)
        report: dict[str, Any] = json.loads(output)
        report["cpu_seconds"] = cpu_seconds(pid) - before
        report["rss_mb"], report["grown_mb"] = most / 1e6, (most - memory_before) / 1e6
        return report


def _has_output(client: subprocess.Popen[bytes]) -> bool:
    """Wait for a moment for the report of the load client, which it prints at its end."""
    assert client.stdout is not None  # noqa: S101  # it is a pipe
    ready, _, _ = select.select([client.stdout], [], [], MEMORY_SECONDS)
    return bool(ready)


def compile_load(directory: Path) -> Path:
    """Compile the load client. Raises FileNotFoundError without a compiler, and CalledProcessError."""
    path = directory / "load"
    compiler = shutil.which("cc")
    if compiler is None:
        raise FileNotFoundError("the load client needs a C compiler: install gcc")
    subprocess.run([compiler, "-O2", "-o", str(path), str(HERE / "load.c")], check=True)
    return path


@contextlib.asynccontextmanager
async def running(directory: Path, watcher: Watcher, *, peers: bool = False) -> AsyncIterator[Alone]:
    """Start everything, with `peers` also routers of others on the core of the gateway, and stop it at the end."""
    names = ["redis", "source", "instant", "gateway", "instant_gateway", "bare", "metrics", "instant_metrics"]
    names += ["upstream", *PEERS, *(f"{peer}-metrics" for peer in PEERS)]
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    supervisor = Supervisor(watcher)
    url = f"redis://{LOOPBACK}:{ports['redis']}/0"

    def gateway(name: str, source: str, metrics: str) -> Program:
        environment = {
            "VILIX_REDIS_URL": url,
            "VILIX_INFERENCE_WORKERS": f"{LOOPBACK}:{ports[source]}",
            "VILIX_EXPECTED_MODELS": MODEL,
            "VILIX_PORT": str(ports[name]),
            "VILIX_METRICS_PORT": str(ports[metrics]),
        }
        argv = _on(_first(), [sys.executable, "-m", "services.gateway"])
        return Program(
            name, argv, environment, directory / f"{name}.log", lambda: readiness.all_models_available(ports[name])
        )

    def source(name: str, step_ms: float) -> Program:
        argv = _on(_others(), [sys.executable, "-m", "bench.tokens.source", str(ports[name]), str(step_ms)])
        return Program(
            name,
            argv,
            {},
            directory / f"{name}.log",
            lambda: readiness.grpc_serving(ports[name], "vilix.inference.v1.InferenceService"),
        )

    bare = [sys.executable, "-m", "bench.tokens.bare", str(ports["bare"]), str(STEP_MS), str(TOKENS)]
    programs = [
        Program(
            "valkey",
            _on(_others(), valkey.command(port=ports["redis"], directory=directory / "valkey")),
            {},
            directory / "valkey.log",
            lambda: readiness.redis_answers(ports["redis"]),
        ),
        source("source", STEP_MS),
        source("instant", 0.0),
        gateway("gateway", "source", "metrics"),
        gateway("instant_gateway", "instant", "instant_metrics"),
        Program("bare", _on(_first(), bare), {}, directory / "bare.log", lambda: _accepts(ports["bare"])),
    ]
    if peers:
        programs.append(
            Program(
                "upstream",
                _on(_others(), [sys.executable, "-m", "bench.tokens.bare", str(ports["upstream"]), *bare[4:]]),
                {},
                directory / "upstream.log",
                lambda: _accepts(ports["upstream"]),
            )
        )
    try:
        await supervisor.start(programs)
        if peers:
            await supervisor.start([_peer(name, directory, ports) for name in PEERS])
        async with Redis.from_url(url, decode_responses=True) as redis:
            _, api_key = await keys.create(redis, name="benchmark", limits=LIMITS, model_limits={MODEL: LIMITS})
        yield Alone(directory, compile_load(directory), ports, api_key, supervisor)
    finally:
        await supervisor.stop()


def _peer(name: str, directory: Path, ports: Mapping[str, int]) -> Program:
    module = f"{name.replace('-', '_')}.launch_router"
    arguments = {
        "--host": LOOPBACK,
        "--port": str(ports[name]),
        "--worker-urls": f"http://{LOOPBACK}:{ports['upstream']}",
        "--policy": "round_robin",
        "--prometheus-port": str(ports[f"{name}-metrics"]),
    }
    argv = [str(PEERS_PYTHON), "-m", module, *(part for pair in arguments.items() for part in pair)]
    return Program(
        name, _on(_first(), argv), {}, directory / f"{name}.log", lambda: readiness.http_ok(ports[name], "/health")
    )


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True


def _first() -> list[int]:
    return sorted(os.sched_getaffinity(0))[:1]


def _others() -> list[int]:
    return sorted(os.sched_getaffinity(0))[1:] or _first()


def _on(cores: list[int], argv: list[str]) -> list[str]:
    return ["taskset", "-c", ",".join(map(str, cores)), *argv]
