"""Encoded images for tests, made by Pillow."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image


def encoded(form: str, width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    """An image of one colour, as a file of a format that Pillow knows."""
    data = io.BytesIO()
    Image.new(mode, (width, height)).save(data, form, **options)
    return data.getvalue()


def animated(form: str, width: int, height: int) -> bytes:
    """Two different frames."""
    frames = [Image.new("RGB", (width, height), colour) for colour in ("red", "blue")]
    data = io.BytesIO()
    frames[0].save(data, form, save_all=True, append_images=frames[1:])
    return data.getvalue()


def halves(form: str, width: int, height: int) -> bytes:
    """Red on its left, blue on its right."""
    image = Image.new("RGB", (width, height), (255, 0, 0))
    image.paste((0, 0, 255), (width // 2, 0, width, height))
    data = io.BytesIO()
    image.save(data, form, quality=95)
    return data.getvalue()


def scans(more: int, *, side: int = 64) -> bytes:
    """A progressive JPEG in grey with `more` scans that hold nothing."""
    data = encoded("JPEG", side, side, "L", progressive=True)
    # Of coefficient 1, its bit 0, which there was before.
    empty = b"\xff\xda\x00\x08\x01\x01\x00\x01\x01\x10\x00"
    return data[:-2] + empty * more + data[-2:]
