"""A call that was read from a body, complete except for images that are still to be fetched."""

from __future__ import annotations

import hashlib
from typing import Any, Final, Generic

from services.gateway.dialects.dialect import C, PromptDialect, ReadOptions
from services.gateway.dialects.worker_fields import use_callers_names
from services.gateway.errors import ApiError, restarting_if_cancelled
from services.gateway.images.image_fetch import ImageFetcher
from services.gateway.images.limits import ImageLimits
from services.gateway.images.request_images import Images
from services.gateway.routing.message_size import check_number_of_elements


class PreparedCall(Generic[C]):
    """A call with its images and its size."""

    def __init__(self, call: C, images: Images) -> None:
        """Measure the call, which takes long for a large one. Raises ApiError (400) if it has too many elements."""
        self.call: Final = call
        self.images: Final = images
        try:
            check_number_of_elements(call.generate)
        except ApiError as error:
            use_callers_names(error, call.field_name)
            raise
        self._text_bytes: Final = call.generate.ByteSize() - images.total_bytes

    @property
    def size(self) -> int:
        """The size of the worker's request in bytes, with the images that have been fetched so far."""
        return self._text_bytes + self.images.total_bytes

    async def complete(self, fetcher: ImageFetcher, *, tenant: str, session: str = "") -> None:
        """Fetch the remaining images, and set the tenant, within which prompts may be cached. Raises ApiError.

        `session` is the client's name of the session, which routing policies get if the body names none.
        """
        self.call.generate.tenant = tenant
        if name := self.call.affinity_key or session:
            self.call.generate.affinity_key = _affinity_key(tenant, name)
        if self.images.remote:
            with restarting_if_cancelled():
                await fetcher.fill(self.images)


def _affinity_key(tenant: str, name: str) -> str:
    """Return a short key that tells series of requests apart, also those of different tenants."""
    return hashlib.sha256(f"{tenant}\0{name}".encode()).hexdigest()[:32]


def prepare(
    dialect: PromptDialect[C], body: Any, image_limits: ImageLimits, *, strict: bool, tenant: str
) -> PreparedCall[C]:
    """Read a parsed body of a tenant as a call. Raises ApiError (400)."""
    images = Images(image_limits)
    return PreparedCall(dialect.read(body, ReadOptions(strict, images, tenant)), images)
