"""The servers that are measured alone, each on the first core, and what they need, on the other cores."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.tokens.source import MODEL
from services.stack import readiness, valkey
from services.stack.ports import LOOPBACK
from services.stack.supervisor import Program

CACHE: Final = Path(__file__).parents[2] / ".cache"
LITELLM: Final = CACHE / "litellm" / "bin" / "litellm"
PEERS_PYTHON: Final = CACHE / "peers" / "bin" / "python"

STEP_MS: Final = 20.0
SLOW_STEP_MS: Final = 1000.0
SOURCES: Final = {"source": STEP_MS, "instant": 0.0, "slow": SLOW_STEP_MS}
"""Synthetic workers, with their steps in milliseconds."""
GATEWAYS: Final = {"gateway": "source", "instant_gateway": "instant", "slow_gateway": "slow"}
"""The gateway with everything on, before each of the synthetic workers."""
BARE: Final = "bare"
UPSTREAM: Final = "upstream"
"""The bare writer as a server that is measured, and as what the others pass HTTP on to."""
LITELLMS: Final[dict[str, dict[str, str]]] = {"litellm": {}, "litellm_rust": {"LITELLM_RUST": "true"}}
"""LiteLLM, by the variables that it gets."""
PEERS: Final = ("vllm-router", "sglang-router")
MESSAGES_MODEL: Final = "source-messages"
"""The model of LiteLLM that the upstream serves with Anthropic's API."""
_SERVICE: Final = "vilix.inference.v1.InferenceService"


def cores() -> tuple[list[int], list[int]]:
    """Return the core of the server that is measured, and those of everything else."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[:1], usable[1:] or usable[:1]


def on(cores: list[int], argv: list[str]) -> list[str]:
    """Return a command that runs on some cores only."""
    return ["taskset", "-c", ",".join(map(str, cores)), *argv]


def needed(servers: Collection[str]) -> list[list[str]]:
    """Return the programs to start for `servers`: those of each list need all earlier ones."""
    gateways = [name for name in servers if name in GATEWAYS]
    passing = [name for name in servers if name in LITELLMS or name in PEERS]
    first = ["valkey", *(GATEWAYS[name] for name in gateways), *((UPSTREAM,) if passing else ())]
    return [first, [*gateways, *((BARE,) if BARE in servers else ())], passing]


@dataclass(frozen=True)
class Programs:
    """Makes the programs."""

    directory: Path
    ports: Mapping[str, int]
    """By the name of a program, and of `NAME-metrics` for its metrics."""
    api_key: str = ""

    @property
    def redis_url(self) -> str:
        """The URL of Valkey."""
        return f"redis://{LOOPBACK}:{self.ports['valkey']}/0"

    def make(self, name: str) -> Program:
        """Return a program by its name."""
        if name == "valkey":
            return self._valkey()
        if name in SOURCES:
            return self._source(name)
        if name in GATEWAYS:
            return self._gateway(name)
        if name in (BARE, UPSTREAM):
            return self._bare(name)
        if name in LITELLMS:
            return self._litellm(name)
        return self._peer(name)

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def _valkey(self) -> Program:
        port = self.ports["valkey"]
        argv = valkey.command(port=port, directory=self.directory / "valkey")
        return Program("valkey", on(cores()[1], argv), {}, self._log("valkey"), lambda: readiness.redis_answers(port))

    def _source(self, name: str) -> Program:
        port = self.ports[name]
        argv = [sys.executable, "-m", "bench.tokens.source", str(port), str(SOURCES[name])]
        return Program(name, on(cores()[1], argv), {}, self._log(name), lambda: readiness.grpc_serving(port, _SERVICE))

    def _gateway(self, name: str) -> Program:
        port = self.ports[name]
        environment = {
            "VILIX_REDIS_URL": self.redis_url,
            "VILIX_INFERENCE_WORKERS": f"{LOOPBACK}:{self.ports[GATEWAYS[name]]}",
            "VILIX_EXPECTED_MODELS": MODEL,
            "VILIX_PORT": str(port),
            "VILIX_METRICS_PORT": str(self.ports[f"{name}-metrics"]),
        }
        argv = on(cores()[0], [sys.executable, "-m", "services.gateway"])
        return Program(name, argv, environment, self._log(name), lambda: readiness.all_models_available(port))

    def _bare(self, name: str) -> Program:
        port, (first, others) = self.ports[name], cores()
        argv = [sys.executable, "-m", "bench.tokens.bare", str(port), str(STEP_MS)]
        return Program(name, on(first if name == BARE else others, argv), {}, self._log(name), lambda: _accepts(port))

    def _litellm(self, name: str) -> Program:
        port, upstream = self.ports[name], f"http://{LOOPBACK}:{self.ports[UPSTREAM]}"
        openai = {"model": f"openai/{MODEL}", "api_base": f"{upstream}/v1", "api_key": "none"}
        anthropic = {"model": f"anthropic/{MODEL}", "api_base": upstream, "api_key": "none"}
        config = {
            "model_list": [
                {"model_name": MODEL, "litellm_params": openai},
                {"model_name": MESSAGES_MODEL, "litellm_params": anthropic},
            ],
            # The same key, so that one client can call both.
            "general_settings": {"master_key": self.api_key},
            "litellm_settings": {"telemetry": False},
        }
        path = self.directory / "litellm.json"
        path.write_text(json.dumps(config))
        argv = [str(LITELLM), "--config", str(path), "--host", LOOPBACK, "--port", str(port)]
        # Without the first setting, LiteLLM downloads its price list at every start.
        quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_PROXY": LOOPBACK}
        return Program(
            name,
            on(cores()[0], argv),
            {**quiet, **LITELLMS[name]},
            self._log(name),
            lambda: readiness.http_ok(port, "/health/liveliness"),
            ready_seconds=180,
        )

    def _peer(self, name: str) -> Program:
        port = self.ports[name]
        arguments = {
            "--host": LOOPBACK,
            "--port": str(port),
            "--worker-urls": f"http://{LOOPBACK}:{self.ports[UPSTREAM]}",
            "--policy": "round_robin",
            "--prometheus-port": str(self.ports[f"{name}-metrics"]),
        }
        module = f"{name.replace('-', '_')}.launch_router"
        argv = [str(PEERS_PYTHON), "-m", module, *(part for pair in arguments.items() for part in pair)]
        return Program(name, on(cores()[0], argv), {}, self._log(name), lambda: readiness.http_ok(port, "/health"))


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    return True
