"""The load client's figures beside those of aiperf, NVIDIA's load generator, from an environment of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil

from bench.tokens.gateway_alone import Alone, running
from bench.tokens.load_client import Load, Row
from bench.tokens.part import Options, Recorder, Rows, display
from bench.tokens.servers import CACHE, cores, on
from bench.tokens.source import MODEL
from bench.tokens.streaming import warm_up
from bench.tokens.whole_path import QWEN3
from services.stack import qwen3_tokenizer
from services.stack.ports import LOOPBACK

AIPERF: Final = CACHE / "aiperf" / "bin" / "aiperf"
STREAMS: Final = 32
REQUESTS: Final = 32
"""All at once: while the first requests run, aiperf would prepare later ones, for which it uses half a core."""
TOKENS: Final = 200
SAMPLE_SECONDS: Final = 0.2
MOST_SECONDS: Final = 180.0
_TOKENIZER: Final = "local/qwen3"
_REVISION: Final = "0" * 40


async def aiperf(options: Options) -> Rows:
    """Send the same requests from aiperf and from the load client, in turns."""
    if not AIPERF.exists():
        raise FileNotFoundError("aiperf is not installed; run: make .cache/aiperf/.installed")
    qwen3_tokenizer.fetch(QWEN3)
    recorder, requests = Recorder(), options.choose(REQUESTS, STREAMS)
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with running(Path(directory), display(), ["gateway"]) as alone:
            await warm_up(alone, "gateway")
            for _ in range(options.rounds):
                recorder.add("aiperf", await _aiperf(alone, requests))
                report = await alone.run("gateway", Load(STREAMS, requests), max_tokens=TOKENS)
                recorder.add("load client", _own(report))
    return recorder.rows


def _own(report: dict[str, Any]) -> Row:
    gaps = [(last - first) / (TOKENS - 1) for first, last in zip(report["first_ms"], report["last_ms"], strict=True)]
    return {
        "output_tokens": report["tokens"],
        "expected_tokens": report["requests"] * TOKENS,
        "gap_ms_p50": median(gaps),
        "first_ms_p50": median(report["first_ms"]),
        "core_share": report["cpu_seconds"] / report["seconds"],
        "errors": report["errors"],
    }


async def _aiperf(alone: Alone, requests: int) -> Row:
    artifacts = Path(tempfile.mkdtemp(dir=alone.directory, prefix="aiperf-"))
    arguments = {
        "--model": MODEL,
        "--url": f"http://{LOOPBACK}:{alone.ports['gateway']}",
        "--endpoint-type": "chat",
        "--api-key": alone.api_key,
        # Output tokens are counted by the client, with a tokenizer for which each word of the source is a token.
        "--tokenizer": _TOKENIZER,
        "--concurrency": str(STREAMS),
        "--request-count": str(requests),
        "--isl": "20",
        "--osl": str(TOKENS),
        "--workers-max": "1",
        "--record-processors": "1",
        "--random-seed": "1",
        "--ui": "none",
        "--artifact-dir": str(artifacts),
    }
    flags = ["--streaming", "--no-server-metrics", "--no-gpu-telemetry"]
    argv = [str(AIPERF), "profile", *flags, *(part for pair in arguments.items() for part in pair)]
    process = await asyncio.create_subprocess_exec(
        *on(cores()[1], argv),
        env={**os.environ, **_offline(alone.directory / "hub")},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    usage = _Usage(process.pid)
    sampling = asyncio.create_task(usage.watch())
    try:
        output, _ = await asyncio.wait_for(process.communicate(), MOST_SECONDS)
    finally:
        sampling.cancel()
        await asyncio.gather(sampling, return_exceptions=True)
        usage.kill()
    records = _records(artifacts)
    if process.returncode or not records:
        raise OSError(f"aiperf failed: {output.decode(errors='replace')[-3000:]}")
    return _row(records, usage)


def _offline(hub: Path) -> dict[str, str]:
    """Lay the tokenizer out as a download from Hugging Face, and return the variables with which nothing is fetched.

    In this mode, aiperf accepts no directory of a tokenizer; in the other one, it looks it up in the network.
    """
    model = hub / f"models--{_TOKENIZER.replace('/', '--')}"
    if not model.exists():
        (model / "refs").mkdir(parents=True)
        (model / "refs" / "main").write_text(_REVISION)
        (model / "snapshots").mkdir()
        (model / "snapshots" / _REVISION).symlink_to(QWEN3.resolve())
    return {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "NO_PROXY": LOOPBACK}


def _records(artifacts: Path) -> list[dict[str, Any]]:
    """Return what aiperf has written about each request."""
    return [
        json.loads(line) for path in artifacts.rglob("profile_export.jsonl") for line in path.read_text().splitlines()
    ]


class _Usage:
    """The processor time of a process and its descendants, which may end earlier."""

    def __init__(self, pid: int) -> None:
        self._root: Final = psutil.Process(pid)
        self._processes: Final[dict[int, psutil.Process]] = {pid: self._root}
        self.samples: Final[list[tuple[float, float]]] = []
        """The time of the clock, and the seconds that were used until then."""

    def kill(self) -> None:
        """Kill all processes that are left."""
        for process in self._processes.values():
            with contextlib.suppress(psutil.Error):
                process.kill()

    async def watch(self) -> None:
        """Take samples until the task is cancelled."""
        used: dict[int, float] = {}
        while True:
            with contextlib.suppress(psutil.Error):
                for process in (self._root, *self._root.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        times = process.cpu_times()
                        used[process.pid] = times.user + times.system
                        self._processes[process.pid] = process
            self.samples.append((time.time(), sum(used.values())))
            await asyncio.sleep(SAMPLE_SECONDS)


def _row(records: list[dict[str, Any]], usage: _Usage) -> Row:
    metrics = [record["metrics"] for record in records if not record.get("error")]

    def values(name: str) -> list[float]:
        return [float(each[name]["value"]) for each in metrics]

    begin = min(record["metadata"]["request_start_ns"] for record in records) / 1e9
    end = max(record["metadata"]["request_end_ns"] for record in records) / 1e9
    inside = [sample for sample in usage.samples if begin <= sample[0] <= end]
    (first_at, first_used), (last_at, last_used) = inside[0], inside[-1]
    return {
        "output_tokens": sum(values("output_sequence_length")),
        "expected_tokens": len(records) * TOKENS,
        "gap_ms_p50": median(values("inter_token_latency")),
        "first_ms_p50": median(values("time_to_first_token")),
        "core_share": (last_used - first_used) / max(last_at - first_at, 0.001),
        "errors": len(records) - len(metrics),
    }
