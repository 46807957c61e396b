"""The server of a process's metrics, in Prometheus's text format and in OpenMetrics, which alone has exemplars."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Final

import prometheus_client

BUILD_INFO: Final = prometheus_client.Gauge(
    "vilix_build_info", "1, with the version of Vilix that the process runs as a label.", ["component", "version"]
)


def serve_metrics(component: str, host: str, port: int) -> None:
    """Serve this process's metrics at http://HOST:PORT/metrics from a thread. The port 0 serves nothing.

    Raises OSError for an address that cannot be bound.
    """
    BUILD_INFO.labels(component, _version()).set(1)
    # The time at which each series was created: as many series again, which nothing reads.
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no types
    if port:
        try:
            prometheus_client.start_http_server(port, host)
        except OSError as error:
            raise OSError(f"cannot serve metrics on {host}:{port}: {error.strerror}") from None


def _version() -> str:
    try:
        return version("vilix")
    except PackageNotFoundError:
        return "unknown"
