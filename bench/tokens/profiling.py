"""Sample the stacks of the processes on a token's way with py-spy, from an environment of its own."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

from bench.processes import cpu_seconds
from bench.tokens import whole_path
from bench.tokens.flame_graph import draw, merge, read_stacks
from bench.tokens.load_client import Row
from bench.tokens.part import Options, Recorder, Rows, display
from bench.tokens.servers import CACHE, STEP_MS
from bench.tokens.whole_path import TOKENS
from bench.tokens.whole_path_streams import STARTS_PER_SECOND, STREAMS

PY_SPY: Final = CACHE / "py-spy" / "bin" / "py-spy"
SAMPLES_PER_SECOND: Final = 99
SECONDS: Final = 5
STUB: Final = "triton, Python"
SERVER: Final = "triton, server"
_STUB_PROGRAM: Final = "triton_python_backend_stub"


async def flame(options: Options, plot: Path) -> Rows:
    """Draw the flame graph of 256 streams of 50 tokens per second, and return the microseconds per token."""
    if not PY_SPY.exists():
        raise FileNotFoundError("py-spy is not installed; run: make .cache/py-spy/.installed")
    seconds, recorder = options.choose(SECONDS, 2), Recorder()
    start_seconds = STREAMS / STARTS_PER_SECOND + 1
    tokens = min(round((start_seconds + seconds + 2) * 1000 / STEP_MS), TOKENS)
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with whole_path.running(Path(directory), display()) as path:
            await path.run(16, rate=0, tokens=20)
            pids = path.supervisor.pids
            sampled = {"gateway": pids["gateway"], "worker": pids["worker"], STUB: _stub(pids["triton"])}
            before = cpu_seconds(sampled[STUB])
            load = asyncio.create_task(path.run(STREAMS, rate=STARTS_PER_SECOND, tokens=tokens))
            await asyncio.sleep(start_seconds)
            files = [Path(directory) / f"{pid}.stacks" for pid in sampled.values()]
            await asyncio.gather(*map(_record, sampled.values(), [seconds] * len(files), files))
            report = await load
            texts = _read(files)
            used: Row = report["parts_cpu_seconds"]
            used[STUB] = cpu_seconds(sampled[STUB]) - before
    used[SERVER] = used.pop("triton") - used[STUB]
    row = {part: spent / (STREAMS * tokens) * 1e6 for part, spent in used.items()}
    _draw(plot, row, dict(zip(sampled, texts, strict=True)))
    recorder.add("flame", row)
    return recorder.rows


def _read(files: list[Path]) -> list[str]:
    return [file.read_text() for file in files]


def _draw(plot: Path, row: Row, texts: Mapping[str, str]) -> None:
    parts = {part: (value, read_stacks(texts.get(part, ""))) for part, value in row.items()}
    title = f"Processor time of a token on its way, {STREAMS} streams of 50 tokens per second"
    plot.write_text(draw(merge(parts), title))


def _stub(triton: int) -> int:
    """Return the process of Triton's Python backend that serves the model."""
    for process in psutil.Process(triton).children(recursive=True):
        if _STUB_PROGRAM in " ".join(process.cmdline()):
            return process.pid
    raise ProcessLookupError(f"Triton has no process {_STUB_PROGRAM}")


async def _record(pid: int, seconds: int, file: Path) -> None:
    """Write the samples of a process to a file, in py-spy's format `raw`."""
    options = {"--pid": pid, "--duration": seconds, "--rate": SAMPLES_PER_SECOND, "--format": "raw", "--output": file}
    # Pausing the processes for samples, as native frames require, makes requests time out.
    flags = ["--nolineno", "--nonblocking"]
    argv = [str(PY_SPY), "record", *flags, *(str(part) for pair in options.items() for part in pair)]
    process = await asyncio.create_subprocess_exec(
        *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise OSError(f"py-spy failed: {output.decode(errors='replace')}")
