"""The whole system on one machine: Valkey, a Triton for each model, the workers and the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from services.gateway.key_ring import new_key
from services.gateway.tenancy import keys
from services.inference.model.engine_status import STALL_SECONDS
from services.runtime.allocator import give_back_free_memory
from services.stack import default_model, demo_thinking, private_files, readiness, triton, valkey
from services.stack.addresses import Credentials, Ports, api_url, facts, redis_url, target
from services.stack.daemon_thread import in_daemon_thread
from services.stack.display import Display
from services.stack.exclusive import exclusive
from services.stack.local_models import (
    EMBEDDING_MODEL,
    SMALL_MODEL,
    LocalModel,
    catalog_model,
    embedding_model,
    own_model,
    parse_files,
    thinking_demo,
)
from services.stack.model_health import ModelHealth
from services.stack.ports import LOOPBACK, free_ports, is_free
from services.stack.state import StateFile
from services.stack.supervisor import Program, StackError, Supervisor

INFERENCE_SERVICE: Final = "vilix.inference.v1.InferenceService"
EMBEDDINGS_SERVICE: Final = "vilix.embeddings.v1.EmbeddingsService"
DEVELOPMENT_KEY_NAME: Final = "development"
SMALL_STALL_SECONDS: Final = 8.0
EMBEDDING_STALL_SECONDS: Final = 20.0
"""A batch of the embedding model takes two seconds on a core of its own, and two batches may precede a health check."""


@dataclass(frozen=True)
class Options:
    """The options of `vilix up`."""

    port: int = 8000
    """The gateway's port. The other processes get free ports."""
    state_dir: Path = Path(".run")
    """The directory of the key, the logs, the data and state.json."""
    cache_dir: Path = Path(".cache")
    """The directory of prepared models, which all stacks share."""
    gguf: tuple[str, ...] = ()
    """More models: ID=PATH of a GGUF file, with an ID of the catalog."""
    mmproj: tuple[str, ...] = ()
    """Their vision projectors: ID=PATH of a GGUF file."""
    model: str | None = None
    """A model of the catalog. None: one that fits this machine, or none beside own models."""
    context_length: int | None = None
    """The longest context of chat models in GGUF, in tokens. None: that of the catalog entry's engine."""
    demo_thinking: bool = False
    """Whether the stack also serves `replay-thinking`: recorded responses with reasoning."""


@dataclass(frozen=True)
class Stack:
    """A running stack."""

    url: str
    """The base URL of the HTTP API."""
    inference_target: str
    """The inference worker's gRPC address."""
    embeddings_target: str
    """The embeddings worker's gRPC address."""
    api_key: str
    models: tuple[LocalModel, ...]
    """The chat models."""
    supervisor: Supervisor


@contextlib.asynccontextmanager
async def running(options: Options, display: Display) -> AsyncIterator[Stack]:
    """Start the stack, yield it once it is ready, and stop it in order at the end.

    Raises:
        StackError: The stack cannot start: the port or the state directory is in use, or a process died. The message is
            one line.
    """
    private_files.make_private(options.state_dir)
    with exclusive(options.state_dir), private_files.short_directory(options.state_dir / "sockets") as sockets:
        if not is_free(options.port):
            other = options.port % 65535 + 1
            raise StackError(
                f"port {options.port} on {LOOPBACK} is in use; choose another one: make run PORT={other}, or "
                f"vilix up --port {other}"
            )
        ports = Ports(options.port, *free_ports(7))
        credentials = Credentials(secrets.token_hex(16), secrets.token_hex(16))
        state = StateFile(options.state_dir / "state.json", facts(ports, credentials))
        supervisor = Supervisor(display, state)
        closing = contextlib.AsyncExitStack()
        try:
            with display.starting_up():
                models = await _prepare(options, display)
                private_files.tighten(options.state_dir)
                closing.enter_context(private_files.by_default())
                tritons = [_triton(options, model, models, sockets) for model in (*models, embedding_model())]
                for triton_server in tritons:
                    closing.push_async_callback(triton_server.health.close)
                await supervisor.start(_programs(options, ports, models, tritons, credentials))
                api_key = await _development_key(options, redis_url(ports, credentials))
                (options.state_dir / "model").write_text(f"{models[0].id}\n")
            state.all_ready({"models": _descriptions(models, ports)})
            # Preparing the models used memory that is free now.
            await asyncio.to_thread(give_back_free_memory)
            targets = (target(ports.inference), target(ports.embeddings))
            yield Stack(api_url(ports), *targets, api_key, tuple(models), supervisor)
        finally:
            await supervisor.stop()
            await closing.aclose()
            state.remove()


async def _prepare(options: Options, display: Display) -> list[LocalModel]:
    own, projectors = list(parse_files("--gguf", options.gguf)), dict(parse_files("--mmproj", options.mmproj))
    for model_id in projectors.keys() - dict(own).keys():
        raise StackError(f"--mmproj {model_id}={projectors[model_id]} needs --gguf {model_id}=PATH")
    if options.model in dict(own):
        raise StackError(f"--model {options.model} and --gguf {options.model}=… name the same model; leave one out")
    models = [await _catalog_model(name, options, display)] if (name := _model_id(options, display)) else []
    if options.demo_thinking:
        with display.step("preparing replay-thinking"):
            models.append(await asyncio.to_thread(thinking_demo, options.cache_dir, options.state_dir))
    for model_id, source in own:
        with display.step(f"reading {source.name}"):
            models.append(
                await asyncio.to_thread(
                    own_model,
                    model_id,
                    source,
                    options.state_dir,
                    mmproj=projectors.get(model_id),
                    context_length=options.context_length,
                )
            )
        if models[-1].warning:
            display.warn(models[-1].warning)
    await asyncio.to_thread(triton.install, _triton_directory(options))
    shutil.rmtree(_repositories(options), ignore_errors=True)
    for model in (*models, embedding_model()):
        model.render(_repositories(options) / model.id)
    return models


def _model_id(options: Options, display: Display) -> str | None:
    """Return the id of the model of the catalog, or None where only own models are requested."""
    if options.model is not None or options.gguf:
        return options.model
    name, reason = default_model.choose()
    display.note(f"{name} is the default: {reason}. Another one: make run MODEL=ID, or vilix up --model ID")
    return name


async def _catalog_model(name: str, options: Options, display: Display) -> LocalModel:
    with display.download(f"preparing {name}") as progress:
        try:
            prepare = partial(catalog_model, name, options.cache_dir, progress, context_length=options.context_length)
            return await in_daemon_thread(prepare)
        except asyncio.CancelledError:
            progress.stop()
            raise


@dataclass(frozen=True)
class _Triton:
    """The server of one model. Each model has its own, so that a model that dies or hangs does not affect others."""

    model: str
    endpoint: str
    program: Program
    health: ModelHealth


def _triton(options: Options, model: LocalModel, models: Sequence[LocalModel], sockets: Path) -> _Triton:
    socket = sockets / model.id
    # The prefix differs between the stacks of this machine.
    prefix = f"vilix_{hashlib.sha256(str(options.state_dir.absolute()).encode()).hexdigest()[:12]}_{model.id}_"
    argv, environment = triton.private_command(
        directory=_triton_directory(options),
        repository=_repositories(options) / model.id,
        socket=socket,
        memory_prefix=prefix,
    )
    is_chat = model.id != EMBEDDING_MODEL
    stall_seconds = _stall_seconds(models) if is_chat else EMBEDDING_STALL_SECONDS
    endpoint = triton.endpoint(socket)
    health = ModelHealth(endpoint, model.id, stall_seconds=stall_seconds, is_chat=is_chat)
    name = f"triton-{model.id}"
    program = Program(
        name=name,
        group="tritons",
        argv=argv,
        environment=environment,
        log=_log(options, name),
        is_ready=health.is_ready,
        find_fault=health.find_fault,
        clean_up=partial(triton.remove_shared_memory, prefix),
        ready_seconds=_ready_seconds(models),
        explain=triton.explain,
    )
    return _Triton(model.id, endpoint, program, health)


def _are_small(models: Sequence[LocalModel]) -> bool:
    """Return whether the chat models load in seconds and take milliseconds for a step."""
    return all(model.id in (SMALL_MODEL, demo_thinking.MODEL) for model in models)


def _stall_seconds(models: Sequence[LocalModel]) -> float:
    """Return the longest silence of a chat model in seconds. A step of a large model may take seconds."""
    return SMALL_STALL_SECONDS if _are_small(models) else STALL_SECONDS


def _ready_seconds(models: Sequence[LocalModel]) -> float:
    """Return how many seconds models may take to load."""
    return 60.0 if _are_small(models) else 600.0


def _programs(
    options: Options, ports: Ports, models: Sequence[LocalModel], tritons: Sequence[_Triton], credentials: Credentials
) -> list[Program]:
    """Return the programs of the stack, in the order of their start."""
    endpoints = ",".join(f"{server.model}={server.endpoint}" for server in tritons)
    return [
        _valkey(options, ports, password=credentials.redis_password),
        *(server.program for server in tritons),
        _inference(options, ports, models, endpoints),
        _embeddings(options, ports, models, endpoints),
        _gateway(options, ports, models, credentials),
    ]


def _valkey(options: Options, ports: Ports, *, password: str | None) -> Program:
    return Program(
        name="valkey",
        argv=valkey.command(port=ports.redis, directory=options.state_dir / "valkey", password=password),
        environment={},
        log=_log(options, "valkey"),
        is_ready=lambda: readiness.redis_answers(ports.redis, password),
    )


def _inference(options: Options, ports: Ports, models: Sequence[LocalModel], endpoints: str) -> Program:
    environment = {
        "VILIX_LISTEN": target(ports.inference),
        "VILIX_TRITON": endpoints,
        "VILIX_ENGINE_STALL_SECONDS": f"{_stall_seconds(models):g}",
        "VILIX_MODELS": ",".join(f"{model.id}={model.directory}" for model in models),
        "VILIX_METRICS_PORT": str(ports.inference_metrics),
    }
    return _service(
        options,
        models,
        "inference",
        environment,
        lambda: readiness.grpc_serving(ports.inference, INFERENCE_SERVICE),
        group="workers",
    )


def _embeddings(options: Options, ports: Ports, models: Sequence[LocalModel], endpoints: str) -> Program:
    environment = {
        "VILIX_LISTEN": target(ports.embeddings),
        "VILIX_TRITON": endpoints,
        "VILIX_ENGINE_STALL_SECONDS": f"{EMBEDDING_STALL_SECONDS:g}",
        "VILIX_MODELS": EMBEDDING_MODEL,
        "VILIX_METRICS_PORT": str(ports.embeddings_metrics),
    }
    return _service(
        options,
        models,
        "embeddings",
        environment,
        lambda: readiness.grpc_serving(ports.embeddings, EMBEDDINGS_SERVICE),
        group="workers",
    )


def _gateway(options: Options, ports: Ports, models: Sequence[LocalModel], credentials: Credentials) -> Program:
    environment = {
        "VILIX_HOST": LOOPBACK,
        "VILIX_PORT": str(ports.gateway),
        "VILIX_REDIS_URL": redis_url(ports, credentials),
        # The model computes on all cores, and Valkey may have to wait for one. A request that waits is better than 503.
        "VILIX_REDIS_TIMEOUT": "1",
        "VILIX_INFERENCE_WORKERS": target(ports.inference),
        "VILIX_EXPECTED_MODELS": ",".join(model.id for model in models),
        "VILIX_EMBEDDINGS_WORKERS": target(ports.embeddings),
        "VILIX_EXPECTED_EMBEDDING_MODELS": EMBEDDING_MODEL,
        "VILIX_METRICS_PORT": str(ports.gateway_metrics),
        "VILIX_ADMIN_HOST": LOOPBACK,
        "VILIX_ADMIN_PORT": str(ports.admin),
        "VILIX_ADMIN_TOKEN": credentials.admin_token,
        # Another database of the same server, which a run by one user cannot fill.
        "VILIX_STATE_REDIS_URL": redis_url(ports, credentials).removesuffix("/0") + "/1",
        "VILIX_TOKEN_KEYS_FILE": str(_token_keys(options)),
    }
    return _service(options, models, "gateway", environment, lambda: readiness.all_models_available(ports.gateway))


def _service(
    options: Options,
    models: Sequence[LocalModel],
    name: str,
    environment: Mapping[str, str],
    is_ready: Callable[[], Awaitable[bool]],
    *,
    group: str = "",
) -> Program:
    """Return the program `python -m services.NAME`."""
    return Program(
        name=name,
        group=group,
        argv=[sys.executable, "-m", f"services.{name}"],
        environment=environment,
        log=_log(options, name),
        is_ready=is_ready,
        ready_seconds=_ready_seconds(models),
        stop_seconds=40.0,
    )


def _token_keys(options: Options) -> Path:
    """Return the file with the keys of what clients keep, which outlive the stack, and create it if it is missing."""
    path = (options.state_dir / "token-keys").absolute()
    if not path.exists():
        private_files.write(path, new_key() + "\n")
    return path


async def _development_key(options: Options, redis_url: str) -> str:
    """Return the key of the last run if it is still valid, else a new one."""
    path = options.state_dir / "api-key"
    saved = path.read_text().strip() if path.exists() else ""
    async with Redis.from_url(redis_url, decode_responses=True) as redis:
        api_key = await keys.ensure(redis, name=DEVELOPMENT_KEY_NAME, saved=saved)
    if api_key != saved:
        private_files.write(path, api_key + "\n")
    return api_key


def _descriptions(models: Sequence[LocalModel], ports: Ports) -> list[dict[str, str]]:
    embeddings = f"makes the embeddings ({api_url(ports)}/embeddings), also of Persian texts"
    chat = [{"id": model.id, "description": model.description} for model in models]
    return [*chat, {"id": EMBEDDING_MODEL, "description": embeddings}]


def _log(options: Options, name: str) -> Path:
    return options.state_dir / "logs" / f"{name}.log"


def _triton_directory(options: Options) -> Path:
    return (options.state_dir / "triton").absolute()


def _repositories(options: Options) -> Path:
    return _triton_directory(options) / "models"
