"""`python -m services.embeddings`: the embeddings worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from vilix.embeddings.v1 import embeddings_service_pb2_grpc

from services.embeddings import triton_heartbeat
from services.embeddings.catalog import load_model
from services.embeddings.cl100k import read_table
from services.embeddings.embedding import Embedder
from services.embeddings.engine_status import EngineStatus
from services.embeddings.request_checks import RequestLimits
from services.embeddings.served_model import ServedModel
from services.embeddings.servicer import SERVICE, EmbeddingsServicer
from services.embeddings.settings import EmbeddingsSettings
from services.runtime.heartbeat import Heartbeat
from services.worker.grpc_server import WorkerServer
from services.worker.main import BackgroundTasks, WorkerService, run
from services.worker.triton_clients import TritonClients

MAX_MESSAGE_BYTES: Final = 64 * 2**20
"""2,048 vectors of 4,096 numbers are 32 MiB by themselves."""


def main() -> None:
    """Run the worker until it receives SIGTERM or SIGINT."""
    run(
        WorkerService(
            "embeddings", SERVICE, EmbeddingsSettings, _read_models, _set_up, max_message_bytes=MAX_MESSAGE_BYTES
        )
    )


def _read_models(settings: EmbeddingsSettings) -> dict[str, ServedModel]:
    directories = settings.model_directories()
    specs = {model_id: load_model(model_id, overlay=settings.catalog_dir) for model_id in directories}
    takes_cl100k = any(spec.token_input == "cl100k_base" for spec in specs.values())
    cl100k = read_table(settings.cl100k_base) if takes_cl100k else None
    return {model_id: ServedModel.read(spec, directories[model_id], cl100k) for model_id, spec in specs.items()}


def _set_up(
    settings: EmbeddingsSettings, models: Mapping[str, ServedModel], tritons: TritonClients, server: WorkerServer
) -> BackgroundTasks:
    status = EngineStatus(
        tritons, models, interval=settings.status_seconds, stall_seconds=settings.engine_stall_seconds
    )
    limits = RequestLimits(
        max_inputs=settings.max_inputs,
        max_request_tokens=settings.max_request_tokens,
        max_request_bytes=settings.max_request_bytes,
    )
    heartbeats = {model_id: Heartbeat(idle_seconds=settings.idle_seconds) for model_id in models}
    embedders = {
        model_id: Embedder(tritons[model_id], settings.batch_seconds, heartbeat)
        for model_id, heartbeat in heartbeats.items()
    }
    servicer = EmbeddingsServicer(models, embedders, limits, server)
    embeddings_service_pb2_grpc.add_EmbeddingsServiceServicer_to_server(servicer, server.grpc)

    def on_model_change(model_id: str, ready: bool) -> None:
        if ready:
            # The model has just answered, although the heartbeat may not have been checked since it was away.
            heartbeats[model_id].note_heartbeat()
        server.set_model_serving(model_id, ready)

    return [
        status.run(server.set_serving, on_model_change),
        *(
            triton_heartbeat.follow(tritons[model_id], heartbeat, idle_seconds=settings.idle_seconds)
            for model_id, heartbeat in heartbeats.items()
        ),
    ]


if __name__ == "__main__":
    main()
