"""The whole path: Triton with the replay engine, a worker with Qwen3's tokenizer and parsers, and the gateway.

Each request has a function that may be called, and its recording is reasoning and answer, so that both parsers work.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from bench.processes import cpu_seconds
from bench.tokens.gateway_alone import LIMITS
from bench.tokens.load_client import Load, compile_load, write_request
from bench.tokens.servers import STEP_MS
from services.gateway.tenancy import keys
from services.inference.model.tokenizer import ModelTokenizer
from services.inference.weights import model_repository
from services.stack import qwen3_tokenizer, readiness, triton, valkey
from services.stack.local import INFERENCE_SERVICE
from services.stack.ports import LOOPBACK, free_ports
from services.stack.supervisor import Program, Supervisor, Watcher

ROOT: Final = Path(__file__).parents[2]
QWEN3: Final = ROOT / ".cache" / "models" / "qwen3-tokenizer"
MODEL: Final = "thinking"
PARTS: Final = ("gateway", "worker", "triton")
TOKENS: Final = 500
CONTEXT: Final = 200_000
_CATALOG: Final = f"""\
id: {MODEL}
created: 2026-01-01
owned_by: benchmark
checkpoint: none
licence: none
context_length: {CONTEXT}
engine: {{name: replay}}
capabilities: {{reasoning_optional: true}}
parsers: {{reasoning: think, tool_calls: hermes}}
descriptions: {{en: Recordings.}}
"""
_TOOL: Final = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@dataclass(frozen=True)
class WholePath:
    """The running processes."""

    directory: Path
    load: Path
    port: int
    """The gateway's port."""
    api_key: str
    supervisor: Supervisor

    @property
    def tokenizer(self) -> Path:
        """The file of the model's tokenizer."""
        return QWEN3 / "tokenizer.json"

    def body(self, content: str, *, max_tokens: int) -> dict[str, Any]:
        """Return the body of a request with a function that may be called."""
        messages = [{"role": "user", "content": content}]
        fields = {"model": MODEL, "stream": True, "stream_options": {"include_usage": True}, "max_tokens": max_tokens}
        return {**fields, "tools": [_TOOL], "messages": messages}

    def cpu_seconds(self) -> dict[str, float]:
        """Return the processor time that each part has used."""
        return {part: cpu_seconds(self.supervisor.pids[part]) for part in PARTS}

    def notes(self, part: str) -> list[dict[str, Any]]:
        """Return what a part has written, which was started with measurements inside: see timed.py."""
        path = _notes_file(self.directory, part)
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    async def run(self, streams: int, *, rate: float, tokens: int = TOKENS) -> dict[str, Any]:
        """Read `streams` streams, and return the client's report, with `parts_cpu_seconds`."""
        body = self.body("How is the weather in Tehran?", max_tokens=tokens)
        request = write_request(self.directory, self.api_key, body)
        before = self.cpu_seconds()
        argv = Load(streams, streams, rate).argv(self.load, self.port, request)
        client = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        output, _ = await client.communicate()
        if client.returncode:
            raise OSError(f"the load client ended with exit code {client.returncode}")
        report: dict[str, Any] = json.loads(output)
        if report["errors"] or report["usage_tokens"] != streams * tokens:
            raise OSError(f"{report['errors']} errors, {report['usage_tokens']} tokens of {streams} × {tokens}")
        report["parts_cpu_seconds"] = {part: used - before[part] for part, used in self.cpu_seconds().items()}
        return report


@contextlib.asynccontextmanager
async def running(directory: Path, watcher: Watcher, *, timed: bool = False) -> AsyncIterator[WholePath]:
    """Start everything, with `timed` with measurements inside the gateway and the worker, and stop it at the end."""
    names = ("redis", "triton_http", "triton", "triton_metrics", "worker", "gateway", "metrics")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    qwen3_tokenizer.fetch(QWEN3)
    _write_repository(directory)
    supervisor = Supervisor(watcher)
    url = f"redis://{LOOPBACK}:{ports['redis']}/0"
    try:
        await supervisor.start(_programs(directory, ports, url, timed=timed))
        async with Redis.from_url(url, decode_responses=True) as redis:
            _, api_key = await keys.create(redis, name="benchmark", limits=LIMITS, model_limits={MODEL: LIMITS})
        yield WholePath(directory, compile_load(directory), ports["gateway"], api_key, supervisor)
    finally:
        await supervisor.stop()


def _write_repository(directory: Path) -> None:
    triton.install(directory / "triton")
    tokenizer = ModelTokenizer(QWEN3)
    sentence = " The weather in a city can be asked for with a function, which takes the name of the city."
    reasoning = tokenizer.encode("<think>\n" + sentence.strip() + sentence * 12 + "\n</think>\n\n")
    ids = (reasoning + tokenizer.encode(sentence.strip() + sentence * 40))[:TOKENS]
    recording = {"name": "thinking", "token_ids": ids, "interval_ms": STEP_MS}
    (directory / "recordings.json").write_text(json.dumps([recording]))
    model_repository.write_model(
        directory / "models",
        model_id=MODEL,
        engine="replay",
        engine_args={
            "recordings": str(directory / "recordings.json"),
            "context_length": CONTEXT,
            "slots": 1024,
            "max_queued": 1000,
            "step_ms": STEP_MS,
        },
    )
    (directory / "catalog").mkdir()
    (directory / "catalog" / f"{MODEL}.yaml").write_text(_CATALOG)


def _notes_file(directory: Path, part: str) -> Path:
    return directory / f"{part}.notes"


def _programs(directory: Path, ports: Mapping[str, int], url: str, *, timed: bool) -> list[Program]:
    def command(part: str, module: str) -> list[str]:
        if not timed:
            return [sys.executable, "-m", module]
        return [sys.executable, "-m", "bench.tokens.timed", module, str(_notes_file(directory, part))]

    argv, environment = triton.command(
        directory=directory / "triton",
        repository=directory / "models",
        http_port=ports["triton_http"],
        grpc_port=ports["triton"],
        metrics_port=ports["triton_metrics"],
    )
    watch = {"VILIX_LOOP_WATCH_SECONDS": "0.005"} if timed else {}
    worker = {
        **watch,
        "VILIX_LISTEN": f"{LOOPBACK}:{ports['worker']}",
        "VILIX_TRITON": f"{LOOPBACK}:{ports['triton']}",
        "VILIX_MODELS": f"{MODEL}={QWEN3}",
        "VILIX_CATALOG_DIR": str(directory / "catalog"),
    }
    gateway = {
        **watch,
        "VILIX_REDIS_URL": url,
        "VILIX_INFERENCE_WORKERS": f"{LOOPBACK}:{ports['worker']}",
        "VILIX_EXPECTED_MODELS": MODEL,
        "VILIX_PORT": str(ports["gateway"]),
        "VILIX_METRICS_PORT": str(ports["metrics"]),
    }
    return [
        Program(
            "valkey",
            valkey.command(port=ports["redis"], directory=directory / "valkey"),
            {},
            directory / "valkey.log",
            lambda: readiness.redis_answers(ports["redis"]),
        ),
        Program(
            "triton",
            argv,
            environment,
            directory / "triton.log",
            lambda: readiness.http_ok(ports["triton_http"], "/v2/health/ready"),
        ),
        Program(
            "worker",
            command("worker", "services.inference"),
            worker,
            directory / "worker.log",
            lambda: readiness.grpc_serving(ports["worker"], INFERENCE_SERVICE),
        ),
        Program(
            "gateway",
            command("gateway", "services.gateway"),
            gateway,
            directory / "gateway.log",
            lambda: readiness.all_models_available(ports["gateway"]),
        ),
    ]
