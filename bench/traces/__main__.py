"""Measure what traces cost per request and per token, and print two tables: `python -m bench.traces`.

The first one is of the code around a request alone: see request_code.py. For the second one, gateways and workers with
different settings share a Triton with the engine replay. The settings take turns in both. `--baseline` compares them
with another checkout, such as one before a change.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
from redis.asyncio import Redis
from rich.console import Console

from bench.ratios import summary, table
from services.gateway.tenancy import keys
from services.inference.model.tokenizer import ModelTokenizer
from services.inference.weights import model_repository
from services.stack import readiness, triton, valkey
from services.stack.display import Display
from services.stack.local import INFERENCE_SERVICE
from services.stack.local_models import small_model
from services.stack.ports import LOOPBACK, free_ports
from services.stack.supervisor import Program, Supervisor

ROOT: Final = Path(__file__).parents[2]
MODEL: Final = "replay"
TOKENS: Final = 200
STEP_MS: Final = 4.0
"""All requests have their tokens in common steps, because the cost of a token depends on how many share a message."""
CONNECTIONS: Final = 8
CATALOG: Final = f"""\
id: {MODEL}
created: 2026-01-01
owned_by: benchmark
checkpoint: none
licence: none
context_length: 100000
engine: {{name: replay}}
descriptions: {{en: Recordings.}}
"""


@dataclass
class Variant:
    """A gateway and a worker, and what they took."""

    name: str
    environment: Mapping[str, str]
    checkout: Path = ROOT
    gateway: int = 0
    """The gateway's port."""
    code_us: dict[str, list[float]] = field(default_factory=lambda: {"gateway": [], "worker": []})
    request_us: list[float] = field(default_factory=list)
    token_us: list[float] = field(default_factory=list)

    def path(self) -> str:
        """Return the variable PYTHONPATH that makes Python use the checkout."""
        return os.pathsep.join([str(self.checkout), str(self.checkout / "proto" / "gen")])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("code", "path"), help="one of the tables; default: both")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=200, help="short requests of a round")
    parser.add_argument("--streams", type=int, default=16, help=f"streams of {TOKENS} tokens of a round")
    parser.add_argument("--baseline", type=Path, help="another checkout of this repository")
    options = parser.parse_args()
    with _collector() as endpoint, tempfile.TemporaryDirectory() as directory:
        on = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        variants = [
            Variant("off", {}),
            Variant("on, ratio 0", {**on, "OTEL_TRACES_SAMPLER_ARG": "0"}),
            Variant("on, ratio 0.1", {**on, "OTEL_TRACES_SAMPLER_ARG": "0.1"}),
            Variant("on, ratio 1", {**on, "OTEL_TRACES_SAMPLER_ARG": "1"}),
        ]
        if options.baseline:
            variants.insert(0, Variant("baseline", {}, options.baseline.resolve()))
        if options.part != "path":
            for number in range(options.rounds):
                for variant in _turn(variants, number):
                    _measure_code(variant)
            for part in ("gateway", "worker"):
                values = [variant.code_us[part] for variant in variants]
                _print(f"code in the {part}, µs per request", variants, values, digits=1)
        if options.part != "code":
            asyncio.run(_measure(Path(directory), variants, options))
            _print("whole path, µs per request", variants, [variant.request_us for variant in variants], digits=0)
            values = [variant.token_us for variant in variants]
            _print(f"whole path, µs per token of {TOKENS}", variants, values, digits=1)


def _print(title: str, variants: list[Variant], values: list[list[float]], *, digits: int) -> None:
    rows = []
    for variant, of_variant in zip(variants, values, strict=True):
        difference = [a - b for a, b in zip(of_variant, values[0], strict=True)]
        is_first = variant is variants[0]
        more = "" if is_first else summary(difference, digits=digits)
        rows.append([variant.name, summary(of_variant, digits=digits), more])
    print(table([title, "median (range)", f"more than {variants[0].name}"], rows), end="\n\n")


def _turn(variants: list[Variant], number: int) -> list[Variant]:
    """Return the variants in another order for each round, because the first of a round may have a disadvantage."""
    first = number % len(variants)
    return variants[first:] + variants[:first]


def _measure_code(variant: Variant) -> None:
    # A queue that holds all spans, so that none is lost before it was exported.
    environment = {
        **os.environ,
        "PYTHONPATH": variant.path(),
        "OTEL_BSP_MAX_QUEUE_SIZE": "100000",
        **variant.environment,
    }
    argv = [sys.executable, "-P", str(Path(__file__).with_name("request_code.py"))]
    printed = subprocess.run(argv, env=environment, check=False, capture_output=True, text=True)
    if printed.returncode:
        raise SystemExit(f"error: {variant.name}: {printed.stderr[-2000:]}")
    for part, microseconds in json.loads(printed.stdout).items():
        variant.code_us[part].append(microseconds)


async def _measure(directory: Path, variants: list[Variant], options: argparse.Namespace) -> None:
    supervisor = Supervisor(Display(Console(stderr=True)))
    try:
        api_key = await _start(directory, variants, supervisor)
        headers = {"authorization": f"Bearer {api_key}"}
        limits = httpx.Limits(max_connections=CONNECTIONS)
        async with httpx.AsyncClient(headers=headers, timeout=60, limits=limits) as client:
            for number in range(options.rounds + 1):
                for variant in _turn(variants, number):
                    pids = [supervisor.pids[f"{part}-{variants.index(variant)}"] for part in ("gateway", "worker")]
                    before = _cpu_us(pids)
                    await _load(client, variant, options.requests, max_tokens=1)
                    between = _cpu_us(pids)
                    await _load(client, variant, options.streams, max_tokens=TOKENS)
                    request = (between - before) / options.requests
                    stream = (_cpu_us(pids) - between) / options.streams
                    # The first round is a warm-up.
                    if number:
                        variant.request_us.append(request)
                        variant.token_us.append((stream - request) / (TOKENS - 1))
    finally:
        await supervisor.stop()


async def _load(client: httpx.AsyncClient, variant: Variant, count: int, *, max_tokens: int) -> None:
    body = {
        "model": MODEL,
        "stream": True,
        "max_tokens": max_tokens,
        "messages": [{"role": "user", "content": "Count to ten, please."}],
    }
    left = iter(range(count))

    async def send() -> None:
        for _ in left:
            response = await client.post(f"http://{LOOPBACK}:{variant.gateway}/v1/chat/completions", json=body)
            response.raise_for_status()

    await asyncio.gather(*(send() for _ in range(CONNECTIONS)))


def _cpu_us(pids: list[int]) -> float:
    """Return the processor time of all threads of processes."""
    stats = [path.read_text() for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(stat.split()[0]) for stat in stats) / 1000


async def _start(directory: Path, variants: list[Variant], supervisor: Supervisor) -> str:
    """Start everything, and return an API key."""
    ports = iter(free_ports(4 + 4 * len(variants)))
    redis, http, engine, metrics = (next(ports) for _ in range(4))
    url = f"redis://{LOOPBACK}:{redis}/0"
    _write_repository(directory)
    argv, environment = triton.command(
        directory=directory / "triton",
        repository=directory / "models",
        http_port=http,
        grpc_port=engine,
        metrics_port=metrics,
    )
    command = valkey.command(port=redis, directory=directory / "valkey")
    programs = [
        Program("valkey", command, {}, directory / "valkey.log", lambda: readiness.redis_answers(redis)),
        Program(
            "triton", argv, environment, directory / "triton.log", lambda: readiness.http_ok(http, "/v2/health/ready")
        ),
    ]
    for number, variant in enumerate(variants):
        worker, variant.gateway = next(ports), next(ports)
        python = [sys.executable, "-P", "-m"]
        own = {"PYTHONPATH": variant.path(), **variant.environment}
        at_worker = {
            **own,
            "VILIX_LISTEN": f"{LOOPBACK}:{worker}",
            "VILIX_TRITON": f"{LOOPBACK}:{engine}",
            "VILIX_MODELS": f"{MODEL}={small_model(ROOT / '.cache').directory}",
            "VILIX_CATALOG_DIR": str(directory / "catalog"),
        }
        at_gateway = {
            **own,
            "VILIX_REDIS_URL": url,
            "VILIX_INFERENCE_WORKERS": f"{LOOPBACK}:{worker}",
            "VILIX_EXPECTED_MODELS": MODEL,
            "VILIX_PORT": str(variant.gateway),
            "VILIX_METRICS_PORT": str(next(ports)),
        }
        programs += [
            Program(
                f"worker-{number}",
                [*python, "services.inference"],
                at_worker,
                directory / f"worker-{number}.log",
                lambda port=worker: readiness.grpc_serving(port, INFERENCE_SERVICE),  # type: ignore[misc]
            ),
            Program(
                f"gateway-{number}",
                [*python, "services.gateway"],
                at_gateway,
                directory / f"gateway-{number}.log",
                lambda port=variant.gateway: readiness.all_models_available(port),  # type: ignore[misc]
            ),
        ]
    await supervisor.start(programs)
    async with Redis.from_url(url, decode_responses=True) as connection:
        _, api_key = await keys.create(connection, name="benchmark")
    return api_key


def _write_repository(directory: Path) -> None:
    triton.install(directory / "triton")
    words = ModelTokenizer(small_model(ROOT / ".cache").directory).encode(" one two three four five six seven eight")
    recording = {
        "name": "words",
        "interval_ms": STEP_MS,
        "token_ids": [words[i % len(words)] for i in range(TOKENS)] + [2],
    }
    (directory / "recordings.json").write_text(json.dumps([recording]))
    arguments: dict[str, Any] = {
        "recordings": str(directory / "recordings.json"),
        "context_length": 100_000,
        "slots": 64,
        "max_queued": 1000,
        "step_ms": STEP_MS,
    }
    model_repository.write_model(directory / "models", model_id=MODEL, engine="replay", engine_args=arguments)
    (directory / "catalog").mkdir()
    (directory / "catalog" / f"{MODEL}.yaml").write_text(CATALOG)


@contextmanager
def _collector() -> Iterator[str]:
    """Run a collector that drops all spans, and yield its endpoint."""
    export = grpc.unary_unary_rpc_method_handler(lambda request, context: b"")
    server = grpc.server(ThreadPoolExecutor(2))
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": export}),))
    port = server.add_insecure_port(f"{LOOPBACK}:0")
    server.start()
    try:
        yield f"http://{LOOPBACK}:{port}"
    finally:
        server.stop(None).wait()


if __name__ == "__main__":
    main()
