"""Checks the images of a request by their headers, and prepares them for the engine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.image_rule import MAX_ASPECT_RATIO, AspectRatioError
from services.inference.model.served_model import ServedModel
from services.inference.request import image_header
from services.runtime.failure import invalid, unsupported
from services.runtime.messages.message import Message

_ROLES = (pb.ROLE_USER, pb.ROLE_TOOL)


@dataclass(frozen=True)
class ImageLimits:
    """Limits, set by the operator, on the cost of decoding images."""

    max_pixels: int = 50_000_000
    """The most pixels of one image."""
    max_total_pixels: int = 100_000_000
    """The most pixels of all images of a request."""


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image in the form for the engine."""

    data: bytes
    """The encoded file of the request."""
    size: tuple[int, int]
    """The width and height in pixels to which the engine resizes it."""
    tokens: int
    """The number of tokens that its placeholder stands for."""


def check_images(request: pb.GenerateRequest, model: ServedModel, limits: ImageLimits) -> None:
    """Raise Failure for the first image that the model does not accept, with its field, value and limit."""
    most, total = model.spec.capabilities.max_images, 0
    for number, (field, role, image) in enumerate(_images(request), 1):
        if not model.supports_vision:
            raise unsupported(Message("vision_not_supported", field=field, model=model.id))
        if role not in _ROLES:
            raise invalid(Message("image_in_wrong_message", field=field))
        if number > most:
            raise invalid(Message("too_many_images_for_model", field=field, value=number, model=model.id, limit=most))
        try:
            header = image_header.read(image.data)
        except image_header.UnreadableImageError as error:
            raise invalid(Message(error.message_id, **{"field": field, **error.parameters})) from None
        pixels = header.width * header.height
        total += pixels
        if pixels > limits.max_pixels:
            raise invalid(
                Message(
                    "image_too_many_pixels",
                    field=field,
                    format=header.format,
                    size=header.size,
                    value=pixels,
                    limit=limits.max_pixels,
                )
            )
        if total > limits.max_total_pixels:
            raise invalid(
                Message(
                    "images_too_many_pixels",
                    field=field,
                    format=header.format,
                    size=header.size,
                    value=total,
                    limit=limits.max_total_pixels,
                )
            )
        _size(field, header, image, model)


def prepared_images(request: pb.GenerateRequest, model: ServedModel) -> list[PreparedImage]:
    """Return the images of a checked request, in the order of the prompt."""
    prepared = []
    for field, _, image in _images(request):
        size = _size(field, image_header.read(image.data), image, model)
        tokens = model.image_rule.token_count(size) if model.image_rule else 0
        prepared.append(PreparedImage(image.data, size, tokens))
    return prepared


def image_fields(request: pb.GenerateRequest) -> list[str]:
    """Return the paths of all images, in prompt order."""
    return [field for field, _, _ in _images(request)]


def image_bytes(request: pb.GenerateRequest) -> int:
    """Return the size of all encoded images in bytes."""
    return sum(len(image.data) for _, _, image in _images(request))


def _images(request: pb.GenerateRequest) -> Iterator[tuple[str, pb.Role.ValueType, pb.Image]]:
    for index, message in enumerate(request.messages):
        for position, part in enumerate(message.content):
            if part.HasField("image"):
                yield f"messages[{index}].content[{position}].image", message.role, part.image


def _size(field: str, header: image_header.ImageHeader, image: pb.Image, model: ServedModel) -> tuple[int, int]:
    assert model.image_rule is not None  # noqa: S101  # a model with vision has one
    try:
        return model.image_rule.size(header.width, header.height, image.detail)
    except AspectRatioError:
        raise invalid(Message("image_too_narrow", field=field, size=header.size, limit=MAX_ASPECT_RATIO)) from None
