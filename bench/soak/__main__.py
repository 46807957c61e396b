"""Runs mixed traffic against `vilix up --demo-thinking`, and fails when something grows. See --help."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import psutil
from redis.asyncio import Redis

from bench.soak.drawing import Series, draw
from bench.soak.samples import Sample, processes, redis_kinds, sample
from bench.soak.slope import slope
from bench.soak.traffic import Traffic, requests
from services.stack.demo_thinking import MODEL
from services.stack.local_models import EMBEDDING_MODEL, SMALL_MODEL
from services.stack.ports import free_ports

_ROOT: Final = Path(__file__).parents[2]
_MB: Final = 1e6
_BOUND: Final = 5.0
"""MB per hour."""
_PER_KEY: Final = {"key": 1, "usage": 8, "limits": 4, "settled": 8}
"""How many Redis keys with an expiry each API key that was made may leave, by kind; other kinds: none."""


async def _wait_for_start(process: subprocess.Popen[bytes], directory: Path) -> None:
    deadline = time.monotonic() + 180
    while not ((directory / "api-key").exists() and b"Ctrl-C stops" in (directory / "up.log").read_bytes()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the stack did not start:\n" + (directory / "up.log").read_text()[-2000:])
        await asyncio.sleep(0.2)


async def _soak(directory: Path, seconds: float, warm_up: float, rate: float) -> dict[str, Any]:
    state = json.loads((directory / "state.json").read_text())
    key = (directory / "api-key").read_text().strip()
    traffic = Traffic(state["url"], key, directory, requests(SMALL_MODEL, MODEL, EMBEDDING_MODEL))
    async with Redis.from_url(state["redis_url"], decode_responses=True) as redis:
        # Pools of threads and connections, and counters of the key, exist after the first requests of each kind.
        await _run(traffic, 20.0, rate)
        await asyncio.sleep(8)
        names = processes(directory)
        before = {pid: sample(pid) for pid in names}
        lasting, expiring = await redis_kinds(redis)
        made = traffic.keys_made
        stop = asyncio.Event()
        task = asyncio.create_task(traffic.run(stop, per_second=rate))
        history: list[tuple[float, dict[int, Sample], int]] = []
        began = time.monotonic()
        try:
            while (now := time.monotonic() - began) < seconds:
                if task.done():
                    await task
                history.append((now, {pid: sample(pid) for pid in names}, await redis.dbsize()))
                if len(history) % 30 == 0:
                    print(f"{now:.0f} of {seconds:.0f} s: {sum(traffic.answers.values())} answers", file=sys.stderr)
                await asyncio.sleep(max(0.0, len(history) - (time.monotonic() - began)))
        finally:
            stop.set()
            await asyncio.gather(task, return_exceptions=True)
        await task
        made = traffic.keys_made - made
        deadline = time.monotonic() + 60
        while True:
            after = {pid: sample(pid) for pid in names}
            lasting_now, expiring_now = await redis_kinds(redis)
            left = _left(names, before, after)
            left += _left_keys(lasting_now - lasting, expiring_now - expiring, made)
            if set(processes(directory)) != set(names):
                left.append("the processes are not those of the beginning")
            if not left or time.monotonic() > deadline:
                break
            await asyncio.sleep(1)
    return _judged(names, history, warm_up, left, before, after, traffic.answers) | {
        "redis keys left": {"without expiry": lasting_now - lasting, "with expiry": expiring_now - expiring},
        "api keys made": made,
    }


async def _run(traffic: Traffic, seconds: float, rate: float) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    await traffic.run(stop, per_second=rate)


def _left(names: dict[int, str], before: dict[int, Sample], after: dict[int, Sample]) -> list[str]:
    return [
        f"{names[pid]}: {figure} were {getattr(before[pid], figure)}, are {getattr(after[pid], figure)}"
        for pid in names
        for figure in ("descriptors", "threads")
        if getattr(after[pid], figure) > getattr(before[pid], figure)
    ]


def _left_keys(lasting: Counter[str], expiring: Counter[str], made: int) -> list[str]:
    left = [f"Redis: {count} keys of kind {kind} more, without expiry" for kind, count in lasting.items()]
    for kind, count in expiring.items():
        # Eight more of each kind for the key that sends the traffic: a day or a month may begin meanwhile.
        allowed = _PER_KEY[kind] * made + 8 if kind in _PER_KEY else 0
        if count > allowed:
            left.append(f"Redis: {count} keys of kind {kind} more, with expiry; at most {allowed} are expected")
    return left


def _judged(  # noqa: PLR0917  # all that was measured
    names: dict[int, str],
    history: list[tuple[float, dict[int, Sample], int]],
    warm_up: float,
    failures: list[str],
    before: dict[int, Sample],
    after: dict[int, Sample],
    answers: Counter[str],
) -> dict[str, Any]:
    steady = [entry for entry in history if entry[0] >= warm_up]
    block = max(5.0, min(60.0, (history[-1][0] - warm_up) / 12))
    rows = []
    for pid, name in names.items():
        found = slope([entry[0] for entry in steady], [entry[1][pid].rss for entry in steady], block_seconds=block)
        hourly, upper = found.estimate * 3600 / _MB, found.upper * 3600 / _MB
        rows.append([name, before[pid].rss / _MB, after[pid].rss / _MB, hourly, upper])
        if upper > _BOUND:
            failures.append(f"{name}: RSS grows by up to {upper:.1f} MB/h; at most {_BOUND:g} are allowed")
    failures += [f"{count} answers {answer}" for answer, count in answers.items() if answer[-3] == "5"]
    # Successes of the kinds that must succeed, so that a soak of errors alone is no success.
    wanted = ("stream", "disconnect", "chat", "structured output", "tools", "completion", "embeddings", "tokenize")
    failures += [f"no {kind} was answered with 200" for kind in wanted if not answers[f"{kind}: 200"]]
    panels: dict[str, Series] = {
        "RSS (MB)": {name: [(t, s[pid].rss / _MB) for t, s, _ in history] for pid, name in names.items()},
        "File descriptors": {name: [(t, s[pid].descriptors) for t, s, _ in history] for pid, name in names.items()},
        "Threads": {name: [(t, s[pid].threads) for t, s, _ in history] for pid, name in names.items()},
        "Redis keys": {"Redis keys": [(t, float(count)) for t, _, count in history]},
    }
    return {"failures": failures, "processes": rows, "answers": dict(sorted(answers.items())), "svg": draw(panels)}


def _page(result: dict[str, Any], seconds: float) -> str:
    lines = [
        "# Soak",
        "",
        f"What `make soak` measured in {seconds:.0f} seconds of mixed traffic.",
        "",
        "![plot](soak.svg)",
    ]
    lines += [
        "",
        "| process | RSS before, MB | after, MB | slope, MB/h | upper 95 % bound, MB/h |",
        "|---|---|---|---|---|",
    ]
    lines += [f"| {name} | " + " | ".join(f"{x:.1f}" for x in row) + " |" for name, *row in result["processes"]]
    lines += ["", "Bounds that were missed: " + ("; ".join(result["failures"]) or "none") + ".", ""]
    return "\n".join(lines)


def main() -> int:
    """Start the stack, run the soak, stop the stack, write the page; the exit code is 1 when a bound was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800, help="how long traffic is measured (default 1800)")
    parser.add_argument("--warm-up", type=float, help="seconds that the slope leaves out (default: a third)")
    parser.add_argument("--rate", type=float, default=4, help="requests per second (default 4)")
    parser.add_argument("--output", type=Path, default=_ROOT / "docs", help="where soak.md and soak.svg go")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    if options.seconds < 60:
        parser.error("--seconds must be at least 60")
    # As Ctrl-C does: what was started is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="vilix-soak-") as place:
        directory = Path(place)
        argv = [str(Path(sys.executable).with_name("vilix")), "up", "--demo-thinking", "--state-dir", place]
        argv += ["--port", str(free_ports(1)[0]), "--cache-dir", str(_ROOT / ".cache")]
        with (directory / "up.log").open("wb") as log:
            process = subprocess.Popen(argv, cwd=_ROOT, stdout=log, stderr=subprocess.STDOUT)
        try:
            asyncio.run(_wait_for_start(process, directory))
            warm_up = options.seconds / 3 if options.warm_up is None else options.warm_up
            result = asyncio.run(_soak(directory, options.seconds, warm_up, options.rate))
        except (RuntimeError, psutil.NoSuchProcess, ExceptionGroup) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.terminate()  # a second signal stops it at once
                process.wait(20)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "soak.svg").write_text(result.pop("svg"))
    (options.output / "soak.md").write_text(_page(result, options.seconds))
    print(json.dumps(result, indent=2) if options.json else _page(result, options.seconds))
    for failure in result["failures"]:
        print(f"error: {failure}", file=sys.stderr)
    return 1 if result["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
