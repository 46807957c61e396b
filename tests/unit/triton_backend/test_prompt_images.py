"""Images that the engine decodes and images that it rejects, without the checks of the worker."""

from __future__ import annotations

import json
import time

import pytest

from services.inference.triton_backend import prompt_images
from services.inference.triton_backend.contract import Params, Request
from services.inference.triton_backend.params_parser import parse
from services.inference.triton_backend.prompt_images import decode
from services.runtime.messages.message import Message
from services.worker.triton_kit.request_error import RequestError
from tests.support.messages import message_of
from tests.support.pictures import encoded, halves, scans


def request(*images: bytes, sizes: list[list[int]] | None = None) -> Request:
    params = parse(json.dumps({"image_sizes": sizes}))
    assert isinstance(params, Params)
    return Request(params, [1], images=images)


def test_a_jpeg_with_many_scans_is_rejected_at_once() -> None:
    """Decoding it would take seconds for every ten kilobytes."""
    began = time.process_time()
    with pytest.raises(RequestError) as rejection:
        decode(request(scans(20_000, side=3000)))
    assert message_of(rejection.value) == Message("image_too_many_scans", field="images[0]", limit=100)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("sizes", [None, [[28, 28]]])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
def test_an_image_with_too_many_pixels_is_rejected_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, form: str, sizes: list[list[int]] | None
) -> None:
    monkeypatch.setattr(prompt_images, "MOST_PIXELS", 64 * 64)
    assert len(decode(request(encoded(form, 64, 64), sizes=sizes))) == 1
    with pytest.raises(RequestError) as rejection:
        decode(request(encoded(form, 65, 64), sizes=sizes))
    assert message_of(rejection.value) == Message("image_too_large_to_decode", field="images[0]", limit=4096)


@pytest.mark.parametrize(
    ("image", "message_id"),
    [
        (b"no image", "image_format_unknown"),
        (encoded("BMP", 8, 8), "image_format_unknown"),
        (encoded("PNG", 600, 600)[:200], "image_damaged"),
        # Pillow itself rejects it.
        (
            encoded("GIF", 1, 1, "P").replace(b"GIF87a\x01\x00\x01\x00", b"GIF87a\xff\xff\xff\xff"),
            "image_too_large_to_decode",
        ),
    ],
)
def test_the_fault_of_an_image_is_reported(image: bytes, message_id: str) -> None:
    with pytest.raises(RequestError) as rejection:
        decode(request(image))
    assert (rejection.value.reason, rejection.value.message_id) == ("INVALID_ARGUMENT", message_id)
    assert rejection.value.parameters["field"] == "images[0]"


def test_images_of_a_cancelled_request_are_not_decoded() -> None:
    answers = [True, False]
    with pytest.raises(RequestError, match="not wanted any more"):
        decode(request(encoded("PNG", 8, 8), b"no image"), is_wanted=lambda: answers.pop(0))


@pytest.mark.parametrize("size", [(100, 60), (600, 400), (1200, 800)])
def test_a_jpeg_is_the_same_picture_in_every_size(size: tuple[int, int]) -> None:
    """Large images are decoded at a fraction of their size, which must not move the content."""
    (image,) = decode(request(halves("JPEG", 1200, 800), sizes=[list(size)]))
    assert image.size == size
    width, height = size
    left, right = image.getpixel((width // 4, height // 2)), image.getpixel((3 * width // 4, height // 2))
    assert (left[0] > 230, left[2] < 20) == (right[2] > 230, right[0] < 20) == (True, True)
    assert all(image.getpixel((width // 2 - 3, y))[0] > 150 for y in range(0, height, 7))
