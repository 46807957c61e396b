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
        raise RequestError("UNSUPPORTED_PARAMETER", "images_not_supported")
    if request.params.prompt_logprobs is not None:
        problem = "the tokens of images have no log probabilities"
        raise RequestError("INVALID_ARGUMENT", "engine_parameters_not_valid", reason=problem)
    placeholders = prompt.count(placeholder)
    if placeholders != count:
        raise RequestError("INVALID_ARGUMENT", "image_placeholders_mismatch", placeholders=placeholders, count=count)
    sizes = len(request.params.image_sizes)
    if sizes not in (0, count):
        problem = f"image_sizes has {sizes} entries for {count} images"
        raise RequestError("INVALID_ARGUMENT", "engine_parameters_not_valid", reason=problem)


def decode(request: Request, is_wanted: Callable[[], bool] = lambda: True) -> list[Any]:
    """Return the images in RGB, resized and then rotated upright. Raises RequestError for the first invalid image.

    It also raises RequestError before the next image when `is_wanted` returns False.
    """
    decoded = []
    for index, data in enumerate(request.images):
        # The worker replaces the field by the one of its request.
        field = f"images[{index}]"
        if not is_wanted():
            raise RequestError("ENGINE_FAILED", "engine_failed", reason="the images are not wanted any more")
        size = request.params.image_sizes[index] if request.params.image_sizes else None
        try:
            # One after another, so that only one image has its original size at a time.
            decoded.append(_upright(_decoded(data, size, field)))
        except RequestError:
            raise
        except Exception as error:  # noqa: BLE001 - the formats' own code raises anything
            raise RequestError("INVALID_ARGUMENT", "image_damaged", field=field, reason=str(error)) from None
    return decoded


def _decoded(data: bytes, size: tuple[int, int] | None, field: str) -> Any:
    # Only NVIDIA's images surely have Pillow, and only images need it.
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    if data.startswith(b"\xff\xd8") and has_too_many_scans(data):
        raise RequestError("INVALID_ARGUMENT", "image_too_many_scans", field=field, limit=MOST_SCANS)
    # This allocates no memory for pixels. The worker has read the header as well, but perhaps in another way.
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise RequestError("INVALID_ARGUMENT", "image_format_unknown", field=field) from None
    except Image.DecompressionBombError:
        raise _too_large(field) from None
    if image.width * image.height > MOST_PIXELS:
        raise _too_large(field)
    if size is None:
        return image.convert("RGB")
    # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size. At least twice the final size is left for a better resize.
    image.draft(image.mode, (2 * size[0], 2 * size[1]))
    return image.convert("RGB").resize(size, Image.Resampling.BICUBIC)


def _too_large(field: str) -> RequestError:
    return RequestError("INVALID_ARGUMENT", "image_too_large_to_decode", field=field, limit=MOST_PIXELS)


def _upright(image: Any) -> Any:
    """Return the image rotated by its EXIF orientation. A transposed size has the same number of tokens."""
    from PIL import ImageOps  # noqa: PLC0415 - as above

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - damaged metadata raises anything, and does not matter
        return image
