"""The figures, plots and page of the benchmark of tokens."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from bench.document import TITLES, replace
from bench.tokens import flame_graph, plots
from bench.tokens.load_client import CHAT, Load, percentiles, request_row, stream_row, write_request
from bench.tokens.part import Recorder, in_turns
from bench.tokens.report import report
from bench.tokens.response_bytes import ANTHROPIC, OPENAI
from bench.tokens.results import Results
from bench.tokens.servers import needed
from bench.tokens.source import WORDS
from bench.tokens.streaming import most_open
from bench.tokens.targets import TARGETS, target_rows

REPORT: dict[str, Any] = {
    "events": 22,
    "tokens": 19,
    "requests": 2,
    "errors": 0,
    "seconds": 2.0,
    "cpu_seconds": 0.5,
    "server_cpu_seconds": 1.0,
    "gap_ms": [20.0, 21.0, 30.0],
    "first_ms": [10.0, 30.0],
    "total_ms": [100.0, 300.0],
}


def test_the_figures_of_streams_follow_from_the_report() -> None:
    row = stream_row(REPORT, streams=2, tokens=10)
    assert row["us_per_token"] == 50_000
    assert row["tokens_per_second"] == 10
    assert row["first_ms_p50"] == 20
    assert row["slowest_to_mean"] == 1.5
    assert row["missing_tokens"] == 1
    assert row["client_core_share"] == 0.25


def test_the_figures_of_requests_follow_from_the_report() -> None:
    row = request_row(REPORT)
    assert row["ms_per_request"] == 500
    assert row["requests_per_second"] == 1
    assert row["requests_per_cpu_second"] == 2


def test_the_most_open_requests_are_counted() -> None:
    assert most_open({"began_s": [0.0, 1.0, 2.0], "total_ms": [1500.0, 500.0, 100.0]}) == 2


def test_percentiles_lie_between_the_values() -> None:
    assert percentiles([1.0, 2.0, 3.0]) == pytest.approx((2.0, 2.98))


def test_a_request_announces_the_bytes_of_its_body(tmp_path: Path) -> None:
    head, _, body = write_request(tmp_path, "key", {"model": "م"}, path=CHAT).read_bytes().partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head


def test_a_window_is_passed_to_the_load_client(tmp_path: Path) -> None:
    argv = Load(10, 20, 5.0, window=(1.0, 2.5)).argv(tmp_path / "load", 80, tmp_path / "request")
    assert argv[1:] == ["80", str(tmp_path / "request"), "10", "20", "5.0", "1.0", "2.5"]


def test_every_other_round_is_reversed() -> None:
    assert [list(in_turns("ab", number)) for number in range(3)] == [["a", "b"], ["b", "a"], ["a", "b"]]


@pytest.mark.parametrize("api", [OPENAI, ANTHROPIC])
def test_the_bytes_of_a_stream_are_chunks(api: Any) -> None:
    rest, events = api.first + b"".join(api.events) + api.last, b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        events += rest[: int(size, 16)]
        assert rest[int(size, 16) :].startswith(b"\r\n")
        rest = rest[int(size, 16) + 2 :]
    assert not int(size, 16)
    assert all(f'"{word}"'.encode() in events for word in WORDS)


def test_only_what_is_needed_is_started() -> None:
    assert needed(["gateway", "bare"]) == [["valkey", "source"], ["gateway", "bare"], []]
    assert needed(["litellm"]) == [["valkey", "upstream"], [], ["litellm"]]


def test_a_part_replaces_only_its_own_results(tmp_path: Path) -> None:
    for part, value in (("burst", 1.0), ("memory", 2.0), ("burst", 3.0)):
        Results(tmp_path).replace(part, {"gateway": [{"figure": value}]}, load_average=0.5)
    results = Results(tmp_path)
    assert results.rows("burst") == {"gateway": [{"figure": 3.0}]}
    assert results.rows("memory") == {"gateway": [{"figure": 2.0}]}
    assert "streams" not in results
    assert "the load average was 0.5 before" in results.conditions("burst")


def with_streams(directory: Path, *, gateway: float) -> Results:
    recorder = Recorder()
    fields = {"tokens_per_second": 1600, "first_ms_p50": 10, "first_ms_p99": 20, "slowest_to_mean": 1}
    client = {"client_us_per_token": 2.0, "client_core_share": 0.1}
    for streams in (32, 256, 1000):
        for name, cost in (("gateway", gateway), ("bare", 10.0)):
            for extra in (0.0, 1.0):
                recorder.add(f"{name} {streams}", {"us_per_token": cost + extra, **fields, **client})
    Results(directory).replace("streams", recorder.rows, load_average=0.1)
    return Results(directory)


@pytest.mark.parametrize(("cost", "verdict"), [(19.0, ""), (40.0, "**missed**")])
def test_a_target_is_met_or_missed(tmp_path: Path, cost: float, verdict: str) -> None:
    rows = target_rows(with_streams(tmp_path, gateway=cost))
    assert [row[0] for row in rows] == [f"Gateway ÷ bare writer, µs/token, {n} streams" for n in (32, 256, 1000)]
    assert {row[3] for row in rows} == {verdict}


def test_every_target_has_one_bound() -> None:
    assert all((target.most is None) != (target.least is None) for target in TARGETS)


def test_the_report_has_what_was_measured(tmp_path: Path) -> None:
    text = report(with_streams(tmp_path, gateway=20.0))
    assert "its own ceiling is 500,000 tokens per second" in " ".join(text.split())
    assert "| 1000 streams, a token every 20 ms | 20.5 (20.0 to 21.0) | 10.5 (10.0 to 11.0) | **1.95" in text
    assert "LiteLLM" not in text
    assert all(len(line) <= 120 for line in text.splitlines() if not line.startswith("|"))


def test_a_section_of_the_page_is_replaced_and_the_others_stay(tmp_path: Path) -> None:
    page = tmp_path / "benchmarks.md"
    replace("limits", "Old.", page=page)
    replace("gateway", "Measured.\n\n### Part\n\nMore.", page=page)
    replace("limits", "New.", page=page)
    text = page.read_text()
    assert text.endswith(f"## {TITLES['gateway']}\n\nMeasured.\n\n### Part\n\nMore.\n\n## {TITLES['limits']}\n\nNew.\n")
    assert text.startswith("# Benchmarks\n")


def texts_of(svg: str) -> list[str | None]:
    return [each.text for each in ET.fromstring(svg).iter() if each.tag.endswith(("text", "title"))]  # noqa: S314


@pytest.mark.parametrize("is_logarithmic", [False, True])
def test_a_plot_is_well_formed(is_logarithmic: bool) -> None:
    lines = [plots.Line("<gateway>", [(32, [20.0, 25.0]), (1000, [0.0, 4000.0])])]
    svg = plots.draw("Time & more", lines, x_label="streams", is_logarithmic=is_logarithmic)
    assert {"<gateway>", "Time & more", "32", "1000"} <= set(texts_of(svg))
    assert all(len(line) <= 120 for line in svg.splitlines())


def test_a_flame_graph_divides_each_process_among_its_stacks() -> None:
    stacks = flame_graph.read_stacks("run (<frozen runpy>);main (a.py);read <b> (c.py) 3\nmain (a.py) 1\n")
    root = flame_graph.merge({"gateway": (40.0, stacks), "server": (10.0, {})})
    gateway = root.children["gateway"]
    assert (root.value, gateway.value) == (50.0, 40.0)
    assert gateway.children["main (a.py)"].children["read <b> (c.py)"].value == 30.0
    assert "read <b> (c.py): 30.0 µs (60.0 %)" in texts_of(flame_graph.draw(root, "A token"))
