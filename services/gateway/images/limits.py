"""The limits of images, which are settings of the gateway."""

from __future__ import annotations

from dataclasses import dataclass

from services.gateway.errors import ApiError, bad_request
from services.runtime.messages.message import Message


@dataclass(frozen=True)
class ImageLimits:
    """Limits on the images of one request."""

    most: int = 32
    """The most images."""
    max_bytes: int = 12 * 2**20
    """The most bytes of one encoded image."""
    max_total_bytes: int = 24 * 2**20
    """The most bytes of all encoded images. Workers and Triton take messages of up to 32 MiB."""
    hosts: frozenset[str] = frozenset()
    """The hosts from which images may be fetched, as HOST or HOST:PORT."""


def image_too_large(path: str, size: int, limit: int) -> ApiError:
    """Return the error of an image that has at least `size` bytes."""
    return bad_request(Message("image_over_bytes", field=path, value=size, limit=limit))
