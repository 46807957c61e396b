"""The phases of a request in a worker, as a receipt has them."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.duration_pb2 import Duration
from vilix.inference.v1 import inference_service_pb2 as pb


def milliseconds(phases: Mapping[str, Duration]) -> dict[str, float]:
    """Return durations in milliseconds, by the name of the phase."""
    return {name: round(phase.seconds * 1000 + phase.nanos / 1e6, 1) for name, phase in phases.items()}


def phases_of(timings: pb.Timings) -> dict[str, float]:
    """Return the durations of a generation's phases, as far as its worker has measured them."""
    return milliseconds({field.name: phase for field, phase in timings.ListFields()})
