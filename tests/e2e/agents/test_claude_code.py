"""Claude Code, unmodified: turns with tools, a second turn, a stream that fails, and the models of its picker."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from redis.asyncio import Redis
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.tenancy import keys
from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from services.stack.ports import free_ports
from tests.support.agent_system import (
    AFTER_CALL,
    AFTER_SECOND_TURN,
    AGENTS,
    CONTEXT,
    MODEL,
    PRINTED,
    SECOND_TURN,
    AgentSystem,
    running_agent_system,
)
from tests.support.gateway import running_gateway, until_ready
from tests.support.repository import ROOT
from tests.support.scripted_worker import MODEL as SCRIPTED
from tests.support.scripted_worker import ScriptedWorker, content, finish, started, usage
from tests.support.stand_in_workers import serving_inference
from tests.support.valkey import running_valkey

pytestmark = pytest.mark.agents
CLAUDE: Final = AGENTS / "@anthropic-ai/claude-code-linux-x64/claude"
ALIAS: Final = "claude-replay"
SHOWN: Final = ROOT / "services/gateway/site/content/examples/claude-code.sh"
SECONDS: Final = 120


@pytest.fixture(scope="module")
async def system(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AgentSystem]:
    aliases = f"{ALIAS}={MODEL},fast={MODEL}"
    async with running_agent_system(tmp_path_factory.mktemp("claude"), VILIX_ALIASES=aliases) as system:
        yield system


class Home:
    """An empty home and an empty project."""

    def __init__(self, directory: Path, url: str, key: str, model: str) -> None:
        self.directory = directory / "home"
        self._project = directory / "project"
        self.directory.mkdir()
        self._project.mkdir()
        self.environment = {"HOME": str(self.directory), "PATH": "/usr/bin:/bin", **configuration(url, key, model)}

    async def claude(self, *arguments: str) -> list[dict[str, Any]]:
        """Run Claude Code once, and return the events that it prints."""
        command = (*arguments, "--output-format", "stream-json", "--verbose")
        process = await asyncio.create_subprocess_exec(
            CLAUDE,
            *command,
            env=self.environment,
            cwd=self._project,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            printed, errors = await asyncio.wait_for(process.communicate(), SECONDS)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, (printed[-2000:], errors[-2000:])
        return [json.loads(line) for line in printed.decode().splitlines()]


def configuration(url: str, key: str, model: str) -> dict[str, str]:
    """Return the variables of the page's example, for another service."""
    shown = SHOWN.read_text().replace("__BASE_URL__", f"{url}/api").replace("__TOOLS_MODEL__", model)
    variables = dict(re.findall(r"^export (\w+)=(\S+)$", shown, re.MULTILINE))
    return {name: value.strip('"').replace("$VILIX_API_KEY", key) for name, value in variables.items()} | {
        "CLAUDE_CODE_MAX_CONTEXT_TOKENS": str(CONTEXT)
    }


def blocks(events: list[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    for event in events:
        content = event.get("message", {}).get("content", ())
        yield from (block for block in content if isinstance(block, dict) and block["type"] == kind)


def requests(log: Path) -> list[tuple[Any, Any]]:
    """Return whether each request for a message was a stream, and its status."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [(line.get("stream"), line["status"]) for line in lines if str(line.get("route")).endswith("/messages")]


async def test_a_turn_calls_a_tool_and_a_second_turn_follows(system: AgentSystem, tmp_path: Path) -> None:
    home = Home(tmp_path, system.url, system.api_key, MODEL)
    before = len(requests(system.gateway_log))
    first = await home.claude("-p", "Run a command", "--allowedTools", "Bash")
    (call,) = blocks(first, "tool_use")
    assert (call["name"], call["input"]["command"]) == ("Bash", f"echo {PRINTED}")
    (result,) = blocks(first, "tool_result")
    assert (result["tool_use_id"], result["content"], result["is_error"]) == (call["id"], PRINTED, False)
    assert all(block["signature"] for block in blocks(first, "thinking"))
    assert first[-1]["result"] == AFTER_CALL
    second = await home.claude("-c", "-p", f"{SECOND_TURN}: go on")
    assert second[-1]["result"] == AFTER_SECOND_TURN
    # No field that it sends was rejected.
    assert requests(system.gateway_log)[before:] == [(True, 200)] * 3


async def test_an_alias_is_in_its_picker_and_answers(system: AgentSystem, tmp_path: Path) -> None:
    home = Home(tmp_path, system.url, system.api_key, ALIAS)
    home.environment["CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY"] = "1"
    home.environment.pop("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", None)
    events = await home.claude("-p", "Run a command", "--allowedTools", "Bash")
    assert events[-1]["result"] == AFTER_CALL
    found = json.loads((home.directory / ".claude/cache/gateway-models.json").read_text())
    assert ALIAS in json.dumps(found)
    assert "fast" not in json.dumps(found)


class FailsOnce(ScriptedWorker):
    """Breaks off its first answer."""

    async def generate(self, request: pb.GenerateRequest, request_id: str) -> AsyncGenerator[list[pb.Event], None]:
        self.requests.append(request)
        yield [started(), content("half")]
        if len(self.requests) == 1:
            raise Failure(Reason.MODEL_UNAVAILABLE, Message("worker_lost"))
        yield [content(" done"), finish(), usage()]


async def test_a_stream_that_fails_is_asked_for_again_as_a_whole(tmp_path: Path) -> None:
    log, port = tmp_path / "gateway.log", free_ports(1)[0]
    with ExitStack() as stack:
        redis_url = stack.enter_context(running_valkey(tmp_path / "valkey"))
        async with serving_inference(FailsOnce(), port), Redis.from_url(redis_url, decode_responses=True) as redis:
            url, _ = stack.enter_context(
                running_gateway(redis_url, f"127.0.0.1:{port}", log, VILIX_MAX_BODY_BYTES=str(2**24))
            )
            _, key = await keys.create(redis, name="claude")
            await until_ready(url)
            events = await Home(tmp_path, url, key, SCRIPTED).claude("-p", "Say something")
    assert events[-1]["result"] == "half done"
    assert requests(log) == [(True, 200), (False, 200)]
