"""Settings of the gateway."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from services.runtime.certificates import check_directory
from services.runtime.loop_watch import DESCRIPTION, INTERVAL_SECONDS
from services.runtime.settings import Settings
from services.runtime.tracing import local_trace


class RedisAwayPolicy(StrEnum):
    """The rule for limits while Redis is away."""

    LOCAL = "local"
    """Each gateway enforces its share of the limits per minute and of concurrency. Budgets are not checked."""
    OPEN = "open"
    """No limit applies."""
    CLOSED = "closed"
    """No request is admitted."""


class ReasoningFields(StrEnum):
    """The fields of OpenAI's chat responses with the reasoning, which OpenAI's own models do not show."""

    BOTH = "both"
    """OpenAI's Agents SDK streams the reasoning twice then; other clients prefer one of them."""
    REASONING_CONTENT = "reasoning_content"
    """DeepSeek's name, which all clients in docs/clients.md read that show reasoning."""
    REASONING = "reasoning"
    """The name in OpenRouter, Ollama and newer versions of vLLM."""

    def names(self) -> list[str]:
        """Return the names of the fields."""
        return [field.value for field in (self.REASONING_CONTENT, self.REASONING) if self in (field, self.BOTH)]


class GatewaySettings(Settings):
    """Serves the HTTP APIs of OpenAI and Anthropic by calling inference and embeddings workers over gRPC."""

    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on.")
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="Redis or Valkey with keys and limits: redis://USER:PASSWORD@HOST:PORT/DATABASE, rediss:// with "
        "TLS; redis+sentinel://…@HOST:PORT,HOST:PORT/DATABASE?master=NAME; redis+cluster://…@HOST:PORT,HOST:PORT. For "
        "TLS, append ssl_ca_certs=FILE, ssl_certfile=FILE and ssl_keyfile=FILE after the question mark.",
    )
    redis_timeout: float = Field(0.05, gt=0, description="The longest wait for a reply of Redis, in seconds.")
    auth_grace: float = Field(
        30.0,
        ge=0,
        description="How many seconds a key that was looked up stays valid while Redis is away; 0 for none.",
    )
    redis_away_policy: RedisAwayPolicy = Field(
        RedisAwayPolicy.LOCAL,
        description="Limits while Redis is away or rejects writes: local (each gateway enforces its share, without "
        "budgets), open (no limits), closed (503).",
    )
    redis_check_seconds: float = Field(
        30.0, gt=0, description="Seconds between two checks of Redis's eviction policy, persistence and memory."
    )
    state_redis_url: str = Field(
        "",
        description="Redis or Valkey with stored responses, in the forms of redis_url; not that of keys, whose memory "
        "they would fill. Everything in it can be lost. A cluster keeps them on one of its nodes. Empty: responses are "
        "not stored.",
    )
    store_responses: bool = Field(
        True, description="Whether responses may be stored. False: as if every request had `store: false`."
    )
    store_seconds: int = Field(
        30 * 86_400, gt=0, description="Seconds for which a response is stored, for keys whose tier does not say it."
    )
    store_key_bytes: int = Field(
        32 * 2**20, gt=0, description="The most bytes of the stored responses of one key, before compression."
    )
    store_bytes: int = Field(
        256 * 2**20,
        gt=0,
        description="The most bytes of all stored responses, before compression; less than the memory of their Redis.",
    )
    store_sweep_seconds: float = Field(
        10.0, gt=0, description="Seconds between two looks for keys that were revoked, whose responses are deleted."
    )
    tiers_file: Path | None = Field(
        None, description="YAML file with the tiers that keys name; it is read again when it changes."
    )
    prices: Path | None = Field(
        None,
        description="YAML file with the prices of models, from which the cost of each request is computed; it is read "
        "again when it changes. Without it, nothing has a cost, and budgets in money limit nothing.",
    )
    receipts: int = Field(
        200,
        ge=0,
        le=100_000,
        description="The most receipts of requests of one key that are kept for a day, in the Redis of keys; each has "
        "about 1 KB, and at most 4 KB. 0: there are no receipts.",
    )
    reserve_output: int = Field(
        1024, gt=0, description="The most output tokens per choice that are reserved when a request is admitted."
    )
    reservation_seconds: float = Field(
        6.0, gt=0, description="Seconds after which the reservations of a gateway that has died expire."
    )
    renew_seconds: float = Field(
        2.0,
        gt=0,
        description="Seconds between two renewals of a reservation, each of which bills the tokens generated so far; "
        "well below reservation_seconds.",
    )
    inference_workers: str = Field(
        "127.0.0.1:9001",
        description="Comma-separated HOST:PORT of inference workers. A name with several addresses stands for all.",
    )
    embeddings_workers: str = Field("", description="The same for embeddings workers; empty for none.")
    resolve_seconds: float = Field(5.0, gt=0, description="Seconds between two look-ups of the workers' names.")
    token_keys_file: Path | None = Field(
        None,
        description="A file with the keys that seal and sign what clients keep, such as encrypted reasoning: in each "
        "line 32 random bytes in base64, the first of which is used for new tokens. It is read again when it changes, "
        "and must be the same for all gateways. Without it, each start makes a key, and tokens end with the process.",
    )
    tls_dir: Annotated[Path | None, AfterValidator(check_directory)] = Field(
        None,
        description="A directory with ca.crt, tls.crt and tls.key for mutual TLS with workers, whose certificates must "
        "be of the same CA. Its files may be replaced at any time. Without it, workers are called without TLS.",
    )
    tls_server_name: str = Field(
        "vilix-worker",
        description="The name that workers' certificates must have, because workers are called by address.",
    )
    expected_models: str = Field(
        "", description="Comma-separated ids of models that are listed, and answer 503, even if no worker serves them."
    )
    expected_embedding_models: str = Field("", description="The same for embedding models.")
    aliases: str = Field(
        "",
        description="Comma-separated ALIAS=MODEL: further ids of models, such as claude-qwen3-14b=qwen3-14b. The admin "
        "API can add more.",
    )
    max_body_bytes: int = Field(20 * 2**20, gt=0, description="The largest request body, in bytes.")
    bodies_bytes: int = Field(
        0,
        ge=0,
        description="The most bytes of all request bodies that no worker has yet, announced or received. A request "
        "that does not fit waits up to 3 s and then gets 503. 0: a quarter of the container's memory limit, at most "
        "256 MiB.",
    )
    key_bodies_bytes: int = Field(0, ge=0, description="The same for the requests of one key; 0: half of bodies_bytes.")
    max_images: int = Field(32, ge=0, description="The most images of one request; a model may take fewer.")
    max_image_bytes: int = Field(12 * 2**20, gt=0, description="The largest encoded image, in bytes.")
    max_images_bytes: int = Field(
        24 * 2**20, gt=0, le=28 * 2**20, description="The most bytes of all encoded images of one request."
    )
    image_hosts: str = Field(
        "",
        description="Comma-separated HOST or HOST:PORT from which images may be fetched by https, if their addresses "
        "are public. Empty: images are accepted as data: URLs only.",
    )
    image_seconds: float = Field(10.0, gt=0, description="The most seconds that fetching a request's images may take.")
    log_content: bool = Field(
        False,
        description="Also log the content of requests and responses: personal data, for debugging only. Keys are never "
        "logged.",
    )
    reasoning_fields: ReasoningFields = Field(
        ReasoningFields.REASONING_CONTENT,
        description="The fields of chat responses with the reasoning: reasoning_content, reasoning (newer servers' "
        "name, for clients that read only that), or both.",
    )
    early_commit: float = Field(
        10.0,
        gt=0,
        description="Seconds after which a stream's status 200 is sent even if there is no token yet.",
    )
    keep_alive: float = Field(10.0, gt=0, description="Seconds of silence after which a stream gets a comment line.")
    idle_seconds: float = Field(
        35.0,
        gt=0,
        description="Seconds without a heartbeat of its worker after which a generation ends with an error. Workers "
        "send a heartbeat every few seconds while they wait for their engine. Rendering a prompt has the same limit.",
    )
    max_stream_seconds: float = Field(900.0, gt=0, description="The most seconds that one generation may take.")
    header_seconds: float = Field(10.0, gt=0, description="Seconds that a client may take to send a request's headers.")
    body_seconds: float = Field(60.0, gt=0, description="Seconds that a client may take to send a request's body.")
    write_seconds: float = Field(
        30.0, gt=0, description="Seconds after which a client that reads nothing of its response is disconnected."
    )
    keep_alive_seconds: int = Field(
        75,
        gt=0,
        description="Seconds that an idle connection is kept; longer than the proxy in front of the gateway keeps it.",
    )
    max_header_bytes: int = Field(32 * 2**10, gt=0, description="The most bytes of a request line and its headers.")
    max_connections: int = Field(8192, gt=0, description="The most connections at a time.")
    metrics_host: str = Field("127.0.0.1", description="The address where Prometheus metrics are served.")
    metrics_port: int = Field(0, ge=0, le=65535, description="The port of the metrics; 0 for none.")
    traces_slow_seconds: float = Field(local_trace.SLOW_SECONDS, gt=0, description=local_trace.DESCRIPTION)
    traces_content: bool = Field(
        False,
        description="Whether traces contain the content of generations' requests and responses, so that the collector "
        "has personal data.",
    )
    loop_watch_seconds: float = Field(INTERVAL_SECONDS, ge=0.001, description=DESCRIPTION)
    admin_host: str = Field("127.0.0.1", description="The address where the admin API is served.")
    admin_port: int = Field(0, ge=0, le=65535, description="The port of the admin API; 0 for none.")
    admin_token: SecretStr | None = Field(None, description="The admin API's credential, of at least 16 characters.")
    drain_seconds: int = Field(30, ge=0, description="Seconds that running requests may go on after SIGTERM.")
    cors_origins: str = Field("*", description="Comma-separated origins whose pages may call the API; * for all.")

    site_directory: Path = Field(
        Path(__file__).parent / "site" / "dist", description="The built page (make site), which is served at /."
    )
    public_api_url: str = Field(
        "",
        description="Base URL of the API as browsers reach it, for example https://ai.example.com/api. Empty: the path "
        "api beside the page, on the host and under the path that the browser uses.",
    )

    def listed_image_hosts(self) -> frozenset[str]:
        """Return the hosts from which images may be fetched, as HOST or HOST:PORT in lower case."""
        return frozenset(host.lower() for host in _split(self.image_hosts))

    def worker_targets(self) -> list[str]:
        """Return HOST:PORT of each inference worker."""
        return _split(self.inference_workers)

    def embeddings_targets(self) -> list[str]:
        """Return HOST:PORT of each embeddings worker."""
        return _split(self.embeddings_workers)

    def expected_embeddings(self) -> list[str]:
        """Return the ids of the expected embedding models."""
        return _split(self.expected_embedding_models)

    def expected(self) -> list[str]:
        """Return the ids of the expected chat models."""
        return _split(self.expected_models)

    def origins(self) -> list[str]:
        """Return the origins whose pages may call the API."""
        return _split(self.cors_origins)


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
