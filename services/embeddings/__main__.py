"""`python -m services.embeddings`: the embeddings worker."""

from __future__ import annotations

import asyncio
import sys
from typing import NoReturn

import uvloop
from vilix.embeddings.v1 import embeddings_service_pb2_grpc

from services.embeddings import triton_pulse
from services.embeddings.catalog import DIRECTORY, load_model
from services.embeddings.cl100k import Cl100kTable
from services.embeddings.embedding import Embedder
from services.embeddings.engine_status import EngineStatus
from services.embeddings.request_checks import RequestLimits
from services.embeddings.served_model import ServedModel
from services.embeddings.servicer import SERVICE, EmbeddingsServicer
from services.embeddings.settings import EmbeddingsSettings
from services.runtime import settings as settings_module
from services.runtime.allocator import return_freed_memory
from services.runtime.certificates import Certificates
from services.runtime.pulse import Pulse
from services.runtime.telemetry import configure_logging, serve_metrics
from services.worker import triton_clients
from services.worker.grpc_server import WorkerServer
from services.worker.triton_clients import TritonClients


def main() -> None:
    """Run the worker until it is told to stop."""
    settings = settings_module.load(EmbeddingsSettings, command="services.embeddings")
    return_freed_memory()
    configure_logging("embeddings")
    try:
        tritons = TritonClients(triton_clients.targets(settings.triton, settings.model_directories()))
        models = _read_models(settings)
    except (OSError, ValueError) as error:
        _refuse_to_start(error)
    uvloop.run(_serve(settings, models, tritons))


def _refuse_to_start(error: Exception) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)


def _read_models(settings: EmbeddingsSettings) -> dict[str, ServedModel]:
    overlay = settings.catalog_dir
    cl100k = None if settings.cl100k_base is None else Cl100kTable(settings.cl100k_base)
    models = {}
    for model_id, directory in settings.model_directories().items():
        has_own_entry = overlay is not None and (overlay / f"{model_id}.yaml").is_file()
        spec = load_model(model_id, directory=overlay if has_own_entry and overlay else DIRECTORY)
        models[model_id] = ServedModel.read(spec, directory, cl100k)
    return models


async def _serve(settings: EmbeddingsSettings, models: dict[str, ServedModel], tritons: TritonClients) -> None:
    status = EngineStatus(
        tritons, models, interval=settings.status_seconds, stall_seconds=settings.engine_stall_seconds
    )
    limits = RequestLimits(
        max_inputs=settings.max_inputs,
        max_request_tokens=settings.max_request_tokens,
        max_request_bytes=settings.max_request_bytes,
    )
    pulses = {model_id: Pulse(idle_seconds=settings.idle_seconds) for model_id in models}
    embedders = {
        model_id: Embedder(tritons[model_id], settings.batch_seconds, pulse) for model_id, pulse in pulses.items()
    }
    # 2,048 vectors of 4,096 numbers are 32 MiB by themselves.
    server = WorkerServer(
        SERVICE,
        models=models,
        keepalive_seconds=settings.keepalive_seconds,
        max_message_bytes=64 * 2**20,
        connection_limits=settings.connection_limits(),
    )
    servicer = EmbeddingsServicer(models, embedders, limits, server)
    embeddings_service_pb2_grpc.add_EmbeddingsServiceServicer_to_server(servicer, server.grpc)

    def on_model_change(model_id: str, ready: bool) -> None:
        if ready:
            # It has just answered, also if the pulse has not been looked for since it was away.
            pulses[model_id].beat()
        server.set_model_serving(model_id, ready)

    watching = asyncio.gather(
        status.run(server.set_serving, on_model_change),
        *(
            triton_pulse.follow(tritons[model_id], pulse, idle_seconds=settings.idle_seconds)
            for model_id, pulse in pulses.items()
        ),
    )
    try:
        serve_metrics(settings.metrics_host, settings.metrics_port)
        await server.run(
            settings.listen,
            drain_seconds=settings.drain_seconds,
            health_listen=settings.health_listen,
            certificates=Certificates(settings.tls_dir) if settings.tls_dir else None,
            loop_watch_seconds=settings.loop_watch_seconds,
        )
    except OSError as error:
        _refuse_to_start(error)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await tritons.close()


if __name__ == "__main__":
    main()
