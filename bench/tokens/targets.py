"""The targets of the token path, and whether the results meet them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from bench.tokens.load_client import CHAT, Row
from bench.tokens.part import Rows
from bench.tokens.results import Results


@dataclass(frozen=True)
class Target:
    """A figure, of which the median over the rounds must be at most or at least a number."""

    figure: str
    part: str
    values: Callable[[Rows], Sequence[float]]
    """Returns the figure of each round."""
    most: float | None = None
    least: float | None = None
    digits: int = 1
    judged: Callable[[Sequence[float]], float] = median

    def row(self, rows: Rows) -> list[str]:
        """Return the figure, the target, the measured median and range, and whether the target was met."""
        values = self.values(rows)
        value = self.judged(values)
        bounds = [f"≤ {self.most:g}"] if self.most is not None else []
        bounds += [f"≥ {self.least:g}"] if self.least is not None else []
        is_met = (self.most is None or value <= self.most) and (self.least is None or value >= self.least)
        shown = f"{value:.{self.digits}f} ({min(values):.{self.digits}f} to {max(values):.{self.digits}f})"
        return [self.figure, " and ".join(bounds), shown, "" if is_met else "**missed**"]


def target_rows(results: Results) -> list[list[str]]:
    """Return a row for each target whose part was measured."""
    return [target.row(results.rows(target.part)) for target in TARGETS if target.part in results]


def _field(name: str, field: str) -> Callable[[Rows], Sequence[float]]:
    return lambda rows: [row[field] for row in rows[name]]


def _quotient(name: str, other: str, field: str) -> Callable[[Rows], Sequence[float]]:
    return lambda rows: [a[field] / b[field] for a, b in zip(rows[name], rows[other], strict=True)]


def _farthest(rows: Rows) -> list[float]:
    """Return the farthest distance of a stream's rate from the mean, in percent."""
    return [100 * max(1 - row["slowest_stream_to_mean"], row["fastest_stream_to_mean"] - 1) for row in rows["gateway"]]


def _gap_difference(rows: Rows) -> list[float]:
    pairs = zip(rows["aiperf"], rows["load client"], strict=True)
    return [100 * abs(a["gap_ms_p50"] / b["gap_ms_p50"] - 1) for a, b in pairs]


def _count_difference(rows: Rows) -> list[float]:
    pairs = zip(rows["aiperf"], rows["load client"], strict=True)
    return [abs(a["output_tokens"] - b["output_tokens"]) for a, b in pairs]


def _at_most_linear(rows: Rows) -> list[float]:
    """Return the time per token of the longest prompt divided by that of the shortest."""
    by_length: list[tuple[float, list[Row]]] = sorted((each[0]["tokens"], each) for each in rows.values())
    (_, short), (_, long) = by_length[0], by_length[-1]
    return [a["us_per_token"] / b["us_per_token"] for a, b in zip(long, short, strict=True)]


def _longest_block(rows: Rows) -> list[float]:
    fields = ("gateway_longest_block_ms", "worker_longest_block_ms")
    return [max(row[field] for field in fields) for each in rows.values() for row in each]


TARGETS: Final = [
    *(
        Target(
            f"Gateway ÷ bare writer, µs/token, {streams} streams",
            "streams",
            _quotient(f"gateway {streams}", f"bare {streams}", "us_per_token"),
            most=most,
            digits=2,
        )
        for streams, most in ((32, 2.2), (256, 2.0), (1000, 2.0))
    ),
    Target(
        "1,000 streams on one core, tokens/s",
        "spread",
        _field("gateway", "all_running_tokens_per_second"),
        least=40_000,
        digits=0,
    ),
    Target("… farthest stream from the mean, %", "spread", _farthest, most=10),
    Target("… first token p50, ms", "spread", _field("gateway", "first_ms_p50"), most=100),
    Target("Worker, µs/token, 256 streams", "whole", _field("whole path", "worker"), most=25),
    Target("Triton, µs/token, 256 streams", "whole", _field("whole path", "triton"), most=20),
    Target("Gateway, worker and Triton, µs/token", "whole", _field("whole path", "sum"), most=70),
    Target(
        "Short whole request, ms of CPU", "requests", _field("whole, 16 clients", "ms_per_request"), most=0.9, digits=2
    ),
    Target(
        "Short streamed request, ms of CPU",
        "requests",
        _field("streamed, 16 clients", "ms_per_request"),
        most=1.0,
        digits=2,
    ),
    Target(
        "First token added to a direct call, p50, ms",
        "first_token",
        _field("first token", "added_ms_p50"),
        most=0.4,
        digits=2,
    ),
    Target(
        "Whole requests/s ÷ LiteLLM's",
        "litellm",
        _quotient(f"gateway {CHAT}", f"litellm {CHAT}", "whole_requests_per_second"),
        least=25,
    ),
    Target(
        "Streamed tokens per CPU second ÷ LiteLLM's",
        "litellm",
        _quotient(f"gateway {CHAT}", f"litellm {CHAT}", "tokens_per_cpu_second"),
        least=22,
    ),
    Target(
        "Prompt of 100,000 tokens, to the engine ÷ tokenizer",
        "prompts",
        _field("100000 tokens", "ratio"),
        most=1.5,
        digits=2,
    ),
    Target("… µs/token ÷ that of 10,000 tokens", "prompts", _at_most_linear, most=1.1, digits=2),
    Target("… longest block of an event loop, ms", "prompts", _longest_block, most=20, judged=max),
    Target("Memory per open stream, kB", "memory", _field("gateway", "kb_per_stream"), most=40),
    Target("… errors of 5,000 streams", "memory", _field("gateway", "errors"), most=0, digits=0, judged=max),
    Target("Delay of gathering a step, p50, ms", "gathering", _field("gathering", "delay_ms_p50"), most=1, digits=2),
    Target("aiperf: difference in output tokens", "aiperf", _count_difference, most=0, digits=0, judged=max),
    Target("aiperf: difference in the median gap, %", "aiperf", _gap_difference, most=10),
    Target("aiperf: cores used by it", "aiperf", _field("aiperf", "core_share"), most=0.5, digits=2),
]
