"""Format the results of the parts that were measured, with method and limits, as a section of docs/benchmarks.md."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from statistics import median
from typing import Final

from bench.ratios import summary, table
from bench.tokens.load_client import CHAT, MESSAGES
from bench.tokens.results import Results
from bench.tokens.servers import PEERS, STEP_MS
from bench.tokens.targets import target_rows

METHOD: Final = """\
The server that is measured has the first core to itself; the load client, the synthetic worker and Valkey have the
others. Vilix has everything on: keys, every kind of limit, usage, metrics, logs. Processor time is that of the process
with its children, user and system, from /proc. The synthetic worker ([source.py](../bench/tokens/source.py)) sends one
message per step with a token for each stream; the bare writer ([bare.py](../bench/tokens/bare.py)) writes the same
events in the same steps from one uvloop protocol, and does nothing else.
The load client ([load.c](../bench/tokens/load.c)) is one thread of C. {ceiling}
"""
LIMITS: Final = """\
Limits: two cores share caches, memory and a hypervisor with other machines, so that the same code differs by a third
between hours; only figures of the same part, which took turns, can be compared. The kernel's work for a loopback
connection is billed to whoever sends, a network card's work would not be. First tokens include the rest of the step in
which a request arrives, 10 ms on average. Streams end at `max_tokens`; the prompt is a sentence.
"""


def report(results: Results) -> str:
    """Return the section, without its heading."""
    parts = [_wrapped(METHOD.format(ceiling=_ceiling(results))), _wrapped(LIMITS)]
    if rows := target_rows(results):
        parts.append(table(["Figure", "Target", "Measured", ""], rows))
    for part, (title, render) in SECTIONS.items():
        if part in results:
            parts.append(f"### {title}\n\nMeasured on {results.conditions(part)}.\n\n{render(results)}")
    return "\n\n".join(parts)


def _wrapped(text: str) -> str:
    return "\n\n".join(
        textwrap.fill(paragraph, 120, break_long_words=False, break_on_hyphens=False)
        for paragraph in text.strip().split("\n\n")
    )


def _column(results: Results, part: str, name: str, field: str) -> list[float]:
    return [row[field] for row in results.rows(part)[name]]


def _cell(results: Results, part: str, name: str, field: str, digits: int = 1) -> str:
    return summary(_column(results, part, name, field), digits=digits)


def _ratio(results: Results, part: str, name: str, other: str, field: str) -> str:
    ours, theirs = _column(results, part, name, field), _column(results, part, other, field)
    return summary([a / b for a, b in zip(ours, theirs, strict=True)])


def _ceiling(results: Results) -> str:
    if "streams" not in results:
        return ""
    name = max((name for name in results.rows("streams") if name.startswith("bare")), key=lambda each: int(each[5:]))
    cost = median(_column(results, "streams", name, "client_us_per_token"))
    share = max(_column(results, "streams", name, "client_core_share"))
    return (
        f"It used {cost:.1f} µs per token at {name[5:]} streams, so that its own ceiling is {1e6 / cost:,.0f} tokens "
        f"per second, and at most {share:.0%} of its core."
    )


def _streams(results: Results) -> str:
    rows = []
    numbers = sorted(int(name.split()[1]) for name in results.rows("streams") if name.startswith("gateway"))
    for number in numbers:
        ours, bare = f"gateway {number}", f"bare {number}"
        rows.append(
            [
                f"{number} streams, a token every {STEP_MS:g} ms",
                _cell(results, "streams", ours, "us_per_token"),
                _cell(results, "streams", bare, "us_per_token"),
                f"**{_ratio(results, 'streams', ours, bare, 'us_per_token')}**",
                _cell(results, "streams", ours, "tokens_per_second", 0),
                _cell(results, "streams", ours, "first_ms_p50", 0),
                _cell(results, "streams", ours, "first_ms_p99", 0),
                _cell(results, "streams", ours, "slowest_to_mean"),
            ]
        )
    head = ["", "Gateway, µs/token", "Bare writer, µs/token", "Ratio", "Tokens/s"]
    text = table([*head, "First token p50, ms", "p99, ms", "Slowest stream ÷ mean"], rows)
    return (
        f"{text}\n\n![Processor time of a token over the number of streams](benchmarks/cpu.svg)\n\n"
        "![Time to the first token over the number of streams](benchmarks/first_token.svg)"
    )


def _spread(results: Results) -> str:
    def cell(field: str, digits: int = 0) -> str:
        return _cell(results, "spread", "gateway", field, digits)

    tokens = results.rows("spread")["gateway"][0]["tokens_each"]
    rows = [
        [f"Tokens/s while all streams run ({tokens:.0f} tokens each)", cell("all_running_tokens_per_second")],
        ["Slowest stream ÷ mean, in that time", cell("slowest_stream_to_mean", 3)],
        ["Fastest stream ÷ mean", cell("fastest_stream_to_mean", 3)],
        ["Gateway, µs/token", cell("us_per_token", 1)],
        ["First token p50, p99, ms, all starts", f"{cell('first_ms_p50')}, {cell('first_ms_p99')}"],
        [
            "First token p50, p99, ms, the last fifth of the starts",
            f"{cell('last_fifth_first_ms_p50')}, {cell('last_fifth_first_ms_p99')}",
        ],
        ["Gap between tokens p50, p99, ms", f"{cell('gap_ms_p50', 1)}, {cell('gap_ms_p99', 1)}"],
        ["Errors, missing tokens", f"{cell('errors')}, {cell('missing_tokens')}"],
    ]
    return table(["1,000 streams of 50 tokens/s, 20 starts per second", "Gateway"], rows)


def _burst(results: Results) -> str:
    fields = (("First token p50, ms", "first_ms_p50"), ("p99, ms", "first_ms_p99"), ("Tokens/s", "tokens_per_second"))
    cells = [_cell(results, "burst", "gateway", field, 0) for _, field in fields]
    errors = _cell(results, "burst", "gateway", "errors", 0)
    return table(["", *(name for name, _ in fields), "Errors"], [["1,000 starts at once", *cells, errors]])


def _requests(results: Results) -> str:
    rows = [
        [
            name,
            f"**{_cell(results, 'requests', name, 'ms_per_request', 2)}**",
            _cell(results, "requests", name, "requests_per_second", 0),
            _cell(results, "requests", name, "first_ms_p50", 2),
            _cell(results, "requests", name, "first_ms_p99", 2),
        ]
        for name in results.rows("requests")
    ]
    note = "A whole response has 8 tokens, a streamed one 4, and the worker answers at once."
    head = ["", "Gateway, ms of CPU per request", "Requests/s", "First byte or token p50, ms", "p99, ms"]
    return f"{note}\n\n{table(head, rows)}"


def _first_token(results: Results) -> str:
    def cell(field: str) -> str:
        return _cell(results, "first_token", "first token", field, 2)

    rows = [
        [name, cell(f"{key}_ms_p50"), cell(f"{key}_ms_p99")]
        for name, key in (("Direct gRPC call", "direct"), ("Through the gateway", "gateway"), ("**Added**", "added"))
    ]
    note = "One client, a real worker, and Triton with the replay engine, which answers at once."
    return f"{note}\n\n{table(['First token, ms', 'p50', 'p99'], rows)}"


def _whole(results: Results) -> str:
    def cell(field: str, digits: int = 1) -> str:
        return _cell(results, "whole", "whole path", field, digits)

    head = ["256 streams, µs/token", "Gateway", "Worker", "Triton", "Sum", "Tokens/s", "1 ÷ largest part"]
    row = ["Qwen3's tokenizer, reasoning and tools"]
    row += [cell("gateway"), cell("worker"), cell("triton"), f"**{cell('sum')}**"]
    row += [cell("tokens_per_second", 0), cell("computed_tokens_per_second", 0)]
    note = (
        "All processes, with client and engine, share all cores. The last column is the computed rate if each part had "
        f"a core to itself. First token p50 {cell('first_ms_p50', 0)} ms, p99 {cell('first_ms_p99', 0)} ms; gap "
        f"between tokens p50 {cell('gap_ms_p50')} ms, p99 {cell('gap_ms_p99')} ms; errors: {cell('errors', 0)}."
    )
    return f"{table(head, [row])}\n\n{_wrapped(note)}"


def _gathering(results: Results) -> str:
    def cell(field: str, digits: int = 2) -> str:
        return _cell(results, "gathering", "gathering", field, digits)

    note = (
        "From the moment at which an output is added to the worker's message until the message goes to gRPC, which "
        "includes detokenizing and parsing the outputs that follow. The first output of a message waits longest; a "
        f"message has {cell('outputs_per_message', 0)} outputs on average."
    )
    rows = [
        ["All outputs, 256 streams", cell("delay_ms_p50"), cell("delay_ms_p99")],
        ["The first output of each message", cell("first_delay_ms_p50"), cell("first_delay_ms_p99")],
    ]
    return f"{_wrapped(note)}\n\n{table(['Delay, ms', 'p50', 'p99'], rows)}"


def _prompts(results: Results) -> str:
    rows = [
        [
            f"{median(_column(results, 'prompts', name, 'tokens')):,.0f}",
            _cell(results, "prompts", name, "to_engine_ms", 0),
            _cell(results, "prompts", name, "tokenizer_ms", 0),
            f"**{_cell(results, 'prompts', name, 'ratio', 2)}**",
            _cell(results, "prompts", name, "us_per_token", 2),
            f"{max(_column(results, 'prompts', name, 'gateway_longest_block_ms')):.0f}, "
            f"{max(_column(results, 'prompts', name, 'worker_longest_block_ms')):.0f}",
        ]
        for name in results.rows("prompts")
    ]
    note = (
        "From sending the request until the worker hands it to the stream of Triton; text of this repository. The "
        "tokenizer alone encodes the same text in a process of its own. A block is the time for which an event loop "
        "was kept from running by its own process, of gateway and worker."
    )
    head = ["Tokens", "To the engine, ms", "Tokenizer alone, ms", "Ratio", "µs/token", "Longest blocks, ms"]
    return f"{_wrapped(note)}\n\n{table(head, rows)}"


def _memory(results: Results) -> str:
    rows = [
        [
            f"**{_cell(results, 'memory', 'gateway', 'kb_per_stream')}**",
            _cell(results, "memory", "gateway", "most_open", 0),
            _cell(results, "memory", "gateway", "rss_mb", 0),
            _cell(results, "memory", "gateway", "errors", 0),
            _cell(results, "memory", "gateway", "missing_tokens", 0),
        ]
    ]
    note = (
        "Growth of the gateway's resident memory from a few streams to the peak with 5,000 open ones, a token per "
        "second each; without the kernel's buffers of sockets."
    )
    head = ["kB per stream", "Open at the same time", "Resident memory, MB", "Errors", "Missing tokens"]
    return f"{_wrapped(note)}\n\n{table(head, rows)}"


def _litellm(results: Results) -> str:
    names = {
        f"gateway {CHAT}": "Vilix, chat completions",
        f"litellm {CHAT}": "LiteLLM, chat completions",
        f"gateway {MESSAGES}": "Vilix, messages",
        f"litellm {MESSAGES}": "LiteLLM, messages",
        f"litellm_rust {MESSAGES}": "LiteLLM with Rust, messages",
    }
    rows = []
    for name, title in names.items():
        ours = name.startswith("gateway")
        other = f"gateway {name.split()[1]}"
        ratios = [
            "1" if ours else f"**{_ratio(results, 'litellm', other, name, field)}**"
            for field in ("tokens_per_cpu_second", "whole_requests_per_second")
        ]
        rows.append(
            [
                title,
                _cell(results, "litellm", name, "tokens_per_cpu_second", 0),
                ratios[0],
                _cell(results, "litellm", name, "tokens_per_second", 0),
                _cell(results, "litellm", name, "whole_requests_per_second", 0),
                ratios[1],
                _cell(results, "litellm", name, "first_ms_p50", 0),
            ]
        )
    used = all(row["uses_rust"] for row in results.rows("litellm")[f"litellm_rust {MESSAGES}"])
    rust = (
        "LiteLLM's Rust path (`LITELLM_RUST=true`) exists for `/v1/messages` with Anthropic's API upstream only, and "
        + ("was used: the upstream saw another HTTP client." if used else "**was not used**: it fell back to Python.")
    )
    rust += " The rows of Anthropic's API are of two rounds."
    head = ["One core", "Tokens per CPU second", "Vilix ÷ it", "Tokens/s of 1,600", "Whole requests/s", "Vilix ÷ it"]
    return f"{table([*head, 'First token p50, ms'], rows)}\n\n{_wrapped(rust)}"


def _methods(results: Results) -> str:
    rows = [
        [
            name,
            *(_cell(results, "methods", name, field, 0) for field in ("gateway", "litellm")),
            f"**{_cell(results, 'methods', name, 'ratio')}**",
        ]
        for name in results.rows("methods")
    ]
    if "litellm" in results:
        names = (f"gateway {CHAT}", f"litellm {CHAT}")
        ratio = _ratio(results, "litellm", *names, "tokens_per_cpu_second")
        cells = [_cell(results, "litellm", name, "tokens_per_cpu_second", 0) for name in names]
        rows.append(["C client, own core, synthetic worker and upstream", *cells, f"**{ratio}**"])
    note = (
        "The first row is the method of the first section of this page, and the last one that of the table above. "
        "Each row changes one thing: the client, the core, and what is behind the server. The last one also has "
        "streams of 500 tokens instead of 256, among which the cost of a stream's start is divided."
    )
    return f"{table(['Tokens per CPU second, 32 streams', 'Vilix', 'LiteLLM', 'Ratio'], rows)}\n\n{_wrapped(note)}"


def _peers(results: Results) -> str:
    names = ("gateway", *PEERS, "bare")
    numbers = sorted({int(name.rpartition(" ")[2]) for name in results.rows("peers")})
    rows = [
        [
            name,
            *(_cell(results, "peers", f"{name} {number}", "us_per_token") for number in numbers),
            *(_cell(results, "peers", f"{name} {number}", "first_ms_p50", 0) for number in numbers),
        ]
        for name in names
    ]
    note = (
        "The routers are written in Rust. They pass an HTTP stream on as it is, without keys, limits, budgets, "
        "accounting, parsing of tool calls, or a language of their own between the parts; the gateway does all of "
        "that. So the figures say what these features and Python cost, and not which of the programs is better. Their "
        "upstream is the bare writer, and the gateway's is the synthetic worker."
    )
    head = [f"µs/token, {number} streams" for number in numbers]
    head += [f"First token p50, ms, {number} streams" for number in numbers]
    return f"{table(['', *head], rows)}\n\n{_wrapped(note)}"


def _aiperf(results: Results) -> str:
    rows = [
        [
            name,
            _cell(results, "aiperf", name, "output_tokens", 0),
            _cell(results, "aiperf", name, "expected_tokens", 0),
            _cell(results, "aiperf", name, "gap_ms_p50", 2),
            _cell(results, "aiperf", name, "first_ms_p50", 1),
            _cell(results, "aiperf", name, "core_share", 2),
        ]
        for name in ("aiperf", "load client")
    ]
    head = ["", "Output tokens", "Requested", "Gap between tokens p50, ms", "First token p50, ms", "Cores used"]
    note = "aiperf counts tokens with Qwen3's tokenizer, for which each word of the synthetic worker is one."
    return f"{table(head, rows)}\n\n{note}"


def _flame(results: Results) -> str:
    row = results.rows("flame")["flame"][0]
    parts = ", ".join(f"{name} {value:.0f}" for name, value in row.items())
    note = (
        f"Sampled by py-spy at 99 Hz, without pausing the processes, while 256 streams ran ({parts} µs/token). Each "
        "process is as wide as its processor time, and divided among the stacks of its Python threads; functions of C "
        "belong to the Python function that called them. The server of Triton has no Python."
    )
    return f"![Flame graph of a token's way](benchmarks/flame.svg)\n\n{_wrapped(note)}"


SECTIONS: Final[dict[str, tuple[str, Callable[[Results], str]]]] = {
    "streams": ("The gateway alone", _streams),
    "spread": ("Many streams on one core", _spread),
    "burst": ("A burst", _burst),
    "requests": ("Short requests", _requests),
    "first_token": ("The first token", _first_token),
    "whole": ("Gateway, worker and Triton", _whole),
    "gathering": ("Gathering a step", _gathering),
    "prompts": ("Long prompts", _prompts),
    "memory": ("Memory of open streams", _memory),
    "litellm": ("Beside LiteLLM", _litellm),
    "methods": ("Why two methods differ", _methods),
    "peers": ("Beside routers in Rust", _peers),
    "aiperf": ("The load client beside aiperf", _aiperf),
    "flame": ("Where the time goes", _flame),
}
