"""`python -m tests.faults.ticks SECONDS`: prints the time, on the clock of time.monotonic, every so many seconds.

The times between show what the machine is late by, whatever else runs on it.
"""

from __future__ import annotations

import sys
import time


def main() -> None:
    """Print until it is killed."""
    seconds = float(sys.argv[1])
    while True:
        time.sleep(seconds)
        print(time.monotonic(), flush=True)


if __name__ == "__main__":
    main()
