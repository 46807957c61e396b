"""llm-comply, which checks every response against Anthropic's own schema."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncGenerator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.tenancy import keys
from services.stack.ports import free_ports
from tests.support.environments import INSTALL_SECONDS, python_of
from tests.support.gateway import running_gateway, until_ready
from tests.support.scripted_worker import MODEL, ScriptedWorker, content, finish, reasoning, started
from tests.support.stand_in_workers import serving_inference
from tests.support.valkey import running_valkey

pytestmark = [pytest.mark.environment, pytest.mark.timeout(INSTALL_SECONDS + 120)]
ALIAS: Final = "claude-sonnet-4-5"
"""It skips the check of thinking for models whose name is not one of Claude's."""


class Obliging(ScriptedWorker):
    """Thinks if it is asked to, and calls the first tool that it is offered."""

    async def generate(self, request: pb.GenerateRequest, request_id: str) -> AsyncGenerator[list[pb.Event], None]:
        yield [started(), *([reasoning("Hm.")] if request.reasoning.enabled else [])]
        reason = pb.FINISH_REASON_STOP
        if request.tools:
            reason = pb.FINISH_REASON_TOOL_CALLS
            arguments = json.dumps(dict.fromkeys(json.loads(request.tools[0].parameters_json)["required"], "x"))
            fragment = pb.ToolCallFragment(id="call_1", name=request.tools[0].name, arguments_json=arguments)
            yield [pb.Event(delta=pb.Delta(tool_call=fragment, token_count=1))]
        else:
            yield [content("1, 2, 3.")]
        usage = pb.Usage(prompt_tokens=3, completion_tokens=5, reasoning_tokens=1 if request.reasoning.enabled else 0)
        yield [finish(reason), pb.Event(usage=usage)]


async def test_all_checks_pass(tmp_path: Path) -> None:
    program = python_of("anthropic-clients").with_name("llm-comply")
    port = free_ports(1)[0]
    settings = {"VILIX_ALIASES": f"{ALIAS}={MODEL}", "VILIX_MAX_BODY_BYTES": str(2**24)}
    with ExitStack() as stack:
        redis_url = stack.enter_context(running_valkey(tmp_path / "valkey"))
        async with serving_inference(Obliging(), port), Redis.from_url(redis_url, decode_responses=True) as redis:
            gateway = running_gateway(redis_url, f"127.0.0.1:{port}", tmp_path / "gateway.log", **settings)
            url, _ = stack.enter_context(gateway)
            _, key = await keys.create(redis, name="comply")
            await until_ready(url)
            process = await asyncio.create_subprocess_exec(
                program,
                *("--format", "anthropic", "-u", f"{url}/v1", "-k", key, "-m", ALIAS, "-v"),
                *("--auth-header", "x-api-key", "--no-bearer", "-H", "anthropic-version:2023-06-01"),
                env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            printed = (await asyncio.wait_for(process.communicate(), 100))[0].decode()
    assert process.returncode == 0, printed
    assert re.search(r"\b9/9 passed", printed), printed
