"""The load client, load.c: its compilation, its requests and its reports."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from services.stack.ports import LOOPBACK

_SOURCE: Final = Path(__file__).parent / "load.c"
CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"


def compile_load(directory: Path) -> Path:
    """Compile the load client. Raises FileNotFoundError without a compiler, and CalledProcessError."""
    path = directory / "load"
    compiler = shutil.which("cc")
    if compiler is None:
        raise FileNotFoundError("the load client needs a C compiler: install gcc")
    subprocess.run([compiler, "-O2", "-o", str(path), str(_SOURCE)], check=True)
    return path


def write_request(directory: Path, api_key: str, body: Any, *, path: str = CHAT) -> Path:
    """Write the bytes of a request to a file, and return its path."""
    content = json.dumps(body)
    key = f"X-Api-Key: {api_key}" if path == MESSAGES else f"Authorization: Bearer {api_key}"
    text = (
        f"POST {path} HTTP/1.1\r\nHost: {LOOPBACK}\r\n{key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n{content}"
    )
    file = directory / "request"
    file.write_text(text)
    return file


@dataclass(frozen=True)
class Load:
    """One run of the load client."""

    connections: int
    requests: int
    rate: float = 0.0
    """Starts per second; 0: all at once."""
    window: tuple[float, float] | None = None
    """Seconds after the start between which the tokens of each connection are counted."""

    def argv(self, program: Path, port: int, request: Path) -> list[str]:
        """Return the command."""
        numbers: Sequence[float] = (self.connections, self.requests, self.rate, *(self.window or ()))
        return [str(program), str(port), str(request), *map(str, numbers)]


Row = dict[str, float]
"""The figures of one round by name."""


def percentiles(values: Sequence[float]) -> tuple[float, float]:
    """Return p50 and p99."""
    return median(values), quantiles(values, n=100, method="inclusive")[98]


def stream_row(report: dict[str, Any], *, streams: int, tokens: int) -> Row:
    """Return the figures of `streams` streams of `tokens` tokens, of which the server's processor time is one."""
    generated = streams * tokens
    firsts, totals = [value for value in report["first_ms"] if value >= 0], report["total_ms"]
    first_p50, first_p99 = percentiles(firsts) if len(firsts) > 1 else (0.0, 0.0)
    gap_p50, gap_p90, gap_p99 = report["gap_ms"]
    mean = sum(totals) / len(totals)
    return {
        "us_per_token": report["server_cpu_seconds"] / generated * 1e6,
        "tokens_per_second": generated / report["seconds"],
        "first_ms_p50": first_p50,
        "first_ms_p99": first_p99,
        "gap_ms_p50": gap_p50,
        "gap_ms_p90": gap_p90,
        "gap_ms_p99": gap_p99,
        "slowest_to_mean": max(totals) / mean,
        "errors": report["errors"],
        "missing_tokens": generated - report["tokens"],
        "client_us_per_token": report["cpu_seconds"] / generated * 1e6,
        "client_core_share": report["cpu_seconds"] / report["seconds"],
        "events_per_token": report["events"] / generated,
    }


def request_row(report: dict[str, Any]) -> Row:
    """Return the figures of short requests."""
    count = report["requests"]
    first_p50, first_p99 = percentiles(report["first_ms"])
    return {
        "ms_per_request": report["server_cpu_seconds"] / count * 1e3,
        "requests_per_second": count / report["seconds"],
        "requests_per_cpu_second": count / max(report["server_cpu_seconds"], 0.01),
        "first_ms_p50": first_p50,
        "first_ms_p99": first_p99,
        "errors": report["errors"],
        "client_core_share": report["cpu_seconds"] / report["seconds"],
    }
