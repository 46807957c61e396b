"""The parts and settings of a gateway that operations on inference workers need."""

from __future__ import annotations

from dataclasses import dataclass

from services.gateway.background import BackgroundWork
from services.gateway.images.image_fetch import ImageFetcher
from services.gateway.images.limits import ImageLimits
from services.gateway.routing.inference_client import InferencePool
from services.gateway.wiring import Gateway


@dataclass(frozen=True, kw_only=True)
class InferenceParts:
    """The parts of the gateway that operations on an inference worker need."""

    pool: InferencePool
    image_limits: ImageLimits
    image_fetcher: ImageFetcher
    reserve_output: int
    """The output tokens that are reserved for a request without a maximum."""
    early_commit: float
    """Seconds after which a stream's status is sent, even if its generation has not begun."""
    keep_alive: float
    """Seconds of silence after which a stream gets a comment."""
    background: BackgroundWork
    log_content: bool
    """True if the content of requests and responses is logged (VILIX_LOG_CONTENT)."""
    trace_content: bool
    """True if it is recorded in traces (VILIX_TRACES_CONTENT)."""


def inference_parts(gateway: Gateway) -> InferenceParts:
    """Return the parts of `gateway` that operations on inference workers need."""
    settings = gateway.settings
    return InferenceParts(
        pool=gateway.fleet.inference,
        image_limits=gateway.image_limits,
        image_fetcher=gateway.image_fetcher,
        reserve_output=settings.reserve_output,
        early_commit=settings.early_commit,
        keep_alive=settings.keep_alive,
        background=gateway.background,
        log_content=settings.log_content,
        trace_content=settings.traces_content,
    )
