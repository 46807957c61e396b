"""`python -m tests.faults.ticks SECONDS`: prints the time of `time.monotonic` at this interval.

The intervals show the delays of the machine.
"""

from __future__ import annotations

import sys
import time


def main() -> None:
    """Print the time until the process is killed."""
    seconds = float(sys.argv[1])
    while True:
        time.sleep(seconds)
        print(time.monotonic(), flush=True)


if __name__ == "__main__":
    main()
