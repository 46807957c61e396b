"""Settings of the gateway."""

from __future__ import annotations

from pydantic import Field

from services.settings import Settings


class GatewaySettings(Settings):
    """Answers OpenAI's HTTP API by calling inference workers over gRPC."""

    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on.")
    redis_url: str = Field("redis://127.0.0.1:6379/0", description="Redis or Valkey with keys and limits.")
    redis_timeout: float = Field(0.25, gt=0, description="The longest wait for an answer of Redis, in seconds.")
    inference_workers: str = Field(
        "127.0.0.1:9001",
        description="Comma-separated HOST:PORT of inference workers. A name with several addresses stands for all of them.",
    )
    resolve_seconds: float = Field(5.0, gt=0, description="Time between two look-ups of the workers' names.")
    expected_models: str = Field(
        "", description="Comma-separated ids of models that are listed, and answer 503, also while no worker has them."
    )
    max_body_bytes: int = Field(20 * 2**20, gt=0, description="The largest request body, in bytes.")
    early_commit: float = Field(
        10.0,
        gt=0,
        description="After so many seconds without a first token, a stream's status 200 is sent all the same.",
    )
    keep_alive: float = Field(10.0, gt=0, description="Seconds of silence after which a stream gets a comment line.")
    drain_seconds: int = Field(30, ge=0, description="How long running requests may go on after SIGTERM.")
    cors_origins: str = Field("*", description="Comma-separated origins whose pages may call the API; * for all.")

    def worker_targets(self) -> list[str]:
        """The workers' targets."""
        return _split(self.inference_workers)

    def expected(self) -> list[str]:
        """The ids of the expected models."""
        return _split(self.expected_models)

    def origins(self) -> list[str]:
        """The origins whose pages may call the API."""
        return _split(self.cors_origins)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
