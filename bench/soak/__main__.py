"""Run mixed traffic against a stack to detect leaks: `python -m bench.soak`.

It starts `vilix up`, samples memory, open files, threads and Redis keys each second, stops everything, prints a
table, and writes docs/soak.md with a plot. It exits with 1 if a process grows, or if a count does not return to its
initial value.

Examples:
  python -m bench.soak
  python -m bench.soak --seconds 300 --output /tmp/soak
  python -m bench.soak --seconds 120 --json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from bench.soak.drawing import Line, Panel, draw
from bench.soak.samples import Sampler, Series, keys_by_kind
from bench.soak.slope import BLOCK_SECONDS, LEAST_BLOCKS, Slope, slope
from bench.soak.traffic import Traffic, UnexpectedResponseError
from services.stack.ports import free_ports

ROOT: Final = Path(__file__).parents[2]
SECONDS: Final = 1800
WARM_UP: Final = 0.2
"""The share of the time during which caches, pools and allocators fill."""
MOST_WARM_UP_SECONDS: Final = 360.0
FIRST_TRAFFIC_SECONDS: Final = 180.0
FIRST_USERS: Final = 24
"""The traffic that fills pools of connections and threads before the initial counts are taken."""
SETTLE_SECONDS: Final = 90.0
"""The time within which descriptors, threads and keys must return to their initial counts."""
START_SECONDS: Final = 180.0
STOP_SECONDS: Final = 90.0
MOST_MEGABYTES_PER_HOUR: Final = 5.0
MORE_DESCRIPTORS: Final = 3
MORE_THREADS: Final = 2
"""The most by which counts may have grown, because pools keep varying numbers of connections and threads."""
KEPT_OF_A_REVOKED_KEY: Final = ("key", "limits", "usage")
"""Kinds of Redis keys that remain until they expire: the record, the state of the limits, usage by day and month."""
TRANSIENT: Final = ("write-probe", "due", "settled", "usage stream")
"""Kinds of keys that do not show growth: the marks of settled requests, which expire after ten minutes, and two keys of
each of 64 shards, the open reservations and the latest usage."""


@dataclass(frozen=True)
class Row:
    """The result of one process."""

    process: str
    megabytes: float
    """The memory at the end."""
    slope: Slope | None
    """The growth in MB per hour; None for a process that did not live long enough."""
    descriptors: tuple[int, int]
    """The counts at the beginning and at the end."""
    threads: tuple[int, int]

    @property
    def problems(self) -> list[str]:
        """The missed targets."""
        problems = []
        if self.slope is not None and self.slope.upper > MOST_MEGABYTES_PER_HOUR:
            problems.append(
                f"{self.process} may grow by {self.slope.upper:.1f} MB/h (limit: {MOST_MEGABYTES_PER_HOUR:g})"
            )
        for what, (before, after), more in (
            ("open files", self.descriptors, MORE_DESCRIPTORS),
            ("threads", self.threads, MORE_THREADS),
        ):
            if after > before + more:
                problems.append(f"{self.process} has {after} {what}, and had {before} before")
        return problems


@dataclass(frozen=True)
class Result:
    """The result of a whole run."""

    seconds: float
    warm_up_seconds: float
    rows: list[Row]
    actions: Counter[str]
    created_keys: int
    keys_before: dict[str, int]
    keys_after: dict[str, int]
    problems: list[str]


@contextlib.asynccontextmanager
async def running_stack(directory: Path) -> AsyncIterator[Path]:
    """Start `vilix up`, yield its state directory, and stop it at the end, also after an error."""
    (port,) = free_ports(1)
    vilix = Path(sys.executable).with_name("vilix")
    arguments = [
        "up",
        "--model",
        "smollm2-135m",
        "--demo-thinking",
        "--port",
        str(port),
        "--state-dir",
        str(directory / "run"),
    ]
    with (directory / "up.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(vilix), *arguments, "--cache-dir", str(ROOT / ".cache"), cwd=ROOT, stdout=log, stderr=log
        )
    try:
        began = time.monotonic()
        while b"Vilix is ready" not in (text := (directory / "up.log").read_bytes()):
            if process.returncode is not None or time.monotonic() - began > START_SECONDS:
                raise SystemExit(f"error: vilix up did not start:\n{text.decode(errors='replace')[-2000:]}")
            await asyncio.sleep(0.2)
        yield directory / "run"
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()


async def soak(seconds: float, *, seed: int, quiet: bool) -> tuple[Result, Sampler]:
    """Run traffic for `seconds` against a new stack.

    Raises:
        UnexpectedResponseError: A request got a response that it must not get.
    """
    warm_up_seconds = min(MOST_WARM_UP_SECONDS, WARM_UP * seconds)
    with tempfile.TemporaryDirectory(prefix="vilix-soak-") as name:
        async with running_stack(Path(name)) as state_directory:
            state = json.loads((state_directory / "state.json").read_text())
            api_key = (state_directory / "api-key").read_text().strip()
            async with Redis.from_url(state["redis_url"], decode_responses=True) as redis:
                first = Traffic(state["url"], api_key, redis, seed=seed + 1, users=FIRST_USERS)
                await _drive(first, FIRST_TRAFFIC_SECONDS, None)
                await asyncio.sleep(SETTLE_SECONDS / 10)
                keys_before = await keys_by_kind(redis, first.created_keys)
                sampler = Sampler(state_directory / "state.json", redis)
                await sampler.look()
                traffic = Traffic(state["url"], api_key, redis, seed=seed)
                sampling = asyncio.create_task(sampler.run())
                try:
                    await _drive(traffic, seconds, None if quiet else sampler)
                    made = [*first.created_keys, *traffic.created_keys]
                    await _settled(sampler, redis, made, keys_before)
                finally:
                    sampling.cancel()
                    await asyncio.gather(sampling, return_exceptions=True)
                await sampler.look()
                keys_after = await keys_by_kind(redis, made)
                problems = await _kept_keys(redis, made)
    rows = [_row(series, warm_up_seconds, seconds) for series in sampler.series.values()]
    problems += [problem for row in rows for problem in row.problems] + _lost(sampler)
    for kind in sorted(keys_after.keys() | keys_before.keys()):
        if kind not in TRANSIENT and keys_after[kind] > keys_before[kind]:
            problems.append(f"Redis has {keys_after[kind]} keys of the kind {kind}, and had {keys_before[kind]} before")
    result = Result(
        seconds,
        warm_up_seconds,
        rows,
        traffic.done,
        len(traffic.created_keys),
        dict(keys_before),
        dict(keys_after),
        problems,
    )
    return result, sampler


async def _drive(traffic: Traffic, seconds: float, sampler: Sampler | None) -> None:
    running = asyncio.create_task(traffic.run())
    ends = time.monotonic() + seconds
    try:
        while not running.done() and (left := ends - time.monotonic()) > 0:
            await asyncio.wait([running], timeout=min(left, 10.0))
            if sampler is not None:
                _show_progress(traffic, sampler, seconds)
        traffic.stop()
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _show_progress(traffic: Traffic, sampler: Sampler, seconds: float) -> None:
    total = sum(series.samples[-1].megabytes for series in sampler.series.values() if series.samples)
    print(
        f"{sampler.seconds:6.0f} of {seconds:.0f} s: {traffic.done.total()} actions, {total:.0f} MB, "
        f"{sampler.redis_keys[-1][1]} keys in Redis",
        file=sys.stderr,
        flush=True,
    )


async def _settled(sampler: Sampler, redis: Redis, made: list[str], keys_before: Counter[str]) -> None:
    """Wait until descriptors, threads and keys have their initial counts, for at most SETTLE_SECONDS."""
    ends = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < ends:
        rows = [_row(series, 0.0, 0.0) for series in sampler.series.values()]
        now = await keys_by_kind(redis, made)
        grown = [kind for kind in now if kind not in TRANSIENT and now[kind] > keys_before[kind]]
        if not grown and not any(row.problems for row in rows):
            return
        await asyncio.sleep(1.0)


async def _kept_keys(redis: Redis, made: list[str]) -> list[str]:
    """Return problems with what remains of revoked keys: only documented kinds may remain, and they must expire."""
    every_kind: Counter[str] = await keys_by_kind(redis, ())
    others: Counter[str] = await keys_by_kind(redis, made)
    problems = [
        f"Redis keeps {count} keys of the kind {kind} of revoked API keys"
        for kind, count in sorted((every_kind - others).items())
        if kind not in (*KEPT_OF_A_REVOKED_KEY, *TRANSIENT)
    ]
    ids = set(made)
    names = [name async for name in redis.scan_iter(count=1000) if ids & set(name.split(":"))]
    endless = [name for name in names if await redis.ttl(name) == -1]
    if endless:
        problems.append(f"Redis keeps {len(endless)} keys of revoked API keys forever, such as {endless[0]}")
    return problems


def _row(series: Series, warm_up_seconds: float, seconds: float) -> Row:
    measured = [sample for sample in series.since(warm_up_seconds) if sample.seconds <= seconds]
    growth = None
    if len(measured) >= LEAST_BLOCKS * BLOCK_SECONDS:
        growth = slope([sample.seconds for sample in measured], [sample.megabytes for sample in measured])
    first, last = series.samples[0], series.samples[-1]
    return Row(
        series.name,
        last.megabytes,
        growth,
        (first.descriptors, last.descriptors),
        (first.threads, last.threads),
    )


def _lost(sampler: Sampler) -> list[str]:
    """Return the processes that ran at the beginning and have ended."""
    end = max(series.samples[-1].seconds for series in sampler.series.values())
    return [
        f"{series.name} ended after {series.samples[-1].seconds:.0f} s"
        for series in sampler.series.values()
        if series.samples[0].seconds < 2 and series.samples[-1].seconds < end - 5
    ]


def _report(result: Result) -> str:
    lines = [
        "# Soak",
        "",
        _wrapped(
            f"`make soak` ran mixed traffic for {result.seconds / 60:.0f} minutes against a stack of "
            "`vilix up --demo-thinking`, and sampled every process each second. The slope is that of the resident "
            "memory without file-backed pages, which the kernel drops and reads again as it likes. It covers the time "
            f"after the first {result.warm_up_seconds / 60:.1f} minutes, with its 95 % confidence interval "
            "([method](../bench/soak/slope.py)). Its upper bound must not exceed "
            f"{MOST_MEGABYTES_PER_HOUR:g} MB/h. Open files and threads are counted before and after."
        ),
        "",
        "![Memory, open files, threads and Redis keys over time](soak.svg)",
        "",
        "| process | memory at the end | slope, MB/h (95 %) | open files | threads |",
        "|---|---|---|---|---|",
    ]
    for row in result.rows:
        if row.slope is None:
            continue
        interval = f"{row.slope.per_hour:+.2f} ({row.slope.lower:+.2f} to {row.slope.upper:+.2f})"
        files, threads = (f"{before} → {after}" for before, after in (row.descriptors, row.threads))
        lines.append(f"| {row.process} | {row.megabytes:.0f} MB | {interval} | {files} | {threads} |")
    before, after = (
        sum(count for kind, count in counts.items() if kind not in TRANSIENT)
        for counts in (result.keys_before, result.keys_after)
    )
    actions = ", ".join(f"{count} {name}" for name, count in result.actions.most_common())
    lines += [
        "",
        _wrapped(
            f"Redis had {before} keys before and {after} after, besides the records, limits and usage of the "
            f"{result.created_keys} API keys that were created and revoked, which expire by themselves."
        ),
        "",
        _wrapped(f"Actions: {actions}."),
        "",
        _wrapped("Missed targets: " + "; ".join(result.problems) + ".") if result.problems else "Every target was met.",
        "",
    ]
    return "\n".join(lines)


def _wrapped(paragraph: str) -> str:
    return textwrap.fill(paragraph, 120, break_long_words=False, break_on_hyphens=False)


def _plot(result: Result, sampler: Sampler) -> str:
    lasting = [s for s in sampler.series.values() if len(s.samples) > result.seconds / 2]

    def lines(what: str) -> list[Line]:
        return [
            Line(s.name, [sample.seconds for sample in s.samples], [getattr(sample, what) for sample in s.samples])
            for s in lasting
        ]

    keys = Line("keys", [seconds for seconds, _ in sampler.redis_keys], [count for _, count in sampler.redis_keys])
    panels = [
        Panel("Resident memory without file-backed pages (MB)", lines("megabytes")),
        Panel("Open files", lines("descriptors")),
        Panel("Threads", lines("threads")),
        Panel("Keys in Redis", [keys]),
    ]
    return draw(panels, warm_up_seconds=result.warm_up_seconds)


def main() -> None:
    """Run the soak test, write the report, and exit with 1 if a target was missed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long traffic runs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the users' random choices (default: %(default)s)")
    parser.add_argument(
        "--output", type=Path, help="directory for soak.md and soak.svg (default: docs, for a full run)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    try:
        result, sampler = asyncio.run(soak(arguments.seconds, seed=arguments.seed, quiet=arguments.json))
    except* UnexpectedResponseError as errors:
        raise SystemExit(f"error: {'; '.join(map(str, _leaves(errors)))}") from None
    report, plot = _report(result), _plot(result, sampler)
    output = arguments.output or (ROOT / "docs" if arguments.seconds >= SECONDS else None)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "soak.md").write_text(report)
        (output / "soak.svg").write_text(plot)
    fields: dict[str, Any] = asdict(result)
    print(json.dumps(fields, indent=2) if arguments.json else report)
    if result.problems:
        raise SystemExit("error: " + "; ".join(result.problems))


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


if __name__ == "__main__":
    main()
