"""Opens the tracing of a process, if OpenTelemetry's environment variables ask for it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from services.runtime.tracing.local_trace import Tracer
from services.runtime.tracing.sampling import read_sampling
from services.runtime.tracing.trace_context import CURRENT

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class TraceIds(logging.Filter):
    """Adds `trace_id` to the log lines of a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the field, and keep the line."""
        context = CURRENT.get()
        if context is not None:
            record.trace_id = context.trace_id
        return True


def is_enabled(environment: Mapping[str, str]) -> bool:
    """Return whether traces are exported: an endpoint is set, and no other variable switches them off."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    if environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return False
    return any(environment.get(name) for name in _ENDPOINTS)


@contextmanager
def opened_tracer(
    service: str, *, slow_seconds: float, environment: Mapping[str, str] = os.environ
) -> Iterator[Tracer | None]:
    """Yield the tracer of a process, or None if traces are off. At the end, wait shortly for the last spans.

    Logging must be configured before. Raises ValueError for a variable with a wrong value.
    """
    if not is_enabled(environment):
        yield None
        return
    sampling = read_sampling(environment)
    # It imports the SDK, which takes time and memory.
    from services.runtime.tracing.otlp import OtlpExport  # noqa: PLC0415

    export = OtlpExport(f"vilix-{service}", environment)
    for handler in logging.getLogger().handlers:
        handler.addFilter(TraceIds())
    try:
        yield Tracer(sampling, slow_seconds, export)
    finally:
        export.close()
