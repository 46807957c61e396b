"""All workers of this gateway, by kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vilix.embeddings.v1 import embeddings_service_pb2 as embeddings_pb
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.errors import ApiError, bad_request, not_found
from services.gateway.routing.embeddings_client import EmbeddingsPool
from services.gateway.routing.inference_client import InferencePool
from services.gateway.routing.pool import WorkerPool
from services.runtime.messages.message import Message


@dataclass(frozen=True)
class Fleet:
    """The pools of workers."""

    inference: InferencePool
    embeddings: EmbeddingsPool

    def models(self) -> dict[str, pb.Model | embeddings_pb.Model | None]:
        """Return every model that is known or expected, sorted by id; None stands for an unavailable one."""
        return dict(sorted({**self.inference.models(), **self.embeddings.models()}.items()))

    def any_ready(self) -> bool:
        """Return whether some model is available."""
        return self.inference.any_ready() or self.embeddings.any_ready()

    def has_looked(self) -> bool:
        """Return whether every worker that was found at the start has reported its models, or failed to."""
        return self.inference.has_looked() and self.embeddings.has_looked()

    def knows(self, model: str) -> bool:
        """Return whether the model is served, was served, or is expected."""
        return self.inference.knows(model) or self.embeddings.knows(model)

    def check(self, model: str, pool: WorkerPool[Any, Any, Any]) -> None:
        """Raise ApiError: 404 for a model that does not exist, 400 for one of another pool than `pool`."""
        if pool.knows(model):
            return
        others = (other for other in (self.inference, self.embeddings) if other is not pool)
        for other in others:
            if other.knows(model):
                raise _wrong_endpoint(model, other.endpoint)
        raise _unknown(model, ", ".join(pool.models()))


def _wrong_endpoint(model: str, endpoint: str) -> ApiError:
    return bad_request(Message("model_at_other_endpoint", field="model", model=model, endpoint=endpoint))


def _unknown(model: str, known: str) -> ApiError:
    message = Message(
        "model_not_found_or_allowed" if known else "no_models", field="model", model=repr(model[:128]), known=known
    )
    return not_found(message, code="model_not_found")
