"""What a sequence of llama.cpp reads before it generates: tokens, and images among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.inference.triton_backend.engines.llama_vision import PreparedImage

IMAGE_TOKEN = -1
"""Stands for every token of an image. It is no token's id, and no prompt that is still to be read has it in common."""


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """An image and its place."""

    image: PreparedImage
    start: int
    """The index of its first token."""

    @property
    def end(self) -> int:
        """The index behind its last token."""
        return self.start + len(self.image)


@dataclass(frozen=True, slots=True)
class LlamaPrompt:
    """Tokens in order; those of images are IMAGE_TOKEN."""

    tokens: list[int]
    images: Sequence[PlacedImage] = ()

    def __len__(self) -> int:
        """How many tokens there are, those of images included."""
        return len(self.tokens)

    def position(self, index: int) -> int:
        """Return the model's position of the token at `index`, generated or not, or of the image that begins there."""
        return index - sum(len(placed.image) - placed.image.advance for placed in self.images if placed.end <= index)

    def image_at(self, index: int) -> PlacedImage | None:
        """The image that the token at `index` belongs to."""
        return next((placed for placed in self.images if placed.start <= index < placed.end), None)

    def text_at(self, index: int, most: int) -> list[int]:
        """Up to `most` tokens from `index` on, none of an image."""
        end = next((placed.start for placed in self.images if placed.start > index), len(self.tokens))
        return self.tokens[index : min(end, index + most)]


def insert_images(tokens: Sequence[int], images: Sequence[PreparedImage], *, placeholder: int) -> LlamaPrompt:
    """A prompt with its images in the places of `placeholder`, of which there must be as many."""
    left = list(images)
    whole: list[int] = []
    placed: list[PlacedImage] = []
    for token in tokens:
        if token == placeholder:
            placed.append(PlacedImage(left.pop(0), len(whole)))
            whole += [IMAGE_TOKEN] * len(placed[-1].image)
        else:
            whole.append(token)
    return LlamaPrompt(whole, placed)
