"""Settings that both workers have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, field_validator

from services.runtime.certificates import check_directory
from services.runtime.loop_watch import DESCRIPTION, INTERVAL_SECONDS
from services.runtime.settings import Settings
from services.runtime.tracing import local_trace
from services.worker import model_list, triton_clients
from services.worker.grpc_server import DEFAULT_LIMITS, KEEPALIVE_SECONDS, ConnectionLimits

ListenAddress = Annotated[str, Field(pattern=r"^.+:\d+$", description="HOST:PORT where the gRPC API listens.")]


class WorkerSettings(Settings):
    """Settings of a worker; each of the two workers adds its own.

    The two declare `listen` again for its default, and `models` for its description. Times are in seconds.
    """

    listen: ListenAddress
    health_listen: str = Field(
        "",
        pattern=r"^(.+:\d+)?$",
        description="HOST:PORT where nothing but gRPC health is served, always without TLS, for probes; "
        "empty for none.",
    )
    tls_dir: Annotated[Path | None, AfterValidator(check_directory)] = Field(
        None,
        description="A directory with ca.crt, tls.crt and tls.key: callers must show a certificate of that CA. Files "
        "may be replaced at any time. Without it, every client that reaches the port is served.",
    )
    triton: Annotated[str, AfterValidator(triton_clients.check_targets)] = Field(
        "127.0.0.1:8001", description=triton_clients.DESCRIPTION
    )
    models: str
    catalog_dir: Path | None = Field(
        None, description="A directory of further or other catalog entries (ID.yaml), which take precedence."
    )
    status_seconds: float = Field(1.0, gt=0, description="Time between two checks of each model's state in Triton.")
    keepalive_seconds: float = Field(
        KEEPALIVE_SECONDS,
        ge=1,
        description="The calls of a client are cancelled when it has not answered keepalive pings for this time, "
        "because its process is frozen or the network is broken.",
    )
    max_concurrent_calls: int = Field(
        DEFAULT_LIMITS.calls,
        ge=8,
        description="The most calls at the same time on one connection. A gRPC client makes further calls wait.",
    )
    max_connections: int = Field(
        DEFAULT_LIMITS.connections,
        ge=1,
        description="The most connections to one port of the worker. Further ones are closed at once.",
    )
    max_peer_connections: int = Field(
        DEFAULT_LIMITS.peer_connections,
        ge=1,
        description="The most connections from one address to one port of the worker. The newest beyond it are closed.",
    )
    metrics_host: str = Field("127.0.0.1", description="The address where Prometheus metrics are served.")
    metrics_port: int = Field(0, ge=0, le=65535, description="The port of the metrics; 0 for none.")
    traces_slow_seconds: float = Field(local_trace.SLOW_SECONDS, gt=0, description=local_trace.DESCRIPTION)
    loop_watch_seconds: float = Field(INTERVAL_SECONDS, ge=0.001, description=DESCRIPTION)
    drain_seconds: float = Field(30.0, ge=0, description="How long running requests may go on after SIGTERM.")

    @field_validator("models")
    @classmethod
    def _check_models(cls, value: str) -> str:
        model_list.parse(value)
        return value

    def model_directories(self) -> dict[str, Path | None]:
        """Return the model directories by model id; None for a model that is named without one."""
        return model_list.parse(self.models)

    def connection_limits(self) -> ConnectionLimits:
        """Return how many connections and calls the ports accept."""
        return ConnectionLimits(self.max_concurrent_calls, self.max_connections, self.max_peer_connections)
