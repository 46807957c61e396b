"""Checks the placeholders of a prompt's images, and decodes and resizes the images."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, Final

from services.inference.triton_backend.contract import Request
from services.inference.triton_backend.jpeg_scans import MOST_SCANS, has_too_many_scans
from services.worker.triton_kit.request_error import RequestError

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF")
"""The formats that PIL may read; it supports many more."""
MOST_PIXELS: Final = 89_478_485
"""The most pixels of one image, whatever the worker allows: PIL warns about larger ones."""


def reject_misplaced(request: Request, prompt: Sequence[int], placeholder: int | None) -> None:
    """Raise RequestError unless `prompt` has one `placeholder` per image. It is None for a model without vision."""
    count = len(request.images)
    if not count:
        return
    if placeholder is None:
        raise RequestError("UNSUPPORTED_PARAMETER", "images is not supported: the model reads text only")
    places = prompt.count(placeholder)
    if places != count:
        raise RequestError(
            "INVALID_ARGUMENT",
            f"the prompt has places for {places} images, and there are {count}; give one to each",
        )
    sizes = len(request.params.image_sizes)
    if sizes not in (0, count):
        raise RequestError("INVALID_ARGUMENT", f"image_sizes has {sizes} entries for {count} images")


def decode(request: Request, is_wanted: Callable[[], bool] = lambda: True) -> list[Any]:
    """Return the images in RGB, resized and then rotated upright. Raises RequestError for the first invalid image.

    It also raises RequestError before the next image when `is_wanted` returns False.
    """
    decoded = []
    for number, data in enumerate(request.images, 1):
        if not is_wanted():
            raise RequestError("ENGINE_FAILED", "nobody waits for the images any more")
        size = request.params.image_sizes[number - 1] if request.params.image_sizes else None
        try:
            # One after another, so that only one image has its original size at a time.
            decoded.append(_upright(_decoded(data, size)))
        except _UnreadableError as error:
            raise RequestError("INVALID_ARGUMENT", f"image {number} cannot be read: {error}") from None
        except Exception as error:  # noqa: BLE001 - the formats' own code raises anything
            raise RequestError("INVALID_ARGUMENT", f"image {number} cannot be read: it is damaged ({error})") from None
    return decoded


class _UnreadableError(Exception):
    """An image cannot be read. The message continues a sentence about the image."""


def _decoded(data: bytes, size: tuple[int, int] | None) -> Any:
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 - only NVIDIA's images surely have it, and only images need it

    if data.startswith(b"\xff\xd8") and has_too_many_scans(data):
        raise _UnreadableError(f"it is a JPEG with more than {MOST_SCANS} scans")
    # This allocates no memory for pixels. The worker has read the header as well, but perhaps in another way.
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise _UnreadableError("it is no PNG, JPEG, WebP or GIF") from None
    except Image.DecompressionBombError:
        raise _UnreadableError(f"it has more than {MOST_PIXELS} pixels") from None
    if image.width * image.height > MOST_PIXELS:
        raise _UnreadableError(f"it has more than {MOST_PIXELS} pixels")
    if size is None:
        return image.convert("RGB")
    # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size. At least twice the final size is left for a better resize.
    image.draft(image.mode, (2 * size[0], 2 * size[1]))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _upright(image: Any) -> Any:
    """Return the image rotated by its EXIF orientation. A transposed size has the same number of tokens."""
    from PIL import ImageOps  # noqa: PLC0415 - as above

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - damaged metadata raises anything, and does not matter
        return image
