"""Decides whether a model reasons before its answer, and whether its reasoning has limits of its own."""

from __future__ import annotations

from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.served_model import ServedModel
from services.inference.parsing.reasoning import CLOSE_TAG, OPEN_TAG
from services.inference.request.structured_output.response_format import requests_structured_output

OPENING: Final = f"{OPEN_TAG}\n"
AFTER_REASONING: Final = "\n\n"
CLOSING: Final = f"\n{CLOSE_TAG}"


def enables_reasoning(request: pb.GenerateRequest, model: ServedModel) -> bool:
    """Return whether a checked request enables reasoning. Structured output or a budget of 0 disables it if it can."""
    if model.spec.parsers.reasoning is None:
        return False
    if not model.spec.capabilities.reasoning_optional:
        return True
    reasoning = request.reasoning
    if reasoning.HasField("budget_tokens") and not reasoning.budget_tokens:
        return False
    if reasoning.HasField("enabled"):
        return reasoning.enabled
    if reasoning.effort != pb.REASONING_EFFORT_UNSPECIFIED:
        return reasoning.effort != pb.REASONING_EFFORT_NONE
    return reasoning.HasField("budget_tokens") or not requests_structured_output(request)


def effort_enables_reasoning(request: pb.GenerateRequest, model: ServedModel) -> bool:
    """Return whether only `effort` enables reasoning in a checked request that also asks for structured output."""
    reasoning = request.reasoning
    return (
        reasoning.effort not in (pb.REASONING_EFFORT_UNSPECIFIED, pb.REASONING_EFFORT_NONE)
        and model.spec.parsers.reasoning is not None
        and model.spec.capabilities.reasoning_optional
        and model.supports_reasoning_budget
        and requests_structured_output(request)
        and not reasoning.HasField("enabled")
        and not reasoning.HasField("budget_tokens")
    )


def sets_reasoning(request: pb.GenerateRequest) -> bool:
    """Return whether a field of the request enables or disables reasoning, so that the template must not decide."""
    reasoning = request.reasoning
    return (
        reasoning.HasField("enabled")
        or reasoning.HasField("budget_tokens")
        or reasoning.effort != pb.REASONING_EFFORT_UNSPECIFIED
        or requests_structured_output(request)
    )


def needs_separate_reasoning(request: pb.GenerateRequest) -> bool:
    """Return whether reasoning has other limits than the answer: a budget, or structured output of the answer only."""
    return request.reasoning.HasField("budget_tokens") or requests_structured_output(request)
