"""The gateway alone, with everything on, behind a cheap source and beside other servers, which take turns on its core.

The server that is measured has one core, and the load client, the source and Valkey have the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import subprocess
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import psutil
from redis.asyncio import Redis

from bench.processes import cpu_seconds
from bench.tokens.load_client import CHAT, MESSAGES, Load, compile_load, write_request
from bench.tokens.servers import GATEWAYS, LITELLMS, MESSAGES_MODEL, Programs, cores, needed, on
from bench.tokens.source import MODEL
from services.gateway.tenancy import keys
from services.gateway.tenancy.limits import Limits
from services.stack.ports import free_ports
from services.stack.supervisor import Supervisor, Watcher

LIMITS: Final = Limits(rpm=10**6, tpm=10**8, concurrency=10**4, daily_tokens=10**11, monthly_tokens=10**12)
MEMORY_SECONDS: Final = 0.5
"""The interval in which the memory of the server is read, whose peak is reported."""


@dataclass(frozen=True)
class Alone:
    """The running processes."""

    directory: Path
    load: Path
    """The load client."""
    ports: Mapping[str, int]
    api_key: str
    supervisor: Supervisor

    async def run(
        self, name: str, load: Load, *, stream: bool = True, max_tokens: int, path: str = CHAT
    ) -> dict[str, Any]:
        """Load the server `name`, and return the client's report, with `server_cpu_seconds` and the server's memory.

        `others_cpu_seconds` is what the sources and Valkey used.
        """
        model = MESSAGES_MODEL if name in LITELLMS and path == MESSAGES else MODEL
        messages = [{"role": "user", "content": "Count to ten, please."}]
        body = {"model": model, "stream": stream, "max_tokens": max_tokens, "messages": messages}
        request = write_request(self.directory, self.api_key, body, path=path)
        argv = on(cores()[1], load.argv(self.load, self.ports[name], request))
        return await asyncio.to_thread(self._run, self.supervisor.pids[name], argv)

    def _run(self, pid: int, argv: list[str]) -> dict[str, Any]:
        others = [other for name, other in self.supervisor.pids.items() if name not in GATEWAYS and other != pid]
        before, others_before = cpu_seconds(pid), sum(map(cpu_seconds, others))
        most = memory_before = psutil.Process(pid).memory_info().rss
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as client:
            while client.poll() is None and not _has_output(client):
                most = max(most, psutil.Process(pid).memory_info().rss)
            output, _ = client.communicate()
        if client.returncode:
            raise subprocess.CalledProcessError(client.returncode, argv)
        report: dict[str, Any] = json.loads(output)
        report["server_cpu_seconds"] = cpu_seconds(pid) - before
        report["others_cpu_seconds"] = sum(map(cpu_seconds, others)) - others_before
        report["rss_mb"], report["grown_mb"] = most / 1e6, (most - memory_before) / 1e6
        return report


def _has_output(client: subprocess.Popen[bytes]) -> bool:
    """Wait for a moment for the report of the load client, which it prints at its end."""
    assert client.stdout is not None  # noqa: S101  # it is a pipe
    ready, _, _ = select.select([client.stdout], [], [], MEMORY_SECONDS)
    return bool(ready)


@contextlib.asynccontextmanager
async def running(directory: Path, watcher: Watcher, servers: Collection[str]) -> AsyncIterator[Alone]:
    """Start some servers with all that they need, and stop everything at the end."""
    groups = needed(servers)
    names = [name for group in groups for name in group]
    names += [f"{name}-metrics" for name in names]
    programs = Programs(directory, dict(zip(names, free_ports(len(names)), strict=True)))
    supervisor = Supervisor(watcher)
    try:
        await supervisor.start([programs.make(name) for name in groups[0]])
        async with Redis.from_url(programs.redis_url, decode_responses=True) as redis:
            _, api_key = await keys.create(redis, name="benchmark", limits=LIMITS, model_limits={MODEL: LIMITS})
        programs = replace(programs, api_key=api_key)
        for group in groups[1:]:
            if group:
                await supervisor.start([programs.make(name) for name in group])
        yield Alone(directory, compile_load(directory), programs.ports, api_key, supervisor)
    finally:
        await supervisor.stop()
