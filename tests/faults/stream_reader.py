"""`python -m tests.faults.stream_reader ADDRESS`: a client that prints the time of each event of its stream.

Stdin is the request, and VILIX_API_KEY is the key. The times are those of `time.monotonic`.
"""

from __future__ import annotations

import http.client
import os
import sys
import time


def main() -> None:
    """Read one stream to its end."""
    headers = {"Authorization": f"Bearer {os.environ['VILIX_API_KEY']}", "Content-Type": "application/json"}
    connection = http.client.HTTPConnection(sys.argv[1], timeout=60)
    connection.request("POST", "/api/chat/completions", sys.stdin.buffer.read(), headers)
    for line in connection.getresponse():
        if line.startswith(b"data: "):
            print(time.monotonic(), flush=True)


main()
