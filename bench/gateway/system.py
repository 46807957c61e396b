"""The processes of the gateway's benchmark: Triton with the engine replay, a worker, two gateways and LiteLLM.

The second gateway is the upstream of LiteLLM; its processor time is not counted.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.gateway.tenancy.limits import Limits
from services.inference.model.tokenizer import ModelTokenizer
from services.inference.weights import model_repository
from services.stack import readiness, triton, valkey
from services.stack.local import INFERENCE_SERVICE
from services.stack.local_models import small_model
from services.stack.ports import LOOPBACK, free_ports
from services.stack.supervisor import Program, Supervisor, Watcher

ROOT = Path(__file__).parents[2]
LITELLM = ROOT / ".cache" / "litellm" / "bin" / "litellm"
MODEL, STEPLESS = "replay", "stepless"
"""The engine of `replay` emits the tokens of all its requests in common steps; that of `stepless` emits each token when
it is due."""
PACED, INSTANT, PAGES = "PACED", "INSTANT", "PAGES"
"""Words in prompts that choose a recording: a token every `PACED_MS`, a few tokens at once, or pages of Markdown at 300
tokens per second."""
PACED_TOKENS, PACED_MS = 256, 20.0
LIMITS = Limits(rpm=10**6, tpm=10**8, concurrency=10**4, daily_tokens=10**11, monthly_tokens=10**12)
_CATALOG = """\
id: {model}
created: 2026-01-01
owned_by: benchmark
checkpoint: none
licence: none
context_length: 100000
engine: {{name: replay}}
descriptions: {{en: Recordings.}}
"""


@dataclass(frozen=True)
class System:
    """The running processes and their addresses."""

    gateway_port: int
    litellm_port: int
    worker: str
    """HOST:PORT of the worker's gRPC service."""
    api_key: str
    supervisor: Supervisor

    def pid(self, name: str) -> int:
        """Return the process id of `gateway` or `litellm`."""
        return self.supervisor.pids[name]


@contextlib.asynccontextmanager
async def running(directory: Path, watcher: Watcher, *, litellm: bool = True) -> AsyncIterator[System]:
    """Start everything, with or without LiteLLM, and stop it at the end."""
    names = ("redis", "triton_http", "triton", "triton_metrics", "worker", "gateway", "upstream", "litellm")
    metrics = free_ports(len(names) + 2)
    ports = dict(zip(names, metrics, strict=False))
    _write_repository(directory)
    supervisor = Supervisor(watcher)
    try:
        await supervisor.start(_programs(directory, ports, metrics[len(names) :]))
        async with Redis.from_url(_redis_url(ports), decode_responses=True) as redis:
            _, api_key = await keys.create(
                redis, name="benchmark", limits=LIMITS, model_limits={MODEL: LIMITS, STEPLESS: LIMITS}
            )
        if litellm:
            await supervisor.start([_litellm(directory, ports, api_key)])
        target = f"{LOOPBACK}:{ports['worker']}"
        yield System(ports["gateway"], ports["litellm"], target, api_key, supervisor)
    finally:
        await supervisor.stop()


def _write_repository(directory: Path) -> None:
    triton.install(directory / "triton")
    tokenizer = ModelTokenizer(small_model(ROOT / ".cache").directory)
    words = tokenizer.encode(" one two three four five six seven eight nine ten")
    paced = {"interval_ms": PACED_MS, "token_ids": [words[i % len(words)] for i in range(PACED_TOKENS - 1)] + [2]}
    instant = {"interval_ms": 0.1, "token_ids": [*words[:7], 2]}
    markdown = "A paragraph with **bold** words.\n\n```python\nprint(1)\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
    pages = {"interval_ms": 1000 / 300, "token_ids": [*tokenizer.encode(markdown * 60), 2]}
    recordings = [
        {"name": name, "prompt_contains": tokenizer.encode(name), **fields}
        for name, fields in ((PACED, paced), (INSTANT, instant), (PAGES, pages))
    ]
    (directory / "recordings.json").write_text(json.dumps(recordings))
    arguments = {
        "recordings": str(directory / "recordings.json"),
        "context_length": 100_000,
        "slots": 1024,
        "max_queued": 1000,
    }
    (directory / "catalog").mkdir()
    for model, engine_args in ((MODEL, {**arguments, "step_ms": PACED_MS}), (STEPLESS, arguments)):
        model_repository.write_model(directory / "models", model_id=model, engine="replay", engine_args=engine_args)
        (directory / "catalog" / f"{model}.yaml").write_text(_CATALOG.format(model=model))


def _programs(directory: Path, ports: Mapping[str, int], metrics: list[int]) -> list[Program]:
    argv, environment = triton.command(
        directory=directory / "triton",
        repository=directory / "models",
        http_port=ports["triton_http"],
        grpc_port=ports["triton"],
        metrics_port=ports["triton_metrics"],
    )
    worker = {
        "VILIX_LISTEN": f"{LOOPBACK}:{ports['worker']}",
        "VILIX_TRITON": f"{LOOPBACK}:{ports['triton']}",
        "VILIX_MODELS": ",".join(f"{model}={small_model(ROOT / '.cache').directory}" for model in (MODEL, STEPLESS)),
        "VILIX_CATALOG_DIR": str(directory / "catalog"),
    }
    gateway = {
        "VILIX_REDIS_URL": _redis_url(ports),
        "VILIX_INFERENCE_WORKERS": f"{LOOPBACK}:{ports['worker']}",
        "VILIX_EXPECTED_MODELS": f"{MODEL},{STEPLESS}",
    }

    def gateway_program(name: str, metrics_port: int) -> Program:
        return Program(
            name,
            [sys.executable, "-m", "services.gateway"],
            {**gateway, "VILIX_PORT": str(ports[name]), "VILIX_METRICS_PORT": str(metrics_port)},
            directory / f"{name}.log",
            lambda: readiness.all_models_available(ports[name]),
        )

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
            [sys.executable, "-m", "services.inference"],
            worker,
            directory / "worker.log",
            lambda: readiness.grpc_serving(ports["worker"], INFERENCE_SERVICE),
        ),
        gateway_program("gateway", metrics[0]),
        gateway_program("upstream", metrics[1]),
    ]


def _litellm(directory: Path, ports: Mapping[str, int], api_key: str) -> Program:
    upstream = f"http://{LOOPBACK}:{ports['upstream']}/v1"
    config = {
        "model_list": [
            {
                "model_name": model,
                "litellm_params": {"model": f"openai/{model}", "api_base": upstream, "api_key": api_key},
            }
            for model in (MODEL, STEPLESS)
        ],
        # The same key, so that one client can call both.
        "general_settings": {"master_key": api_key},
        "litellm_settings": {"telemetry": False},
    }
    (directory / "litellm.json").write_text(json.dumps(config))
    return Program(
        "litellm",
        [
            str(LITELLM),
            "--config",
            str(directory / "litellm.json"),
            "--host",
            LOOPBACK,
            "--port",
            str(ports["litellm"]),
        ],
        # Without this setting, LiteLLM downloads its price list at every start.
        {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_PROXY": LOOPBACK},
        directory / "litellm.log",
        lambda: readiness.http_ok(ports["litellm"], "/health/liveliness"),
        ready_seconds=180,
    )


def _redis_url(ports: Mapping[str, int]) -> str:
    return f"redis://{LOOPBACK}:{ports['redis']}/0"
