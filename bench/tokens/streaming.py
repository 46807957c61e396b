"""Streams through the gateway alone: the cost of a token, many streams, a burst, and the memory of open streams."""

from __future__ import annotations

import tempfile
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

from bench.tokens.gateway_alone import Alone, running
from bench.tokens.load_client import CHAT, Load, Row, percentiles, stream_row
from bench.tokens.part import Options, Recorder, Rows, display, in_turns
from bench.tokens.servers import GATEWAYS, STEP_MS

WARM_UP_REQUESTS: Final = 200
FEW_WARM_UP_REQUESTS: Final = 32
"""For other servers, of which some take 25 ms for each."""
STREAMS: Final = (32, 256, 1000)
TOKENS: Final = 500
STARTS_PER_SECOND: Final = 200.0
MANY: Final = 1000
SPREAD_STARTS_PER_SECOND: Final = 20.0
SPREAD_SECONDS: Final = 10
"""The time for which all streams of `spread` run together."""
OPEN_STREAMS: Final = 5000
OPEN_TOKENS: Final = 32
OPEN_STARTS_PER_SECOND: Final = 250.0


async def streams(options: Options) -> Rows:
    """Measure the gateway and the bare writer, in turns, with 32, 256 and 1,000 streams of 50 tokens per second."""
    recorder, tokens = Recorder(), options.choose(TOKENS, 50)
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with running(Path(directory), display(), ["gateway", "bare"]) as alone:
            await warm_up(alone, "gateway")
            for number in range(options.rounds):
                for count in STREAMS:
                    for name in in_turns(("bare", "gateway"), number):
                        recorder.add(f"{name} {count}", await paced(alone, name, count, tokens))
    return recorder.rows


async def paced(alone: Alone, name: str, streams: int, tokens: int) -> Row:
    """Measure a round of streams that begin one after another."""
    report = await alone.run(name, Load(streams, streams, STARTS_PER_SECOND), max_tokens=tokens)
    others = report["others_cpu_seconds"] / report["seconds"]
    return {**stream_row(report, streams=streams, tokens=tokens), "others_core_share": others}


async def warm_up(alone: Alone, name: str, *, path: str = CHAT) -> None:
    """Let a server load what it needs, unmeasured."""
    requests = WARM_UP_REQUESTS if name in GATEWAYS else FEW_WARM_UP_REQUESTS
    await alone.run(name, Load(16, requests), max_tokens=4, path=path)


async def spread(options: Options) -> Rows:
    """Measure 1,000 streams of 50 tokens per second, of which 20 begin each second while the others run.

    Rates and their spread are those of the time in which all of them run.
    """
    recorder, many = Recorder(), options.choose(MANY, 100)
    seconds = many / SPREAD_STARTS_PER_SECOND
    tokens = int((seconds + SPREAD_SECONDS) * 1000 / STEP_MS)
    load = Load(many, many, SPREAD_STARTS_PER_SECOND, window=(seconds + 1, seconds + SPREAD_SECONDS - 1))
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with running(Path(directory), display(), ["gateway"]) as alone:
            await warm_up(alone, "gateway")
            for _ in range(options.rounds):
                report = await alone.run("gateway", load, max_tokens=tokens)
                row = stream_row(report, streams=many, tokens=tokens)
                recorder.add("gateway", {**row, **_spread(report, load), "tokens_each": tokens})
    return recorder.rows


def _spread(report: dict[str, Any], load: Load) -> Row:
    """Return the rate in the load's window, the streams' distance from the mean, and the latest first tokens."""
    assert load.window is not None  # noqa: S101  # it is set above
    begin, end = load.window
    counts = report["window_tokens"]
    mean = sum(counts) / len(counts)
    from_second = 0.8 * load.connections / load.rate
    late = [
        first
        for at, first in zip(report["began_s"], report["first_ms"], strict=True)
        if at >= from_second and first >= 0
    ]
    first_p50, first_p99 = percentiles(late)
    return {
        "all_running_tokens_per_second": sum(counts) / (end - begin),
        "slowest_stream_to_mean": min(counts) / mean,
        "fastest_stream_to_mean": max(counts) / mean,
        "last_fifth_first_ms_p50": first_p50,
        "last_fifth_first_ms_p99": first_p99,
    }


async def burst(options: Options) -> Rows:
    """Measure 1,000 streams that begin at once."""
    recorder, many, tokens = Recorder(), options.choose(MANY, 200), options.choose(TOKENS, 50)
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with running(Path(directory), display(), ["gateway"]) as alone:
            await warm_up(alone, "gateway")
            for _ in range(options.rounds):
                report = await alone.run("gateway", Load(many, many), max_tokens=tokens)
                recorder.add("gateway", stream_row(report, streams=many, tokens=tokens))
    return recorder.rows


async def memory(options: Options) -> Rows:
    """Measure the memory of 5,000 open streams, each round in a new process, with a token per second.

    A process that has had many streams keeps memory for them, and would need no more in a second round.
    """
    recorder, many = Recorder(), options.choose(OPEN_STREAMS, 200)
    rate, tokens = OPEN_STARTS_PER_SECOND, options.choose(OPEN_TOKENS, 4)
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
            async with running(Path(directory), display(), ["slow_gateway"]) as alone:
                # What the first streams load is no memory of a stream.
                await alone.run("slow_gateway", Load(64, 64), max_tokens=2)
                report = await alone.run("slow_gateway", Load(many, many, rate), max_tokens=tokens)
                kilobytes = report["grown_mb"] * 1000 / many
                row = stream_row(report, streams=many, tokens=tokens)
                row |= {"kb_per_stream": kilobytes, "rss_mb": report["rss_mb"], "most_open": most_open(report)}
                recorder.add("gateway", row)
    return recorder.rows


def most_open(report: dict[str, Any]) -> int:
    """Return the most requests that were open at the same time."""
    changes = [(began, 1) for began in report["began_s"]]
    changes += [(began + ms / 1000, -1) for began, ms in zip(report["began_s"], report["total_ms"], strict=True)]
    return max(accumulate(change for _, change in sorted(changes)))
