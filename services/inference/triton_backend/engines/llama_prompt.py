"""The prompt of a sequence of llama.cpp: tokens, and images among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from services.inference.triton_backend.engines.llama_vision import PreparedImage

IMAGE_TOKEN = -1
"""Stands for every token of an image. It is no id of a token, so that no other prompt shares it with a slot."""


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """An image and its position in the prompt."""

    image: PreparedImage
    start: int
    """The index of its first token."""

    @property
    def end(self) -> int:
        """The index behind its last token."""
        return self.start + len(self.image)


@dataclass(frozen=True, slots=True)
class LlamaPrompt:
    """The tokens of a prompt; those of images are IMAGE_TOKEN."""

    tokens: list[int]
    images: Sequence[PlacedImage] = ()

    def __len__(self) -> int:
        """Return the number of tokens, those of images included."""
        return len(self.tokens)

    def position(self, index: int) -> int:
        """Return the model's position of the token at `index`, generated or not, or of the image that begins there."""
        return index - sum(len(placed.image) - placed.image.advance for placed in self.images if placed.end <= index)

    def image_at(self, index: int) -> PlacedImage | None:
        """Return the image to which the token at `index` belongs, or None."""
        return next((placed for placed in self.images if placed.start <= index < placed.end), None)

    def text_at(self, index: int, most: int) -> list[int]:
        """Return up to `most` tokens from `index` on, up to the next image."""
        end = next((placed.start for placed in self.images if placed.start > index), len(self.tokens))
        return self.tokens[index : min(end, index + most)]


def insert_images(tokens: Sequence[int], images: Sequence[PreparedImage], *, placeholder: int) -> LlamaPrompt:
    """Return a prompt with each `placeholder` replaced by an image; there must be as many of both."""
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
