"""Settings of the inference worker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from services.inference.model.engine_status import STALL_SECONDS
from services.inference.triton_backend.prompt_images import MOST_PIXELS
from services.runtime.certificates import checked
from services.runtime.loop_watch import DESCRIPTION, INTERVAL_SECONDS
from services.runtime.settings import Settings
from services.worker import triton_clients
from services.worker.grpc_server import (
    DEFAULT_LIMITS,
    KEEPALIVE_SECONDS,
    MAX_CONCURRENT_CALLS_DESCRIPTION,
    MAX_CONNECTIONS_DESCRIPTION,
    MAX_PEER_CONNECTIONS_DESCRIPTION,
    ConnectionLimits,
)


class InferenceSettings(Settings):
    """Serves language models by gRPC, through a Triton that runs beside it."""

    listen: str = Field("127.0.0.1:9001", pattern=r"^.+:\d+$", description="HOST:PORT where the gRPC API listens.")
    health_listen: str = Field(
        "",
        pattern=r"^(.+:\d+)?$",
        description="HOST:PORT where nothing but gRPC health is served, always without TLS, for probes; empty for none.",
    )
    tls_dir: Annotated[Path | None, AfterValidator(checked)] = Field(
        None,
        description="A directory with ca.crt, tls.crt and tls.key: callers must show a certificate of that CA. Files may be "
        "replaced at any time. Without it, everybody who reaches the port is served.",
    )
    triton: Annotated[str, AfterValidator(triton_clients.check_targets)] = Field(
        "127.0.0.1:8001", description=triton_clients.DESCRIPTION
    )
    models: str = Field(
        description="Comma-separated ID=DIRECTORY: each model's id in the catalog, and the directory with its "
        "tokenizer.json, tokenizer_config.json and generation_config.json."
    )
    catalog_dir: Path | None = Field(
        None, description="A directory of further or other catalog entries (ID.yaml), which take precedence."
    )
    max_choices: int = Field(8, ge=1, le=128, description="The most choices (`n`) of one request.")
    max_messages: int = Field(2048, ge=1, description="The most messages of one request.")
    max_prompt_bytes: int = Field(
        8 * 2**20, ge=1, le=32 * 2**20, description="The largest prompt text of one request, in bytes of UTF-8."
    )
    max_image_pixels: int = Field(50_000_000, ge=1, le=MOST_PIXELS, description="The most pixels of one image.")
    max_images_pixels: int = Field(100_000_000, ge=1, description="The most pixels of all images of one request.")
    status_seconds: float = Field(1.0, gt=0, description="Time between two looks at each model's state in Triton.")
    engine_stall_seconds: float = Field(
        STALL_SECONDS,
        ge=1,
        description="A model is unavailable, and its open requests end with an error, when its engine has not answered, or "
        "has made no progress with its requests, for so long. A step of an engine takes well under a second; the first ones "
        "after its start may take some.",
    )
    idle_seconds: float = Field(
        30.0, gt=0, description="An answer ends with an error when the engine is silent for so long between two tokens."
    )
    first_token_seconds: float = Field(
        300.0, gt=0, description="The longest wait for the first token, in the engine's queue and for its prefill."
    )
    keepalive_seconds: float = Field(
        KEEPALIVE_SECONDS,
        ge=1,
        description="What runs for a caller is cancelled when it has given no sign of life for so long: a process that is "
        "frozen, or behind a network that has gone.",
    )
    max_concurrent_calls: int = Field(DEFAULT_LIMITS.calls, ge=8, description=MAX_CONCURRENT_CALLS_DESCRIPTION)
    max_connections: int = Field(DEFAULT_LIMITS.connections, ge=1, description=MAX_CONNECTIONS_DESCRIPTION)
    max_peer_connections: int = Field(
        DEFAULT_LIMITS.peer_connections, ge=1, description=MAX_PEER_CONNECTIONS_DESCRIPTION
    )
    metrics_host: str = Field("127.0.0.1", description="The address where Prometheus metrics are served.")
    metrics_port: int = Field(0, ge=0, le=65535, description="The port of the metrics; 0 for none.")
    loop_watch_seconds: float = Field(INTERVAL_SECONDS, ge=0.001, description=DESCRIPTION)
    drain_seconds: float = Field(30.0, ge=0, description="How long running requests may go on after SIGTERM.")

    @field_validator("models")
    @classmethod
    def _names_directories(cls, value: str) -> str:
        seen = set()
        for entry in value.split(","):
            model_id, separator, directory = entry.strip().partition("=")
            if not separator or not model_id or not directory:
                raise ValueError(f"{entry.strip()!r} is not of the form ID=DIRECTORY")
            if model_id in seen:
                raise ValueError(f"{model_id!r} is named twice")
            seen.add(model_id)
        return value

    def model_directories(self) -> dict[str, Path]:
        """The model directories by model id."""
        pairs = (entry.strip().split("=", 1) for entry in self.models.split(","))
        return {model_id: Path(directory) for model_id, directory in pairs}

    def connection_limits(self) -> ConnectionLimits:
        """What callers may hold of the ports."""
        return ConnectionLimits(self.max_concurrent_calls, self.max_connections, self.max_peer_connections)
