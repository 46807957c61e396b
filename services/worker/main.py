"""The life of a worker process: it reads its settings and models, serves gRPC and metrics, and stops in order."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import uvloop

from services.runtime import settings as settings_module
from services.runtime.allocator import return_freed_memory
from services.runtime.certificates import Certificates
from services.runtime.metrics_server import serve_metrics
from services.runtime.telemetry import configure_logging
from services.runtime.tracing.local_trace import Tracer
from services.runtime.tracing.opening import opened_tracer
from services.worker import triton_clients
from services.worker.grpc_server import MAX_MESSAGE_BYTES, WorkerServer
from services.worker.settings import WorkerSettings
from services.worker.triton_clients import TritonClients

Settings = TypeVar("Settings", bound=WorkerSettings)
Model = TypeVar("Model")
BackgroundTasks = Iterable[Coroutine[Any, Any, object]]
"""Coroutines that run beside the server until the worker stops."""


@dataclass(frozen=True)
class WorkerService(Generic[Settings, Model]):
    """The parts of a worker that differ between the two workers."""

    name: str
    """Its package is `services.NAME`, and its log lines carry the name."""
    grpc_name: str
    """The full name of its gRPC service."""
    settings: type[Settings]
    read_models: Callable[[Settings], Mapping[str, Model]]
    """Reads the models, by id. Raises OSError or ValueError, whose message is for the operator, in one line."""
    set_up: Callable[[Settings, Mapping[str, Model], TritonClients, WorkerServer], BackgroundTasks]
    """Adds the servicer to the server. Called in the event loop."""
    max_message_bytes: int = MAX_MESSAGE_BYTES


def run(service: WorkerService[Settings, Model]) -> None:
    """Run a worker until it receives SIGTERM or SIGINT.

    A worker that cannot start ends with exit status 2 and one line on standard error that says why.
    """
    settings = settings_module.load(service.settings, command=f"services.{service.name}")
    return_freed_memory()
    configure_logging(service.name)
    try:
        tritons = TritonClients(triton_clients.targets(settings.triton, settings.model_directories()))
        models = service.read_models(settings)
        certificates = Certificates(settings.tls_dir) if settings.tls_dir else None
    except (OSError, ValueError) as error:
        _reject_to_start(error)
    if certificates is not None:
        certificates.export_expiry()
    with ExitStack() as stack:
        try:
            tracer = stack.enter_context(opened_tracer(service.name, slow_seconds=settings.traces_slow_seconds))
        except ValueError as error:
            _reject_to_start(error)
        uvloop.run(_serve(service, settings, models, tritons, certificates=certificates, tracer=tracer))


async def _serve(
    service: WorkerService[Settings, Model],
    settings: Settings,
    models: Mapping[str, Model],
    tritons: TritonClients,
    *,
    certificates: Certificates | None,
    tracer: Tracer | None,
) -> None:
    server = WorkerServer(
        service.grpc_name,
        models=models,
        keepalive_seconds=settings.keepalive_seconds,
        max_message_bytes=service.max_message_bytes,
        connection_limits=settings.connection_limits(),
        tracer=tracer,
    )
    background = asyncio.gather(*service.set_up(settings, models, tritons, server))
    try:
        serve_metrics(service.name, settings.metrics_host, settings.metrics_port)
        await server.run(
            settings.listen,
            drain_seconds=settings.drain_seconds,
            health_listen=settings.health_listen,
            certificates=certificates,
            loop_watch_seconds=settings.loop_watch_seconds,
        )
    except OSError as error:
        _reject_to_start(error)
    finally:
        background.cancel()
        await asyncio.gather(background, return_exceptions=True)
        await tritons.close()


def _reject_to_start(error: Exception) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)
