"""Why bench.gateway and bench.tokens get other ratios to LiteLLM: one method turned into the other, step by step.

1. bench.gateway's method: a client in Python, Triton and a worker upstream, and no process has a core to itself.
2. The same with the load client of bench.tokens.
3. The same, and the server that is measured has a core to itself.
4. The part `litellm` of bench.tokens: a synthetic worker and a bare upstream instead of Triton and a worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import psutil

from bench.gateway import system
from bench.gateway.__main__ import STREAMS, tokens_per_cpu_second
from bench.gateway.system import System
from bench.processes import cpu_seconds
from bench.tokens.load_client import Load, compile_load, write_request
from bench.tokens.part import Options, Recorder, Rows, display, in_turns
from bench.tokens.servers import LITELLM, cores

STEPS: Final = ("Python client", "C client", "C client, own core")
SYSTEMS: Final = ("gateway", "litellm")
Measure = Callable[[str], Coroutine[Any, Any, float]]


async def methods(options: Options) -> Rows:
    """Measure the gateway and LiteLLM by each of the first three methods, in turns."""
    if not LITELLM.exists():
        raise FileNotFoundError("LiteLLM is not installed; run: make .cache/litellm/.installed")
    recorder = Recorder()
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as name:
        directory = Path(name)
        async with system.running(directory, display()) as running:
            program = compile_load(directory)

            async def by_python(server: str) -> float:
                return await tokens_per_cpu_second(running, server, _port(running, server), STREAMS)

            async def by_c(server: str) -> float:
                return await _by_load_client(running, server, program, directory)

            async def on_own_core(server: str) -> float:
                with _own_core(running, server):
                    return await by_c(server)

            measures: dict[str, Measure] = dict(zip(STEPS, (by_python, by_c, on_own_core), strict=True))
            for server in SYSTEMS:
                await by_python(server)
            for number in range(options.rounds):
                for step, measure in measures.items():
                    figures = {server: await measure(server) for server in in_turns(SYSTEMS, number)}
                    recorder.add(step, {**figures, "ratio": figures["gateway"] / figures["litellm"]})
    return recorder.rows


def _port(running: System, server: str) -> int:
    return running.gateway_port if server == "gateway" else running.litellm_port


async def _by_load_client(running: System, server: str, program: Path, directory: Path) -> float:
    """Return the tokens per second of the server's processor time."""
    body = {"model": system.MODEL, "stream": True, "messages": [{"role": "user", "content": system.PACED}]}
    request = write_request(directory, running.api_key, body)
    argv = Load(STREAMS, STREAMS).argv(program, _port(running, server), request)
    before = cpu_seconds(running.pid(server))
    client = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    output, _ = await client.communicate()
    report = json.loads(output)
    if report["errors"]:
        raise OSError(f"{report['errors']} streams of {server} failed")
    return float(sum(report["texts"]) / (cpu_seconds(running.pid(server)) - before))


@contextlib.contextmanager
def _own_core(running: System, server: str) -> Iterator[None]:
    """Give a server the first core, and everything else of the system the others, inside the context."""
    first, others = cores()
    before = os.sched_getaffinity(0)
    pids = {name: pid for name, pid in running.supervisor.pids.items() if name != server}
    try:
        _pin(running.pid(server), set(first))
        for pid in pids.values():
            _pin(pid, set(others))
        # The load client inherits it.
        os.sched_setaffinity(0, others)
        yield
    finally:
        os.sched_setaffinity(0, before)
        for pid in running.supervisor.pids.values():
            _pin(pid, before)


def _pin(pid: int, to: set[int]) -> None:
    """Bind all threads of a process and of its children to some cores."""
    for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
        for thread in process.threads():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(thread.id, to)
