"""Compare the CPU engine with the server inside xllamacpp: `python -m bench.cpu_engine`.

Both run in processes of their own, with the same file, context, threads, batch and sampling, and take turns. Prefill is
the rate at which prompts are read until the last request has its first token. Decode is the rate of all tokens after
that, with short prompts. Prompts are random tokens, so that neither has a part of them in its cache.

Examples:
  python -m bench.cpu_engine
  python -m bench.cpu_engine --gguf Qwen2.5-Coder-0.5B-Instruct-Q4_K_M.gguf --threads 1 2 --rounds 3 --json
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from bench.processes import cpu_seconds
from bench.ratios import summary, table
from services.stack.cores import engine_threads
from services.stack.local_models import small_model

ROOT: Final = Path(__file__).parents[2]
PROGRAMS: Final = {"engine": "bench.local_model.bare", "server": "bench.cpu_engine.server"}
CONTEXT_TOKENS: Final = 2048
AT_ONCE: Final = (1, 8)
SHORT_PROMPT_TOKENS: Final = 16
SAMPLING: Final = {"temperature": 0.7, "top_k": 20, "top_p": 0.8}
"""The sampling that Qwen's models recommend."""
# Nearly all of them are parts of words in the vocabularies of small models.
TOKEN_IDS: Final = range(300, 20_000)


class Subject:
    """A process that generates."""

    def __init__(self, process: subprocess.Popen[str], *, by_cpu: bool) -> None:
        """Use a process that answers lines as `bench.local_model.bare` does."""
        self._process: Final = process
        self._by_cpu: Final = by_cpu

    def prefill(self, prompts: list[list[int]]) -> float:
        """Measure the prompt tokens per second until all requests have their first token."""
        began = cpu_seconds(self._process.pid)
        result = self._generate(prompts, 1)
        seconds = cpu_seconds(self._process.pid) - began if self._by_cpu else max(result["last"])
        return sum(map(len, prompts)) / seconds

    def decode(self, prompts: list[list[int]], tokens: int) -> float:
        """Measure the tokens per second after the last request's first token."""
        began = cpu_seconds(self._process.pid)
        result = self._generate(prompts, tokens)
        if self._by_cpu:
            return float(result["tokens"] / (cpu_seconds(self._process.pid) - began))
        return float((result["tokens"] - len(prompts)) / (max(result["last"]) - max(result["first"])))

    def _generate(self, prompts: list[list[int]], tokens: int) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101, PT018  # pipes
        question = {"prompts": prompts, "max_tokens": tokens, "sampling": SAMPLING}
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return dict(json.loads(self._process.stdout.readline()))


@contextmanager
def subjects(gguf: Path, threads: int, *, by_cpu: bool) -> Iterator[dict[str, Subject]]:
    """Start both programs, and stop them at the end."""
    arguments = {"model": str(gguf), "context_length": CONTEXT_TOKENS, "slots": max(AT_ONCE), "threads": threads}
    with ExitStack() as stack:
        started = {}
        for name, module in PROGRAMS.items():
            process = subprocess.Popen(
                [sys.executable, "-m", module, json.dumps(arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
            started[name] = Subject(process, by_cpu=by_cpu)
        yield started


def measure(gguf: Path, threads: int, *, rounds: int, prompt_tokens: int, tokens: int, by_cpu: bool) -> dict[str, Any]:
    """Run all measurements with one number of threads, and return tokens per second by measurement and program."""
    results: dict[str, dict[str, list[float]]] = {}
    with subjects(gguf, threads, by_cpu=by_cpu) as programs:
        for subject in programs.values():
            # The first generation is slower, and not measured.
            subject.decode(prompts(1, SHORT_PROMPT_TOKENS), 2)
        for _ in range(rounds):
            for count in AT_ONCE:
                for name, subject in programs.items():
                    rates = {
                        f"prefill, {count} at once": subject.prefill(prompts(count, prompt_tokens)),
                        f"decode, {count} at once": subject.decode(prompts(count, SHORT_PROMPT_TOKENS), tokens),
                    }
                    for key, rate in rates.items():
                        results.setdefault(key, {}).setdefault(name, []).append(rate)
    for rates in results.values():
        rates["ratio"] = [one / other for one, other in zip(rates["engine"], rates["server"], strict=True)]
    return results


def prompts(count: int, tokens: int) -> list[list[int]]:
    """Return random prompts of `tokens` tokens."""
    return [random.choices(TOKEN_IDS, k=tokens) for _ in range(count)]  # noqa: S311  # not for secrets


def report(results: dict[int, dict[str, Any]]) -> str:
    """Format the results as a table of medians and ranges over the rounds."""
    rows = [
        [
            f"{measurement}, {_threads(number)}",
            summary(rates["engine"], digits=1),
            summary(rates["server"], digits=1),
            f"**{summary(rates['ratio'])}**",
        ]
        for number, measurements in results.items()
        for measurement, rates in measurements.items()
    ]
    return table(["Tokens per second", "our engine", "xllamacpp's server", "ratio"], rows)


def _threads(number: int) -> str:
    return f"{number} thread{'' if number == 1 else 's'}"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gguf", type=Path, help="the model's file; default: the local stack's small model")
    parser.add_argument(
        "--threads", type=int, nargs="+", default=[engine_threads()], help="the threads of each program"
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--prompt-tokens", type=int, default=256, help="the length of the prompts that are read")
    parser.add_argument("--tokens", type=int, default=48, help="the tokens that each request generates")
    parser.add_argument(
        "--by-cpu", action="store_true", help="count processor seconds, on a machine that others use too"
    )
    parser.add_argument("--json", action="store_true", help="print all rounds as JSON")
    options = parser.parse_args()
    gguf = options.gguf or small_model(ROOT / ".cache").directory / "model.gguf"
    results = {
        number: measure(
            gguf,
            number,
            rounds=options.rounds,
            prompt_tokens=options.prompt_tokens,
            tokens=options.tokens,
            by_cpu=options.by_cpu,
        )
        for number in options.threads
    }
    print(json.dumps(results, indent=2) if options.json else report(results))


if __name__ == "__main__":
    main()
