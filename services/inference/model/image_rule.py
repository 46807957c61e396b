"""Computes the size to which a checkpoint resizes an image, and the image's number of tokens.

The rule is that of the Qwen-VL family (`smart_resize` of its image processor): sides become multiples of a factor, and
the number of pixels stays within bounds. The worker decides the size, and the engine resizes the image to it, so that
tokens are counted before an image is decoded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.catalog import ImagesSpec
from services.worker.triton_kit.checkpoint_file import read_object

MAX_ASPECT_RATIO = 200
"""The largest ratio of the longer side to the shorter one."""


class AspectRatioError(Exception):
    """One side of an image is too long for the other one."""


@dataclass(frozen=True, slots=True)
class ImageRule:
    """The rule of one checkpoint."""

    placeholder: str
    """The special token that represents an image in a prompt."""
    factor: int
    """Both sides become multiples of this many pixels; a square with such sides is one token."""
    min_pixels: int
    """Smaller images are enlarged."""
    max_pixels: int
    """The checkpoint's own limit: larger images are shrunk, whatever the detail."""
    tokens: dict[pb.ImageDetail.ValueType, int]
    """The most tokens of an image, by detail."""

    @classmethod
    def load(cls, spec: ImagesSpec, directory: Path) -> ImageRule:
        """Read a model directory, whose preprocessor_config.json overrides the catalog. Raises OSError, ValueError."""
        path = directory / "preprocessor_config.json"
        configured = read_object(path, optional=True)
        try:
            edges = configured.get("size") or {}
            patch = int(configured.get("patch_size") or spec.patch_size)
            merge = int(configured.get("merge_size") or spec.merge_size)
            least = int(configured.get("min_pixels") or edges.get("shortest_edge") or spec.min_pixels)
            most = int(configured.get("max_pixels") or edges.get("longest_edge") or spec.max_pixels)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no configuration of an image processor: {error}") from None
        if min(patch, merge, least) < 1 or least > most:
            raise ValueError(f"{path} has sizes that cannot be: patch {patch}, merge {merge}, {least} to {most} pixels")
        limits = {
            pb.IMAGE_DETAIL_UNSPECIFIED: spec.tokens.auto,
            pb.IMAGE_DETAIL_AUTO: spec.tokens.auto,
            pb.IMAGE_DETAIL_LOW: spec.tokens.low,
            pb.IMAGE_DETAIL_HIGH: spec.tokens.high,
        }
        return cls(spec.placeholder, patch * merge, least, most, limits)

    def size(self, width: int, height: int, detail: pb.ImageDetail.ValueType) -> tuple[int, int]:
        """Return width and height of the resized image in pixels. Raises AspectRatioError beyond MAX_ASPECT_RATIO."""
        if max(width, height) > MAX_ASPECT_RATIO * min(width, height):
            raise AspectRatioError(f"{width}×{height}")
        bound = max(self.min_pixels, min(self.max_pixels, self.tokens.get(detail, 0) * self.factor**2))
        return self._resized(width, height, bound)

    def token_count(self, size: tuple[int, int]) -> int:
        """Return the number of tokens of an image of a size that `size` has returned."""
        return (size[0] // self.factor) * (size[1] // self.factor)

    def _resized(self, width: int, height: int, most: int) -> tuple[int, int]:
        factor = self.factor
        new_width, new_height = round(width / factor) * factor, round(height / factor) * factor
        if new_width * new_height > most:
            scale = math.sqrt(width * height / most)
            new_width = max(factor, math.floor(width / scale / factor) * factor)
            new_height = max(factor, math.floor(height / scale / factor) * factor)
        elif new_width * new_height < self.min_pixels:
            scale = math.sqrt(self.min_pixels / (width * height))
            new_width = math.ceil(width * scale / factor) * factor
            new_height = math.ceil(height * scale / factor) * factor
        # Rounding may push an image over the limit, by which the checkpoint's own processor would reject it.
        longest = MAX_ASPECT_RATIO * min(new_width, new_height)
        return min(new_width, longest), min(new_height, longest)
