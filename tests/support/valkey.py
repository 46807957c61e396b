"""Real Valkey servers for tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.stack import valkey
from services.stack.ports import free_ports, is_free
from tests.support.waits import block_until


@contextmanager
def running_valkey(directory: Path) -> Iterator[str]:
    """Start a Valkey, yield its URL, and stop it."""
    port = free_ports(1)[0]
    command = valkey.command(port=port, directory=directory, persist=False)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        block_until(lambda: not is_free(port) or process.poll() is not None, 10, "Valkey listens")
        assert process.poll() is None, "Valkey ended"
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait(10)
