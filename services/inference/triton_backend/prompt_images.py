"""Images of a prompt: each has a placeholder there, and a size to which it is brought."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

from services.inference.triton_backend.contract import Request, RequestError

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF")
"""PIL knows many more, whose readers nobody needs here."""


def refuse_misplaced(request: Request, prompt: Sequence[int], placeholder: int | None) -> None:
    """Raise RequestError unless `prompt` has one `placeholder` for each image; None is that of a model without vision."""
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


def decode(request: Request) -> list[Any]:
    """The images in RGB, in their sizes and then turned upright. Raises RequestError for the first that is none."""
    from PIL import Image  # noqa: PLC0415 - only the images of NVIDIA have it for sure, and only images need it

    decoded = []
    for number, data in enumerate(request.images, 1):
        try:
            image = Image.open(io.BytesIO(data), formats=FORMATS).convert("RGB")
            if request.params.image_sizes:
                # One after another: only small ones stay.
                image = image.resize(request.params.image_sizes[number - 1], Image.Resampling.BICUBIC)
            decoded.append(_upright(image))
        except Exception as error:  # noqa: BLE001 - the formats' own code raises anything
            raise RequestError("INVALID_ARGUMENT", f"image {number} cannot be read: {error}") from None
    return decoded


def _upright(image: Any) -> Any:
    """Turned as a camera says that it was held. A size and its transpose are as many tokens."""
    from PIL import ImageOps  # noqa: PLC0415 - as above

    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 - metadata may be anything, and is not what was asked about
        return image
