"""Reads bodies of chat requests as the gateway does."""

from __future__ import annotations

from typing import Any

from services.gateway.dialects.dialect import ReadOptions
from services.gateway.dialects.openai_call import OpenAICall
from services.gateway.dialects.openai_chat import request as openai_chat
from services.gateway.images.limits import ImageLimits
from services.gateway.images.request_images import Images


def options(*, strict: bool = False, limits: ImageLimits | None = None) -> ReadOptions:
    return ReadOptions(strict, Images(limits or ImageLimits()))


def read_chat(body: Any, *, strict: bool = False, limits: ImageLimits | None = None) -> OpenAICall:
    return openai_chat.read_chat(body, options(strict=strict, limits=limits))
