"""Run all benchmarks that need no GPU, one after the other, and write docs/benchmarks.md: `python -m bench`.

Examples:
  make bench
  python -m bench gateway local_model
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PARTS = {
    "gateway": "The gateway with all features, compared with LiteLLM and with direct calls",
    "tokens": "What a token and a short request cost",
    "local_model": "The local model through the whole system, compared with its engine alone",
    "cpu_engine": "The CPU engine, compared with the server inside xllamacpp",
    "limits": "Keys and limits",
    "embeddings": "Embeddings",
    "page": "The page",
}
_HEAD = """\
# Benchmarks

`make bench` measured these figures and wrote this page on {when}: {cores} cores ({machine}), Linux, Python {python}.
A figure is the median over several rounds, with their range in parentheses; the compared systems take turns. Ratios
can be compared between machines, absolute times cannot. Each part is a program of its own in [bench](../bench), and
`--help` lists its options.
"""


def main() -> None:
    """Run the chosen parts, and write the page if all of them were chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}; default: all")
    chosen = parser.parse_args().parts or list(PARTS)
    unknown = set(chosen) - set(PARTS)
    if unknown:
        sys.exit(f"error: unknown benchmark {min(unknown)!r}; choose from {', '.join(PARTS)}")
    sections = [f"## {PARTS[part]}\n\n{_run(part)}" for part in chosen]
    if len(chosen) == len(PARTS):
        when, cores = f"{datetime.now(UTC):%Y-%m-%d}", len(os.sched_getaffinity(0))
        head = _HEAD.format(when=when, cores=cores, machine=platform.machine(), python=platform.python_version())
        PAGE.write_text(head + "\n" + "\n\n".join(sections) + "\n")


def _run(part: str) -> str:
    done = subprocess.run([sys.executable, "-m", f"bench.{part}"], stdout=subprocess.PIPE, text=True, check=False)
    print(f"## {PARTS[part]}\n\n{done.stdout}", flush=True)
    if done.returncode:
        sys.exit(f"error: bench.{part} failed with exit code {done.returncode}")
    # On the page, the headings of a part are one level lower.
    return done.stdout.strip().replace("\n## ", "\n### ")


if __name__ == "__main__":
    main()
