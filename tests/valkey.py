"""A real Valkey for tests."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.stack import valkey
from services.stack.ports import free_ports, is_free


@contextmanager
def running_valkey(directory: Path) -> Iterator[str]:
    """Start one, hand over its URL, and stop it."""
    port = free_ports(1)[0]
    command = valkey.command(port=port, directory=directory, persist=False)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        limit = time.monotonic() + 10
        while is_free(port):
            assert process.poll() is None, "Valkey ended"
            assert time.monotonic() < limit, "Valkey does not listen"
            time.sleep(0.02)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)
