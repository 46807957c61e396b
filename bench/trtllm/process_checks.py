"""Checks of the engine's processes: what they report, their death, and how the image starts and stops them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.trtllm.subject import Skipped, Subject
from services.inference.weights.model_repository import write_model

STALL_SECONDS = 15
"""The time after which the engine under test gives up a silent TensorRT-LLM; 60 by default."""
NOTICE_SECONDS = STALL_SECONDS + 35
EXIT_SECONDS = 10
START = "vilix-start"
_RANK = b"mpi4py.futures"
"""In the command line of TensorRT-LLM's processes."""


def telemetry(subject: Subject) -> str:
    """Check that TensorRT-LLM was told to report nothing to NVIDIA."""
    assert os.environ.get("TRTLLM_NO_USAGE_STATS") == "1", "TRTLLM_NO_USAGE_STATS is not 1"
    try:
        from tensorrt_llm import usage  # noqa: PLC0415 - only some versions have it
    except ImportError:
        return "this version has no reports"
    enabled = getattr(usage, "is_usage_stats_enabled", None)
    assert enabled is None or not enabled(), "TensorRT-LLM still says that it reports"
    return "off"


def statistics(subject: Subject) -> str:
    """Check that the engine knows the use of its cache."""
    limit = time.monotonic() + 10
    while subject.engine.load().prefix_cache_hit_rate is None:
        assert time.monotonic() < limit, "there are no statistics"
        subject.ask(subject.question, max_tokens=4)
        time.sleep(0.5)
    load = subject.engine.load()
    return f"use {load.kv_cache_use}, hits {load.prefix_cache_hit_rate}"


def served(arguments: dict[str, Any], seconds: float) -> str:
    """Check that the image's first process starts Triton with the model, which answers, and stops it on SIGTERM."""
    with _triton(arguments, seconds) as (server, port):
        answer = _get(port, "models/smoke/generate_stream", _generate(max_tokens=8))
        assert answer is not None, "it does not answer"
        assert b"length" in answer, answer[-300:]
        began = time.monotonic()
        server.terminate()
        status = server.wait(EXIT_SECONDS + 20)
        took = time.monotonic() - began
        assert took < EXIT_SECONDS + 5, f"SIGTERM took {took:.0f} s"
        return f"stopped with status {status} in {took:.1f} s"


def death(arguments: dict[str, Any], seconds: float) -> str:
    """Check that a model fails the liveness probe soon after one of TensorRT-LLM's processes stands still."""
    with _triton(arguments, seconds) as (_, port):
        ranks = [pid for pid in _processes() if _RANK in _command(pid)]
        if not ranks:
            raise Skipped("TensorRT-LLM has no process of its own")
        asking = threading.Thread(target=_get, args=(port, "models/smoke/generate_stream", _generate()), daemon=True)
        asking.start()
        while not _load(port).get("generated_tokens_total"):
            assert asking.is_alive(), "the request has ended"
            time.sleep(0.05)
        os.kill(ranks[-1], signal.SIGSTOP)
        began = time.monotonic()
        try:
            while _load(port):
                assert time.monotonic() < began + NOTICE_SECONDS, f"still ready after {NOTICE_SECONDS} s"
                time.sleep(0.2)
            return f"noticed after {time.monotonic() - began:.0f} s; stall_seconds is {STALL_SECONDS}"
        finally:
            os.kill(ranks[-1], signal.SIGKILL)


def _generate(**params: int) -> dict[str, str]:
    return {"text_input": "The capital of France is", "params": json.dumps({"ignore_eos": True, **params})}


def _load(port: int) -> dict[str, Any]:
    """Return the load that the model reports, or nothing if it reports its failure."""
    answer = _get(port, "models/smoke/generate", {"params": json.dumps({"describe": True})})
    return {} if answer is None else dict(json.loads(json.loads(answer)["description"])["load"])


@contextmanager
def _triton(arguments: dict[str, Any], seconds: float) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start Triton with the model as the image does. Yield it and its port once it is ready."""
    program = shutil.which(START)
    if program is None:
        raise Skipped(f"{START} is not there: this is not one of our images")
    with tempfile.TemporaryDirectory() as directory:
        write_model(Path(directory), model_id="smoke", engine="trtllm", engine_args=arguments)
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = int(found.getsockname()[1])
        with _started(program, directory, port) as server:
            began = time.monotonic()
            while _get(port, "health/ready") is None:
                assert server.poll() is None, f"it ended with status {server.returncode}"
                assert time.monotonic() - began < seconds, f"it is not ready after {seconds:.0f} s"
                time.sleep(0.5)
            yield server, port


@contextmanager
def _started(program: str, repository: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    # This process may be in an MPI job, in which Triton must not take its place.
    own = ("OMPI_", "PMIX_", "PRTE_", "PMI_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    environment["VILIX_MPI"] = "1"
    flags = [
        f"--model-repository={repository}",
        "--disable-auto-complete-config",
        "--http-address=127.0.0.1",
        f"--http-port={port}",
        "--allow-grpc=false",
        "--allow-metrics=false",
        f"--exit-timeout-secs={EXIT_SECONDS}",
    ]
    server = subprocess.Popen([program, *flags], env=environment, stdout=sys.stderr, start_new_session=True)
    try:
        yield server
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(EXIT_SECONDS + 10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _get(port: int, path: str, body: dict[str, str] | None = None) -> bytes | None:
    data = None if body is None else json.dumps(body).encode()
    url = f"http://127.0.0.1:{port}/v2/{path}"
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  # http only
            return bytes(answer.read())
    except (urllib.error.URLError, OSError):
        return None


def _processes() -> list[int]:
    return sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
