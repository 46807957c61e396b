"""Headers are read as Pillow, which decodes them in production, reads them."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from services.inference import image_header
from tests.unit.inference.pictures import animated, encoded

SIZES = [(1, 1), (2, 300), (1023, 7), (640, 480)]
KINDS = {
    "PNG": lambda w, h: encoded("PNG", w, h, "RGBA"),
    "APNG": lambda w, h: animated("PNG", w, h),
    "JPEG": lambda w, h: encoded("JPEG", w, h),
    "progressive JPEG with metadata": lambda w, h: encoded(
        "JPEG", w, h, progressive=True, comment=b"\xff\xc0" * 50, exif=b"Exif\0\0" + b"\xff\xc0\x00\x11" * 40
    ),
    "lossy WebP": lambda w, h: encoded("WEBP", w, h),
    "lossless WebP": lambda w, h: encoded("WEBP", w, h, "RGBA", lossless=True),
    "extended WebP": lambda w, h: encoded("WEBP", w, h, icc_profile=b"p" * 128),
    "animated WebP": lambda w, h: animated("WEBP", w, h),
    "GIF": lambda w, h: encoded("GIF", w, h, "P", comment=b"c" * 700),
    "animated GIF": lambda w, h: animated("GIF", w, h),
}
SAMPLES = [make(65, 33) for make in KINDS.values()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_dimensions_are_those_that_decoding_gives(kind: str, size: tuple[int, int]) -> None:
    data = KINDS[kind](*size)
    header = image_header.read(data)
    assert (header.width, header.height) == Image.open(io.BytesIO(data)).size == size
    assert header.format in kind or header.format == "PNG"


@pytest.mark.parametrize("sample", SAMPLES)
@given(data=st.data())
def test_what_is_cut_off_is_read_or_refused(sample: bytes, data: st.DataObject) -> None:
    cut = sample[: data.draw(st.integers(0, len(sample)))]
    try:
        header = image_header.read(cut)
    except ValueError as error:
        assert str(error).startswith("it ")
    else:
        assert (header.width, header.height) == (65, 33)


@pytest.mark.parametrize("sample", SAMPLES)
@given(changes=st.lists(st.tuples(st.integers(3, 80), st.integers(0, 255)), max_size=6))
def test_what_is_damaged_is_read_or_refused(sample: bytes, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(sample)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        header = image_header.read(bytes(damaged))
    except ValueError as error:
        assert str(error).startswith("it ")
    else:
        assert min(header.width, header.height) >= 1


@given(data=st.binary(max_size=200))
def test_bytes_that_are_no_image_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="it is no PNG, JPEG, WebP or GIF"):
        image_header.read(b"\x00" + data)


def test_a_frame_larger_than_its_screen_counts() -> None:
    """Pillow would allocate the frame, whatever the screen is."""
    data = bytearray(encoded("GIF", 10, 10, "P"))
    place = data.rindex(b"\x2c\x00\x00\x00\x00\x0a\x00\x0a\x00")
    data[place + 5 : place + 9] = struct.pack("<HH", 30_000, 20_000)
    header = image_header.read(bytes(data))
    assert (header.width, header.height) == (30_000, 20_000)


def test_a_second_size_is_refused() -> None:
    jpeg = encoded("JPEG", 8, 8)
    place = jpeg.index(b"\xff\xc0")
    frame = jpeg[place : place + 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")]
    with pytest.raises(ValueError, match="two sizes"):
        image_header.read(jpeg[:place] + frame + jpeg[place:])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\xd8" + b"\xff\xfe\x00\x02" * 3_000_000, "more than 4096 segments"),
        (b"GIF89a\x01\x00\x01\x00\x00\x00\x00\x21\xfe" + b"\x01a" * 3_000_000, "more than 4096 blocks"),
        (b"\xff\xd8" + b"\xff" * 3_000_000, "more than 4096 segments"),
        (b"\xff\xd8\xff\xc0\x00\x00", "ends before|damaged"),
        (encoded("PNG", 1, 1)[:16] + bytes(20), "0×0 pixels"),
        (b"BM" + bytes(100), "no PNG, JPEG, WebP or GIF"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(40), "no PNG, JPEG, WebP or GIF"),
    ],
)
def test_hostile_headers_are_refused_soon(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        image_header.read(data)
