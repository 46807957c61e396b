"""Images for tests, encoded by Pillow."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image


def encoded(form: str, width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    """Return an image of one colour in a format of Pillow."""
    data = io.BytesIO()
    Image.new(mode, (width, height)).save(data, form, **options)
    return data.getvalue()


def animated(form: str, width: int, height: int) -> bytes:
    """Return an animation of two different frames."""
    frames = [Image.new("RGB", (width, height), colour) for colour in ("red", "blue")]
    data = io.BytesIO()
    frames[0].save(data, form, save_all=True, append_images=frames[1:])
    return data.getvalue()


def halves(form: str, width: int, height: int) -> bytes:
    """Return an image that is red on the left and blue on the right."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    data = io.BytesIO()
    image.save(data, form, quality=95)
    return data.getvalue()


def scans(more: int, *, side: int = 64) -> bytes:
    """Return a progressive grey JPEG with `more` empty scans."""
    data = encoded("JPEG", side, side, "L", progressive=True)
    # The scan repeats bit 0 of coefficient 1.
    empty = b"\xff\xda\x00\x08\x01\x01\x00\x01\x01\x10\x00"
    return data[:-2] + empty * more + data[-2:]
