"""`python -m services.inference`: the inference worker."""

from __future__ import annotations

from collections.abc import Mapping

from vilix.inference.v1 import inference_service_pb2_grpc

from services.inference import metrics
from services.inference.generation.generation import Timeouts
from services.inference.model.catalog import load_model
from services.inference.model.engine_status import EngineStatus
from services.inference.model.served_model import ServedModel
from services.inference.request.images import ImageLimits
from services.inference.request.request_checks import RequestLimits
from services.inference.servicer import SERVICE, InferenceServicer
from services.inference.settings import InferenceSettings
from services.worker.grpc_server import WorkerServer
from services.worker.main import BackgroundTasks, WorkerService, run
from services.worker.model_list import require_directory
from services.worker.triton_clients import TritonClients


def main() -> None:
    """Run the worker until it receives SIGTERM or SIGINT."""
    run(WorkerService("inference", SERVICE, InferenceSettings, _read_models, _set_up))


def _read_models(settings: InferenceSettings) -> dict[str, ServedModel]:
    models = {}
    for model_id, directory in settings.model_directories().items():
        spec = load_model(model_id, overlay=settings.catalog_dir)
        models[model_id] = ServedModel.load(spec, require_directory(model_id, directory))
    return models


def _set_up(
    settings: InferenceSettings, models: Mapping[str, ServedModel], tritons: TritonClients, server: WorkerServer
) -> BackgroundTasks:
    metrics.prepare(models)
    status = EngineStatus(
        tritons, models, interval=settings.status_seconds, stall_seconds=settings.engine_stall_seconds
    )
    limits = RequestLimits(
        max_choices=settings.max_choices,
        max_messages=settings.max_messages,
        max_prompt_bytes=settings.max_prompt_bytes,
        images=ImageLimits(settings.max_image_pixels, settings.max_images_pixels),
    )
    timeouts = Timeouts(settings.idle_seconds, settings.first_token_seconds)
    servicer = InferenceServicer(models, tritons, status, limits=limits, timeouts=timeouts, server=server)
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server.grpc)
    return [status.run(server.set_serving, server.set_model_serving)]


if __name__ == "__main__":
    main()
