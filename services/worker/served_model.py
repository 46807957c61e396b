"""A model as a worker serves it: its catalog entry, and what its engine reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypedDict, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from services.runtime.failure import Failure, Reason
from services.runtime.messages.message import Message
from services.worker.catalog_file import CatalogEntry

Spec = TypeVar("Spec", bound=CatalogEntry)
Description = TypeVar("Description")


class Identity(TypedDict):
    """The fields of the API's `Model` that both services have, as its catalog entry gives them."""

    id: str
    created: Timestamp
    owned_by: str
    checkpoint: str
    descriptions: dict[str, str]


@dataclass
class ServedModel(Generic[Spec, Description]):
    """One model. Each worker adds what it has read from the model directory."""

    spec: Spec
    description: Description | None = field(default=None, kw_only=True)
    """The engine's description of itself; None while the engine does not answer."""
    described_at: float = field(default=0.0, kw_only=True)
    """When the engine last answered, on the monotonic clock in seconds."""
    open_requests: set[Callable[[Failure], None]] = field(default_factory=set, kw_only=True)
    """For each request that the engine works on, a function that ends it with a failure."""

    @property
    def id(self) -> str:
        """The public id."""
        return self.spec.id

    def engine(self) -> Description:
        """Return the description of the engine. Raises MODEL_UNAVAILABLE while the engine does not answer."""
        if self.description is None:
            raise Failure(Reason.MODEL_UNAVAILABLE, Message("model_unavailable", model=self.id), retry_after=2.0)
        return self.description

    def end_requests(self, failure: Failure) -> None:
        """End every request that its engine works on, because the engine will not answer it any more."""
        for end in tuple(self.open_requests):
            end(failure)

    def identity(self) -> Identity:
        """Return the fields of the API's `Model` that come from the catalog entry and that both services have."""
        spec, created = self.spec, Timestamp()
        created.FromJsonString(f"{spec.created.isoformat()}T00:00:00Z")
        return Identity(
            id=spec.id,
            created=created,
            owned_by=spec.owned_by,
            checkpoint=spec.checkpoint,
            descriptions={str(language): text for language, text in spec.descriptions.items()},
        )
