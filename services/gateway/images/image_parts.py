"""Turns `image_url` parts into images: those in `data:` URLs at once, those elsewhere into something to be fetched."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.json_fields import Fields
from services.gateway.errors import ApiError, bad_request
from services.gateway.images import data_url
from services.gateway.images.image_format import media_type
from services.gateway.images.image_url import check_url

_DETAILS: Final = {
    None: pb.IMAGE_DETAIL_UNSPECIFIED,
    "auto": pb.IMAGE_DETAIL_AUTO,
    "low": pb.IMAGE_DETAIL_LOW,
    "high": pb.IMAGE_DETAIL_HIGH,
}


@dataclass(frozen=True)
class ImageLimits:
    """Limits that the operator sets."""

    most: int = 32
    """Images of one request."""
    max_bytes: int = 12 * 2**20
    """Of one image."""
    max_total_bytes: int = 24 * 2**20
    """Of all images of a request. Workers and Triton take messages of 32 MiB."""
    hosts: frozenset[str] = frozenset()
    """From where images may be fetched, as HOST or HOST:PORT."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """An image that has still to be fetched."""

    path: str
    url: str
    image: pb.Image
    """The part of the translated request that it will fill."""


@dataclass
class Images:
    """The images of one request, counted while they are read."""

    limits: ImageLimits = field(default_factory=ImageLimits)
    elsewhere: list[Elsewhere] = field(default_factory=list)
    count: int = 0
    total_bytes: int = 0

    def add(self, part: Fields, translated: pb.Message) -> None:
        """Add a part's image to a message. Raises ApiError (400) for one that is none, or goes beyond a limit."""
        given = part.object("image_url")
        if given is None:
            raise bad_request(part.path("image_url"), f"{part.path('image_url')} is missing")
        self.count += 1
        if self.count > self.limits.most:
            path = part.path("image_url")
            raise bad_request(
                path, f"{path} is image {self.count} of the request; at most {self.limits.most} are allowed"
            )
        detail = given.one_of("detail", "auto", "low", "high")
        path, url = given.path("url"), given.required_string("url")
        image = translated.content.add(image=pb.Image(detail=_DETAILS[detail])).image
        if url[:5].lower() == "https":
            check_url(path, url, self.limits.hosts)
            self.elsewhere.append(Elsewhere(path, url, image))
        else:
            self.fill(image, path, data_url.read(path, url, max_bytes=self.limits.max_bytes))

    def fill(self, image: pb.Image, path: str, data: bytes) -> None:
        """Put an encoded image where it belongs. Raises ApiError (400)."""
        if len(data) > self.limits.max_bytes:
            raise too_large(path, len(data), self.limits.max_bytes)
        self.total_bytes += len(data)
        if self.total_bytes > self.limits.max_total_bytes:
            raise bad_request(
                path,
                f"with {path}, the request's images are {self.total_bytes} bytes; at most "
                f"{self.limits.max_total_bytes} are allowed together. Make them smaller or send fewer.",
            )
        found = media_type(data)
        if found is None:
            raise bad_request(path, f"{path} holds no PNG, JPEG, WebP or GIF; send an image in one of these formats")
        image.data, image.mime_type = data, found


def too_large(path: str, size: int, limit: int) -> ApiError:
    """The refusal of one image. `size` is what is known of it."""
    return bad_request(path, f"{path} is an image of {size} bytes; at most {limit} are allowed. Make it smaller.")
