"""Run all benchmarks that need no GPU, one after the other, and write docs/benchmarks.md: `python -m bench`.

Each of them replaces its own section of the page.

Examples:
  make bench
  python -m bench gateway local_model
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from bench.document import TITLES, measured_here, replace

WRITES_ITS_SECTION = "tokens"
"""The benchmark that keeps its results, and writes its section itself."""


def main() -> None:
    """Run the chosen parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(TITLES)}; default: all")
    chosen = parser.parse_args().parts or list(TITLES)
    unknown = set(chosen) - set(TITLES)
    if unknown:
        sys.exit(f"error: unknown benchmark {min(unknown)!r}; choose from {', '.join(TITLES)}")
    for part in chosen:
        text = _run(part)
        if part != WRITES_ITS_SECTION:
            # On the page, the headings of a part are one level lower.
            replace(part, f"{measured_here()}\n\n" + text.strip().replace("\n## ", "\n### "))


def _run(part: str) -> str:
    done = subprocess.run([sys.executable, "-m", f"bench.{part}"], stdout=subprocess.PIPE, text=True, check=False)
    print(f"## {TITLES[part]}\n\n{done.stdout}", flush=True)
    if done.returncode:
        sys.exit(f"error: bench.{part} failed with exit code {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
