"""The whole system on one machine: Valkey, Triton with small real models, the workers and the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from services.gateway import keys
from services.stack import readiness, triton, valkey
from services.stack.display import Display
from services.stack.local_models import (
    EMBEDDING_MODEL,
    SMALL_MODEL,
    LocalModel,
    embedding_model,
    own_model,
    parse_files,
    small_model,
    thinking_demo,
)
from services.stack.ports import LOOPBACK, free_ports, is_free
from services.stack.state import StateFile
from services.stack.supervisor import Program, StackError, Supervisor

INFERENCE_SERVICE: Final = "vilix.inference.v1.InferenceService"
EMBEDDINGS_SERVICE: Final = "vilix.embeddings.v1.EmbeddingsService"
DEVELOPMENT_KEY_NAME: Final = "development"


@dataclass(frozen=True)
class Options:
    """Where the stack listens and keeps its files."""

    port: int = 8000
    """The gateway's; the others are free ones."""
    state_dir: Path = Path(".run")
    """Everything that the stack writes: key, logs, data, state.json."""
    cache_dir: Path = Path(".cache")
    """What is made once and shared by all stacks: models."""
    gguf: tuple[str, ...] = ()
    """Further models: ID=PATH of a GGUF, ID being in the catalog."""
    mmproj: tuple[str, ...] = ()
    """Their eyes: ID=PATH of a GGUF."""
    demo_thinking: bool = False
    """Whether recorded answers with thoughts are served too."""


@dataclass(frozen=True)
class Ports:
    """Where the processes listen on 127.0.0.1."""

    gateway: int
    redis: int
    inference: int
    embeddings: int
    triton_http: int
    triton_grpc: int
    triton_metrics: int
    gateway_metrics: int
    inference_metrics: int
    embeddings_metrics: int


@dataclass(frozen=True)
class Stack:
    """A running stack."""

    url: str
    """Base URL of the HTTP API."""
    inference_target: str
    """The inference worker's gRPC address."""
    embeddings_target: str
    """The embeddings worker's gRPC address."""
    api_key: str
    models: tuple[str, ...]
    """Ids of the chat models."""
    supervisor: Supervisor


@contextlib.asynccontextmanager
async def running(options: Options, display: Display) -> AsyncIterator[Stack]:
    """Start the stack, hand it over when it answers, and stop it in order at the end.

    Raises StackError with one line when it cannot start: the port or the state directory is in use, a process died.
    """
    options.state_dir.mkdir(parents=True, exist_ok=True)
    with _exclusive(options.state_dir):
        if not is_free(options.port):
            raise StackError(f"port {options.port} on {LOOPBACK} is in use; choose another one: make run PORT=8001")
        ports = Ports(options.port, *free_ports(9))
        state = StateFile(options.state_dir / "state.json", _facts(ports))
        supervisor = Supervisor(display, state)
        try:
            with display.starting_up():
                models = await _prepare(options, display)
                await supervisor.start(_programs(options, ports, models))
                api_key = await _development_key(options, ports)
            ids = tuple(model.id for model in models)
            targets = (_target(ports.inference), _target(ports.embeddings))
            yield Stack(_url(ports), *targets, api_key, ids, supervisor)
        finally:
            await supervisor.stop()
            state.remove()


async def _prepare(options: Options, display: Display) -> list[LocalModel]:
    own, eyes = list(parse_files("--gguf", options.gguf)), dict(parse_files("--mmproj", options.mmproj))
    for model_id in eyes.keys() - dict(own).keys():
        raise StackError(f"--mmproj {model_id}={eyes[model_id]}: there is no --gguf {model_id}=PATH that it belongs to")
    with display.step(f"preparing {SMALL_MODEL}"):
        models = [await asyncio.to_thread(small_model, options.cache_dir)]
    if options.demo_thinking:
        with display.step("preparing replay-thinking"):
            models.append(await asyncio.to_thread(thinking_demo, options.cache_dir, options.state_dir))
    for model_id, source in own:
        with display.step(f"reading {source.name}"):
            models.append(
                await asyncio.to_thread(own_model, model_id, source, options.state_dir, mmproj=eyes.get(model_id))
            )
    await asyncio.to_thread(triton.install, _triton_directory(options))
    shutil.rmtree(_repository(options), ignore_errors=True)
    for model in (*models, embedding_model()):
        model.render(_repository(options))
    return models


def _programs(options: Options, ports: Ports, models: Sequence[LocalModel]) -> list[Program]:
    def program(name: str, argv: list[str], environment: Mapping[str, str], **more: object) -> Program:
        log = options.state_dir / "logs" / f"{name}.log"
        return Program(name=name, argv=argv, environment=environment, log=log, **more)  # type: ignore[arg-type]  # passed on as they are

    triton_argv, triton_environment = triton.command(
        directory=_triton_directory(options),
        repository=_repository(options),
        http_port=ports.triton_http,
        grpc_port=ports.triton_grpc,
        metrics_port=ports.triton_metrics,
    )
    return [
        program(
            "valkey",
            valkey.command(port=ports.redis, directory=options.state_dir / "valkey"),
            {},
            is_ready=lambda: readiness.redis_answers(ports.redis),
        ),
        program(
            "triton",
            triton_argv,
            triton_environment,
            is_ready=lambda: readiness.http_ok(ports.triton_http, "/v2/health/ready"),
            # A large model of somebody's own takes its time.
            ready_seconds=600.0 if options.gguf else 60.0,
            explain=triton.explain,
        ),
        program(
            "inference",
            [sys.executable, "-m", "services.inference"],
            {
                "VILIX_LISTEN": _target(ports.inference),
                "VILIX_TRITON": _target(ports.triton_grpc),
                "VILIX_MODELS": ",".join(f"{model.id}={model.directory}" for model in models),
                "VILIX_METRICS_PORT": str(ports.inference_metrics),
            },
            is_ready=lambda: readiness.grpc_serving(ports.inference, INFERENCE_SERVICE),
            ready_seconds=600.0 if options.gguf else 60.0,
            stop_seconds=40.0,
        ),
        program(
            "embeddings",
            [sys.executable, "-m", "services.embeddings"],
            {
                "VILIX_LISTEN": _target(ports.embeddings),
                "VILIX_TRITON": _target(ports.triton_grpc),
                "VILIX_MODELS": EMBEDDING_MODEL,
                "VILIX_METRICS_PORT": str(ports.embeddings_metrics),
            },
            is_ready=lambda: readiness.grpc_serving(ports.embeddings, EMBEDDINGS_SERVICE),
            ready_seconds=600.0 if options.gguf else 60.0,
            stop_seconds=40.0,
        ),
        program(
            "gateway",
            [sys.executable, "-m", "services.gateway"],
            {
                "VILIX_HOST": LOOPBACK,
                "VILIX_PORT": str(ports.gateway),
                "VILIX_REDIS_URL": _redis_url(ports),
                "VILIX_INFERENCE_WORKERS": _target(ports.inference),
                "VILIX_EXPECTED_MODELS": ",".join(model.id for model in models),
                "VILIX_EMBEDDINGS_WORKERS": _target(ports.embeddings),
                "VILIX_EXPECTED_EMBEDDING_MODELS": EMBEDDING_MODEL,
                "VILIX_METRICS_PORT": str(ports.gateway_metrics),
            },
            is_ready=lambda: readiness.all_models_available(ports.gateway),
            ready_seconds=600.0 if options.gguf else 60.0,
            stop_seconds=40.0,
        ),
    ]


async def _development_key(options: Options, ports: Ports) -> str:
    """The key of the last run if it is still valid, else a new one."""
    path = options.state_dir / "api-key"
    saved = path.read_text().strip() if path.exists() else ""
    async with Redis.from_url(_redis_url(ports), decode_responses=True) as redis:
        api_key = await keys.ensure(redis, name=DEVELOPMENT_KEY_NAME, saved=saved)
    if api_key != saved:
        # Private before there is anything in it.
        path.touch(mode=0o600)
        path.chmod(0o600)
        path.write_text(api_key + "\n")
    return api_key


def _facts(ports: Ports) -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "url": _url(ports),
        "redis_url": _redis_url(ports),
        "inference_target": _target(ports.inference),
        "embeddings_target": _target(ports.embeddings),
        "ports": asdict(ports),
    }


@contextlib.contextmanager
def _exclusive(state_dir: Path) -> Iterator[None]:
    with (state_dir / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StackError(
                f"a stack is already running in {state_dir} (process {lock.read().strip() or 'unknown'}); "
                "stop it, or give this one a place of its own: vilix up --state-dir .run2 --port 8001"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _url(ports: Ports) -> str:
    return f"http://{LOOPBACK}:{ports.gateway}/api"


def _target(port: int) -> str:
    return f"{LOOPBACK}:{port}"


def _redis_url(ports: Ports) -> str:
    return f"redis://{LOOPBACK}:{ports.redis}/0"


def _triton_directory(options: Options) -> Path:
    return (options.state_dir / "triton").absolute()


def _repository(options: Options) -> Path:
    return _triton_directory(options) / "models"
