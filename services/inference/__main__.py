"""`python -m services.inference`: the inference worker."""

from __future__ import annotations

import asyncio
import sys
from typing import NoReturn

import uvloop
from vilix.inference.v1 import inference_service_pb2_grpc

from services.inference import metrics
from services.inference.generation.generation import Patience
from services.inference.model.catalog import DIRECTORY, load_model
from services.inference.model.engine_status import EngineStatus
from services.inference.model.served_model import ServedModel
from services.inference.request.images import ImageLimits
from services.inference.request.request_checks import RequestLimits
from services.inference.servicer import SERVICE, InferenceServicer
from services.inference.settings import InferenceSettings
from services.runtime import settings as settings_module
from services.runtime.allocator import return_freed_memory
from services.runtime.certificates import Certificates
from services.runtime.telemetry import configure_logging, serve_metrics
from services.worker import triton_clients
from services.worker.grpc_server import WorkerServer
from services.worker.triton_clients import TritonClients


def main() -> None:
    """Run the worker until it is told to stop."""
    settings = settings_module.load(InferenceSettings, command="services.inference")
    return_freed_memory()
    configure_logging("inference")
    try:
        tritons = TritonClients(triton_clients.targets(settings.triton, settings.model_directories()))
        models = _load_models(settings)
        certificates = Certificates(settings.tls_dir) if settings.tls_dir else None
    except (OSError, ValueError) as error:
        _refuse_to_start(error)
    uvloop.run(_serve(settings, models, tritons, certificates))


def _refuse_to_start(error: Exception) -> NoReturn:
    print(f"error: {error}", file=sys.stderr)
    raise SystemExit(2)


def _load_models(settings: InferenceSettings) -> dict[str, ServedModel]:
    overlay = settings.catalog_dir
    models = {}
    for model_id, directory in settings.model_directories().items():
        has_own_entry = overlay is not None and (overlay / f"{model_id}.yaml").is_file()
        spec = load_model(model_id, directory=overlay if has_own_entry and overlay else DIRECTORY)
        models[model_id] = ServedModel.load(spec, directory)
    return models


async def _serve(
    settings: InferenceSettings,
    models: dict[str, ServedModel],
    tritons: TritonClients,
    certificates: Certificates | None,
) -> None:
    status = EngineStatus(
        tritons, models, interval=settings.status_seconds, stall_seconds=settings.engine_stall_seconds
    )
    limits = RequestLimits(
        max_choices=settings.max_choices,
        max_messages=settings.max_messages,
        max_prompt_bytes=settings.max_prompt_bytes,
        images=ImageLimits(settings.max_image_pixels, settings.max_images_pixels),
    )
    metrics.prepare(models)
    patience = Patience(settings.idle_seconds, settings.first_token_seconds)
    server = WorkerServer(
        SERVICE,
        models=models,
        keepalive_seconds=settings.keepalive_seconds,
        connection_limits=settings.connection_limits(),
    )
    servicer = InferenceServicer(models, tritons, status, limits=limits, patience=patience, server=server)
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server.grpc)
    watching = asyncio.create_task(status.run(server.set_serving, server.set_model_serving))
    try:
        serve_metrics(settings.metrics_host, settings.metrics_port)
        await server.run(
            settings.listen,
            drain_seconds=settings.drain_seconds,
            health_listen=settings.health_listen,
            certificates=certificates,
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
