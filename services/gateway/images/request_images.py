"""The images of one request: those in `data:` URLs are decoded at once, remote ones are fetched later."""

from __future__ import annotations

from dataclasses import dataclass, field

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.errors import bad_request
from services.gateway.images import data_url
from services.gateway.images.image_format import media_type
from services.gateway.images.image_url import check_url
from services.gateway.images.limits import ImageLimits, image_too_large
from services.runtime.messages.message import Message


@dataclass(frozen=True, slots=True)
class RemoteImage:
    """An image that is still to be fetched."""

    path: str
    url: str
    image: pb.Image
    """The part of the worker's request that it fills."""


@dataclass
class Images:
    """The images of one request, counted while they are read."""

    limits: ImageLimits = field(default_factory=ImageLimits)
    remote: list[RemoteImage] = field(default_factory=list)
    """The images that are still to be fetched."""
    count: int = 0
    total_bytes: int = 0

    def add(self, image: pb.Image, *, url: str, path: str, part: str) -> None:
        """Add the image at `url`.

        Args:
            image: The part of the worker's request that it fills.
            url: A `data:` or `https:` URL.
            path: The path of the field that holds the URL.
            part: The path of the content part that the image belongs to.

        Raises:
            ApiError: The URL or the image is not valid, or exceeds a limit (400).
        """
        self.count += 1
        if self.count > self.limits.most:
            raise bad_request(Message("too_many_images", field=part, value=self.count, count=self.limits.most))
        if url[:5].lower() == "https":
            check_url(path, url, self.limits.hosts)
            self.remote.append(RemoteImage(path, url, image))
        else:
            self.fill(image, path, data_url.read(path, url, max_bytes=self.limits.max_bytes))

    def fill(self, image: pb.Image, path: str, data: bytes) -> None:
        """Put an encoded image into the worker's request. Raises ApiError (400)."""
        if len(data) > self.limits.max_bytes:
            raise image_too_large(path, len(data), self.limits.max_bytes)
        self.total_bytes += len(data)
        if self.total_bytes > self.limits.max_total_bytes:
            most = self.limits.max_total_bytes
            raise bad_request(Message("images_over_bytes", field=path, value=self.total_bytes, limit=most))
        mime_type = media_type(data)
        if mime_type is None:
            raise bad_request(Message("image_format_unknown", field=path))
        image.data, image.mime_type = data, mime_type
