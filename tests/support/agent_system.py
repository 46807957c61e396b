"""A system for coding agents: all processes on the path of a request, with a model that plays recorded turns.

The model has a context of 64k tokens, because the first request of an agent has ten to thirty thousand. It speaks in
Qwen3's tokens, reasons, and calls the tool with which an agent runs commands.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from grpc_health.v1 import health_pb2
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.inference.model.tokenizer import ModelTokenizer
from tests.support.gateway import running_gateway, until_ready
from tests.support.models import qwen3
from tests.support.repository import ROOT
from tests.support.triton_servers import serving
from tests.support.valkey import running_valkey
from tests.support.workers import running_inference_worker

AGENTS: Final = ROOT / ".cache" / "agents" / "node_modules"
"""The installed packages of coding agents: see `make test-agents`."""
MODEL: Final = "replay-agent"
CONTEXT: Final = 65_536
SECOND_TURN: Final = "SECOND TURN"
"""Words in a user's second message, which gets an answer of its own."""
PRINTED: Final = "AGENT-REPLAY"
"""What the command of the recorded call prints."""
AFTER_CALL: Final = f"The command printed {PRINTED}. می‌بینید که کار کرد."
AFTER_SECOND_TURN: Final = "This is the second turn: خداحافظ."
NO_TOOLS: Final = "A recorded answer without tools."
_REASONING: Final = "<think>\nThe user wants a command to run. ابزار هست.\n</think>\n\n"
_COMMANDS: Final = {
    # The names of the tools that run commands, and their arguments: Codex's, and Claude Code's.
    "exec_command": {"cmd": f"echo {PRINTED}"},
    "Bash": {"command": f"echo {PRINTED}", "description": "Print a word"},
}
_CATALOG_ENTRY: Final = f"""\
id: {MODEL}
created: 2026-01-01
owned_by: test
checkpoint: none
licence: none
context_length: {CONTEXT}
engine: {{name: replay}}
capabilities: {{reasoning_optional: true}}
parsers: {{reasoning: think, tool_calls: hermes}}
descriptions: {{en: Recorded turns of agents.}}
"""


@dataclass(frozen=True)
class AgentSystem:
    """A running system."""

    url: str
    """The gateway's, without the prefix of the API."""
    api_key: str
    redis_url: str
    gateway_log: Path


def recordings() -> list[dict[str, Any]]:
    """Return the recorded turns, of which the first that matches a prompt is played."""
    tokenizer = ModelTokenizer(qwen3())

    def recording(name: str, text: str, *, prompt_contains: str = "") -> dict[str, Any]:
        return {
            "name": name,
            "prompt_contains": tokenizer.encode(prompt_contains) if prompt_contains else [],
            "token_ids": tokenizer.encode(f"{text}<|im_end|>"),
            "interval_ms": 1,
        }

    calls = [
        recording(f"call of {name}", _REASONING + _call(name, arguments), prompt_contains=name)
        for name, arguments in _COMMANDS.items()
    ]
    return [
        recording("second turn", _REASONING + AFTER_SECOND_TURN, prompt_contains=SECOND_TURN),
        recording("tool result", _REASONING + AFTER_CALL, prompt_contains="<tool_response>"),
        *calls,
        # Reasoning is off: the prompt ends with the empty reasoning.
        recording("no reasoning", NO_TOOLS, prompt_contains="</think>\n\n"),
        recording("any", _REASONING + NO_TOOLS),
    ]


def _call(name: str, arguments: dict[str, str]) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


@contextlib.asynccontextmanager
async def running_agent_system(directory: Path, **gateway_settings: str) -> AsyncIterator[AgentSystem]:
    """Run Valkey, Triton with recorded turns, a worker and a gateway with additional VILIX_… variables."""
    path, catalog = directory / "recordings.json", directory / "catalog"
    path.write_text(json.dumps(recordings()))
    catalog.mkdir()
    (catalog / f"{MODEL}.yaml").write_text(_CATALOG_ENTRY)
    engine = {"recordings": str(path), "context_length": CONTEXT, "unsupported_parameters": ["structured_output"]}
    settings = {"models": f"{MODEL}={qwen3()}", "catalog_dir": str(catalog), "status_seconds": "0.2"}
    async with serving(directory / "triton", {MODEL: ("replay", engine)}) as (triton, _):
        with contextlib.ExitStack() as stack:
            redis_url = stack.enter_context(running_valkey(directory / "valkey"))
            worker = stack.enter_context(running_inference_worker(directory, triton=triton.target, **settings))
            await worker.reaches(health_pb2.HealthCheckResponse.SERVING, MODEL)
            log = directory / "gateway.log"
            # Another database of the same server.
            state = {"VILIX_STATE_REDIS_URL": redis_url.removesuffix("/0") + "/1"}
            own = {**state, "VILIX_MAX_BODY_BYTES": str(20 * 2**20), "VILIX_EXPECTED_MODELS": MODEL, **gateway_settings}
            url, _ = stack.enter_context(running_gateway(redis_url, worker.target, log, **own))
            async with Redis.from_url(redis_url, decode_responses=True) as redis:
                _, api_key = await keys.create(redis, name="agents")
            await until_ready(url)
            yield AgentSystem(url, api_key, redis_url, log)
