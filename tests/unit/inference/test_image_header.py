"""Headers are read as Pillow reads them, which decodes images in production."""

from __future__ import annotations

import io
import struct
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from services.inference.request import image_header
from services.inference.request.image_header import UnreadableImageError
from services.inference.triton_backend.prompt_images import FORMATS
from tests.support.pictures import animated, encoded, scans

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
PNG = encoded("PNG", 3000, 2000)
SAMPLES = [make(65, 33) for make in KINDS.values()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", SIZES)
def test_dimensions_equal_those_of_the_decoded_image(kind: str, size: tuple[int, int]) -> None:
    data = KINDS[kind](*size)
    header = image_header.read(data)
    assert (header.width, header.height) == Image.open(io.BytesIO(data)).size == size
    assert header.format in kind or header.format == "PNG"


@pytest.mark.parametrize("sample", SAMPLES)
@given(data=st.data())
def test_a_truncated_image_is_read_correctly_or_rejected(sample: bytes, data: st.DataObject) -> None:
    cut = sample[: data.draw(st.integers(0, len(sample)))]
    try:
        header = image_header.read(cut)
    except UnreadableImageError as error:
        assert error.message_id.startswith("image_")
    else:
        assert (header.width, header.height) == (65, 33)


@pytest.mark.parametrize("sample", SAMPLES)
@given(changes=st.lists(st.tuples(st.integers(3, 80), st.integers(0, 255)), max_size=6))
def test_a_damaged_image_is_read_correctly_or_rejected(sample: bytes, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(sample)
    for offset, value in changes:
        damaged[offset % len(damaged)] = value
    try:
        header = image_header.read(bytes(damaged))
    except UnreadableImageError as error:
        assert error.message_id.startswith("image_")
    else:
        assert min(header.width, header.height) >= 1


@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_are_rejected(data: bytes) -> None:
    with pytest.raises(UnreadableImageError) as rejection:
        image_header.read(b"\x00" + data)
    assert rejection.value.message_id == "image_format_unknown"


def test_a_gif_frame_larger_than_the_screen_counts() -> None:
    """Pillow would allocate the frame, whatever the size of the screen."""
    data = bytearray(encoded("GIF", 10, 10, "P"))
    offset = data.rindex(b"\x2c\x00\x00\x00\x00\x0a\x00\x0a\x00")
    data[offset + 5 : offset + 9] = struct.pack("<HH", 30_000, 20_000)
    header = image_header.read(bytes(data))
    assert (header.width, header.height) == (30_000, 20_000)


def test_a_second_size_of_a_jpeg_is_rejected() -> None:
    jpeg = encoded("JPEG", 8, 8)
    offset = jpeg.index(b"\xff\xc0")
    frame = jpeg[offset : offset + 2 + int.from_bytes(jpeg[offset + 2 : offset + 4], "big")]
    with pytest.raises(UnreadableImageError) as rejection:
        image_header.read(jpeg[:offset] + frame + jpeg[offset:])
    assert rejection.value.message_id == "image_with_two_sizes"


@pytest.mark.parametrize("sample", SAMPLES)
@given(
    changes=st.lists(st.tuples(st.integers(3, 80), st.integers(0, 255)), max_size=4),
    inserted=st.lists(
        st.tuples(
            st.integers(2, 80),
            st.one_of(
                st.binary(min_size=1, max_size=12),
                st.sampled_from(
                    [
                        b"\x21\xf9\x00",
                        b"\x21\xff\x0bNETSCAPE2.0\x00",
                        b"\x21\xfe\x00",
                        b"\x2c",
                        b"\xff\x00\x00\x09",
                        b"\xff",
                    ]
                    + [
                        bytes((0xFF, marker, 0, 9))
                        for marker in (0xC0, 0xD0, 0xD8, 0xD9, 0xDC, 0xDE, 0xDF, 0xE1, 0xF0, 1)
                    ]
                    + [PNG[8:33], PNG[33:] + PNG[8:33]]
                ),
            ),
        ),
        max_size=3,
    ),
)
def test_no_decoder_reads_more_pixels_than_the_header_states(
    sample: bytes, changes: list[tuple[int, int]], inserted: list[tuple[int, bytes]]
) -> None:
    damaged = bytearray(sample)
    for offset, content in inserted:
        damaged[offset:offset] = content
    for offset, value in changes:
        damaged[offset % len(damaged)] = value
    try:
        header = image_header.read(bytes(damaged))
    except UnreadableImageError:
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(damaged), formats=FORMATS)
    except Exception:  # noqa: BLE001 - the formats' own code raises anything
        return
    assert image.width * image.height <= header.width * header.height


def test_a_second_size_of_a_png_is_rejected() -> None:
    small, large = encoded("PNG", 100, 100), encoded("PNG", 3000, 2000)
    both = small[:33] + large[8:]
    assert Image.open(io.BytesIO(both)).size == (3000, 2000)
    with pytest.raises(UnreadableImageError) as rejection:
        image_header.read(both)
    assert rejection.value.message_id == "image_with_two_sizes"


@pytest.mark.parametrize("extension", [b"\x21\xf9\x00", b"\x21\xff\x00", b"\x21\xff\x0bNETSCAPE2.0\x00"])
def test_a_gif_that_hides_its_frame_in_an_extension_is_rejected(extension: bytes) -> None:
    """An extension that ends at once for some decoders goes on for Pillow, which reads a large frame behind it."""
    gif = encoded("GIF", 10, 10, "P")
    offset = gif.rindex(b"\x2c\x00\x00\x00\x00\x0a\x00\x0a\x00")
    small = gif[offset : offset + 10]
    hidden = small + bytes(0x2C + 1 - len(small))
    large = small[:5] + struct.pack("<HH", 3000, 2000) + gif[offset + 9 :]
    data = gif[:offset] + extension + hidden + b"\x00" + large
    assert Image.open(io.BytesIO(data)).size == (3000, 2000)
    with pytest.raises(UnreadableImageError) as rejection:
        image_header.read(data)
    assert rejection.value.message_id == "image_part_damaged"


@pytest.mark.parametrize("marker", [0x00, 0xD0, 0xD8, 0xD9, 0xDE, 0xF0])
def test_a_jpeg_that_hides_its_size_in_a_segment_is_rejected(marker: int) -> None:
    """A segment for one decoder is a mere marker for another, which reads a size in the segment."""
    small, large = encoded("JPEG", 8, 8), encoded("JPEG", 3000, 2000)
    offset = large.index(b"\xff\xc0")
    size = large[offset : offset + 19]
    scan = small.index(b"\xff\xda")
    data = small[:scan] + bytes((0xFF, marker)) + (b"" if marker == 0xD9 else b"\x00\x15") + size + small[scan:]
    if marker == 0xDE:
        data = small[:scan] + bytes((0xFF, marker)) + size[2:] + small[scan:]
    assert Image.open(io.BytesIO(data)).size == (3000, 2000)
    with pytest.raises(UnreadableImageError) as rejection:
        image_header.read(data)
    assert rejection.value.message_id == "image_part_damaged"


@pytest.mark.parametrize(("more", "is_read"), [(80, True), (101, False), (1000, False)])
def test_a_jpeg_may_have_a_hundred_scans(more: int, *, is_read: bool) -> None:
    data = scans(more)
    if is_read:
        assert image_header.read(data).width == 64
    else:
        with pytest.raises(UnreadableImageError) as rejection:
            image_header.read(data)
        assert rejection.value.message_id == "image_too_many_scans"


def test_scan_markers_in_metadata_or_behind_the_end_do_not_count() -> None:
    comment = b"\xff\xfe" + (2 + 600).to_bytes(2, "big") + b"\xff\xda" * 300
    data = scans(2)
    assert image_header.read(data[:-2] + comment + data[-2:] + b"\xff\xda" * 300).width == 64


@pytest.mark.parametrize(
    ("data", "message_id"),
    [
        (b"\xff\xd8" + b"\xff\xfe\x00\x02" * 3_000_000, "image_too_many_segments"),
        (b"GIF89a\x01\x00\x01\x00\x00\x00\x00\x21\xfe" + b"\x01a" * 3_000_000, "image_too_many_segments"),
        (b"\xff\xd8" + b"\xff" * 3_000_000, "image_too_many_segments"),
        (b"\xff\xd8\xff\xc0\x00\x00", "image_truncated"),
        (encoded("PNG", 1, 1)[:16] + bytes(8) + encoded("PNG", 1, 1)[24:], "image_without_pixels"),
        (b"BM" + bytes(100), "image_format_unknown"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(40), "image_format_unknown"),
    ],
)
def test_hostile_headers_are_rejected_quickly(data: bytes, message_id: str) -> None:
    with pytest.raises(UnreadableImageError) as rejection:
        image_header.read(data)
    assert rejection.value.message_id == message_id
