"""Settings of the gateway."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from services.runtime.certificates import checked
from services.runtime.loop_watch import DESCRIPTION, INTERVAL_SECONDS
from services.runtime.settings import Settings


class RedisAwayPolicy(StrEnum):
    """What applies to limits while Redis is away."""

    LOCAL = "local"
    """Each gateway enforces its share of the limits per minute and of concurrency. Budgets are not checked."""
    OPEN = "open"
    """No limit applies."""
    CLOSED = "closed"
    """No request is admitted."""


class GatewaySettings(Settings):
    """Answers OpenAI's HTTP API by calling inference and embeddings workers over gRPC."""

    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on.")
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="Redis or Valkey with keys and limits: redis://USER:PASSWORD@HOST:PORT/DATABASE, rediss:// with TLS; "
        "redis+sentinel://…@HOST:PORT,HOST:PORT/DATABASE?master=NAME; redis+cluster://…@HOST:PORT,HOST:PORT. TLS takes "
        "ssl_ca_certs=FILE, ssl_certfile=FILE and ssl_keyfile=FILE after the question mark.",
    )
    redis_timeout: float = Field(0.05, gt=0, description="The longest wait for an answer of Redis, in seconds.")
    auth_grace: float = Field(
        30.0,
        ge=0,
        description="While Redis is away, a key that was found in the last so many seconds stays valid; 0 for none.",
    )
    redis_away_policy: RedisAwayPolicy = Field(
        RedisAwayPolicy.LOCAL,
        description="Limits while Redis is away or refuses writes: local (each gateway its share; budgets are not checked), "
        "open (none), closed (503).",
    )
    redis_check_seconds: float = Field(
        30.0, gt=0, description="Time between two looks at Redis's eviction policy, persistence and memory, in seconds."
    )
    tiers_file: Path | None = Field(
        None, description="YAML file with the tiers that keys name; it is read again when it changes."
    )
    reserve_output: int = Field(
        1024, gt=0, description="Tokens reserved for an answer at first, where max_tokens is not smaller."
    )
    reservation_seconds: float = Field(
        6.0, gt=0, description="What a request holds of its key's limits is free so long after its gateway died."
    )
    renew_seconds: float = Field(
        2.0,
        gt=0,
        description="How often that is renewed, and what was produced is billed; well below reservation_seconds.",
    )
    inference_workers: str = Field(
        "127.0.0.1:9001",
        description="Comma-separated HOST:PORT of inference workers. A name with several addresses stands for all of them.",
    )
    embeddings_workers: str = Field("", description="The same for embeddings workers; empty for none.")
    resolve_seconds: float = Field(5.0, gt=0, description="Time between two look-ups of the workers' names.")
    tls_dir: Annotated[Path | None, AfterValidator(checked)] = Field(
        None,
        description="A directory with ca.crt, tls.crt and tls.key, shown to workers, which must show one of the same CA. Files "
        "may be replaced at any time. Without it, workers are called without TLS.",
    )
    tls_server_name: str = Field(
        "vilix-worker",
        description="The name that workers' certificates carry; workers are called by address, which tells nothing.",
    )
    expected_models: str = Field(
        "", description="Comma-separated ids of models that are listed, and answer 503, also while no worker has them."
    )
    expected_embedding_models: str = Field("", description="The same for embedding models.")
    max_body_bytes: int = Field(20 * 2**20, gt=0, description="The largest request body, in bytes.")
    bodies_bytes: int = Field(
        0,
        ge=0,
        description="The most bytes that all request bodies in flight may announce or have, until a worker has them. Beyond "
        "it a request waits up to 3 s, and is then answered 503. 0: a quarter of the container's memory limit, at most "
        "256 MiB.",
    )
    key_bodies_bytes: int = Field(0, ge=0, description="The same of one key's requests; 0: half of it.")
    max_images: int = Field(32, ge=0, description="The most images of one request; a model may take fewer.")
    max_image_bytes: int = Field(12 * 2**20, gt=0, description="The largest encoded image, in bytes.")
    max_images_bytes: int = Field(
        24 * 2**20, gt=0, le=28 * 2**20, description="The most bytes of all encoded images of one request."
    )
    image_hosts: str = Field(
        "",
        description="Comma-separated HOST or HOST:PORT from which images may be fetched by https, if their addresses are "
        "public; empty for none: then images come in data: URLs alone.",
    )
    image_seconds: float = Field(10.0, gt=0, description="The longest that fetching a request's images may take.")
    log_content: bool = Field(
        False, description="Log what requests say and are answered, too: personal data, for debugging only. Never keys."
    )
    early_commit: float = Field(
        10.0,
        gt=0,
        description="After so many seconds without a first token, a stream's status 200 is sent all the same.",
    )
    keep_alive: float = Field(10.0, gt=0, description="Seconds of silence after which a stream gets a comment line.")
    idle_seconds: float = Field(
        35.0,
        gt=0,
        description="An answer ends with an error when its worker gives no sign of life for so long. Workers give one every "
        "few seconds while they wait for their engine. A prompt that is only shown must be there within it.",
    )
    max_stream_seconds: float = Field(900.0, gt=0, description="The longest that one answer may take.")
    header_seconds: float = Field(10.0, gt=0, description="How long a client may take to send a request's headers.")
    body_seconds: float = Field(60.0, gt=0, description="How long a client may take to send a request's body.")
    write_seconds: float = Field(
        30.0, gt=0, description="How long a client may read nothing of what waits for it before it is given up."
    )
    keep_alive_seconds: int = Field(
        75,
        gt=0,
        description="How long a connection without a request is kept; longer than the proxy in front keeps it.",
    )
    max_header_bytes: int = Field(32 * 2**10, gt=0, description="The most bytes of a request line and its headers.")
    max_connections: int = Field(8192, gt=0, description="The most connections at a time.")
    metrics_host: str = Field("127.0.0.1", description="The address where Prometheus metrics are served.")
    metrics_port: int = Field(0, ge=0, le=65535, description="The port of the metrics; 0 for none.")
    loop_watch_seconds: float = Field(INTERVAL_SECONDS, ge=0.001, description=DESCRIPTION)
    admin_host: str = Field("127.0.0.1", description="The address where the admin API is served.")
    admin_port: int = Field(0, ge=0, le=65535, description="The port of the admin API; 0 for none.")
    admin_token: SecretStr | None = Field(None, description="The admin API's credential, of at least 16 characters.")
    drain_seconds: int = Field(30, ge=0, description="How long running requests may go on after SIGTERM.")
    cors_origins: str = Field("*", description="Comma-separated origins whose pages may call the API; * for all.")

    site_directory: Path = Field(
        Path(__file__).parent / "site" / "dist", description="The built page (make site), which is served at /."
    )
    public_api_url: str = Field(
        "",
        description="Base URL of the API as browsers reach it, for example https://ai.example.com/api. Empty: the path api "
        "beside the page, whatever host and path a proxy gave that.",
    )

    def listed_image_hosts(self) -> frozenset[str]:
        """The hosts from which images may be fetched, as HOST or HOST:PORT in lower case."""
        return frozenset(host.lower() for host in _split(self.image_hosts))

    def worker_targets(self) -> list[str]:
        """The workers' targets."""
        return _split(self.inference_workers)

    def embeddings_targets(self) -> list[str]:
        """The embeddings workers' targets."""
        return _split(self.embeddings_workers)

    def expected_embeddings(self) -> list[str]:
        """The ids of the expected embedding models."""
        return _split(self.expected_embedding_models)

    def expected(self) -> list[str]:
        """The ids of the expected models."""
        return _split(self.expected_models)

    def origins(self) -> list[str]:
        """The origins whose pages may call the API."""
        return _split(self.cors_origins)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
