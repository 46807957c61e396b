"""The limits of images, which the operator sets."""

from __future__ import annotations

from dataclasses import dataclass

from services.gateway.errors import ApiError, bad_request


@dataclass(frozen=True)
class ImageLimits:
    """Limits on the images of one request."""

    most: int = 32
    """How many there may be."""
    max_bytes: int = 12 * 2**20
    """Of one image."""
    max_total_bytes: int = 24 * 2**20
    """Of all images of a request. Workers and Triton take messages of 32 MiB."""
    hosts: frozenset[str] = frozenset()
    """From where images may be fetched, as HOST or HOST:PORT."""


def image_too_large(path: str, size: int, limit: int) -> ApiError:
    """Return the error of one image. `size` is what is known of it, in bytes."""
    return bad_request(path, f"{path} is an image of {size} bytes; at most {limit} are allowed. Make it smaller.")
