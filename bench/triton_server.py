"""Starts a Triton server on 127.0.0.1: that of an image, or that of the wheel nvidia-pytriton."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from services.stack import triton

EXIT_SECONDS = 20


class ServerError(Exception):
    """The server has ended, or is not ready in time. The message has the end of its log."""


@contextlib.contextmanager
def serving(write: Callable[[Path], object], seconds: float) -> Iterator[str]:
    """Start a server with the models that `write` writes into a repository, and yield the address of its gRPC API.

    Raises FileNotFoundError if there is no server, and ServerError if it is not ready within `seconds`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        write(directory / "models")
        http, grpc, metrics = _free_ports(3)
        argv, environment = _command(directory, http, grpc, metrics)
        log = directory / "triton.log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                argv, env={**os.environ, **environment}, stdout=output, stderr=output, start_new_session=True
            )
        began = time.monotonic()
        try:
            while not _is_ready(http):
                tail = log.read_text(errors="replace")[-2000:]
                if server.poll() is not None:
                    raise ServerError(f"it ended with status {server.returncode}: {tail}")
                if time.monotonic() - began > seconds:
                    raise ServerError(f"it is not ready after {seconds:.0f} s: {tail}")
                time.sleep(0.2)
            yield f"127.0.0.1:{grpc}"
        finally:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(EXIT_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _command(directory: Path, http: int, grpc: int, metrics: int) -> tuple[list[str], dict[str, str]]:
    program = shutil.which("tritonserver")
    if program is not None:
        flags = [
            f"--model-repository={directory / 'models'}",
            "--disable-auto-complete-config",
            *(f"--{name}-address=127.0.0.1" for name in ("http", "grpc", "metrics")),
            f"--http-port={http}",
            f"--grpc-port={grpc}",
            f"--metrics-port={metrics}",
            f"--exit-timeout-secs={EXIT_SECONDS}",
        ]
        return [program, *flags], {}
    triton.install(directory)
    return triton.command(
        directory=directory,
        repository=directory / "models",
        http_port=http,
        grpc_port=grpc,
        metrics_port=metrics,
        python=Path(sys.executable),
    )


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in sockets]


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
