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
