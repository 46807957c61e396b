"""What the gateway asks of each API that it speaks. One object per API answers it, and everything else knows no API.

A body is read into a neutral call; the events of a worker are encoded as a stream, or collected and written as a whole;
errors and limits are rendered. To add an API is to add a package with such an object, and its routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from vilix.embeddings.v1 import embeddings_service_pb2 as embeddings_pb
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.collector import ResponseCollector
from services.gateway.errors import ApiError
from services.gateway.limit_status import RateLimits, SpentBudget


@dataclass(frozen=True, slots=True)
class ErrorReply:
    """An error as the response to a request."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What identifies an answer."""

    id: str
    created: int
    """Seconds since 1970."""
    request_id: str


class ImageSink(Protocol):
    """Takes the images of a request while its body is read."""

    def add(self, image: pb.Image, *, url: str, path: str, part: str) -> None:
        """Take the image at `url`, which fills `image` now or before the worker is called.

        `path` is where the URL stands, and `part` the content part that it belongs to. Raises ApiError (400).
        """
        ...


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How a body is to be read."""

    strict: bool
    """Whether fields that would have no influence are rejected, instead of being reported."""
    images: ImageSink


@dataclass(frozen=True, kw_only=True)
class GenerateCall:
    """What a request for an answer asks for, whatever API it came by. A dialect adds what its own answers need."""

    generate: pb.GenerateRequest
    stream: bool = False
    """Whether the answer is sent while it is generated."""
    ignored: Sequence[str] = ()
    """Fields that are no part of the API, in its own names."""
    dry_run: bool = False
    """Whether only the prompt is asked for."""

    def field_name(self, field: str) -> str:
        """Return the caller's name of one of the worker's fields, given by its path; empty where there is none."""
        return field

    def all_ignored(self, of_worker: Iterable[str]) -> list[str]:
        """Return the caller's names of all fields that have no influence, of which the worker has named these."""
        return [*self.ignored, *map(self.field_name, of_worker)]

    @property
    def choices(self) -> int:
        """How many answers are generated."""
        return max(1, self.generate.n)


C = TypeVar("C", bound=GenerateCall)


def without_prompt(call: C) -> C:
    """Return a call as far as its answer depends on it, without what was asked, which may be large."""
    generate = pb.GenerateRequest(model=call.generate.model, n=call.generate.n)
    if call.generate.HasField("logprobs"):
        generate.logprobs.CopyFrom(call.generate.logprobs)
    return replace(call, generate=generate)


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """The prompt that a worker made of a call."""

    response: pb.RenderPromptResponse
    worker: str
    """The worker's address."""
    ignored: Sequence[str]
    """All fields that have no influence, in the API's own names."""


class StreamEncoder(Protocol):
    """Encodes one answer as Server-Sent Events. Each method returns whole events, or nothing."""

    def encode(self, events: Iterable[pb.Event]) -> bytes:
        """Return the events that follow from what the worker sent, joined: they are sent at once."""
        ...

    def note(self, budget: SpentBudget) -> None:
        """Name the budget that ended the answer in every event from here on."""
        ...

    def end(self) -> bytes:
        """Return what follows the last event of a complete answer."""
        ...

    def error(self, error: ApiError) -> bytes:
        """Return the events with which a stream ends that has failed. Nothing may follow them."""
        ...

    def keep_alive(self) -> bytes:
        """Return what is sent where nothing else was sent for a while."""
        ...

    def queued(self, position: int) -> bytes:
        """Return what tells a client its position in the queue; the next one has position 1."""
        ...


class Dialect(Protocol):
    """What every API has."""

    def api_key(self, headers: Mapping[str, str]) -> str | None:
        """Return the key that a request carries; None where it carries none."""
        ...

    def error(self, error: ApiError, *, request_id: str) -> ErrorReply:
        """Render an error as a response, in the caller's language."""
        ...

    def response_headers(self, limits: RateLimits, *, request_id: str) -> dict[str, str]:
        """Return the API's headers of a response: how limits stand, and whatever else it reports."""
        ...


class PromptDialect(Dialect, Protocol[C]):
    """An API that shows prompts."""

    def read(self, body: Any, options: ReadOptions) -> C:
        """Read a parsed body. Raises ApiError (400) that names the field, what it holds and what it must be."""
        ...

    def prompt(self, call: C, prompt: RenderedPrompt) -> bytes:
        """Return the JSON document that shows a prompt."""
        ...


class GenerationDialect(PromptDialect[C], Protocol[C]):
    """An API that answers prompts."""

    @property
    def id_prefix(self) -> str:
        """What the ids of its answers begin with."""
        ...

    def encoder(self, call: C, head: ResponseHead) -> StreamEncoder:
        """Return the encoder of one streamed answer. `call` is without its prompt."""
        ...

    def whole(self, call: C, head: ResponseHead, answer: ResponseCollector) -> bytes:
        """Return the JSON document of a whole answer. `call` is without its prompt."""
        ...


@dataclass(frozen=True, kw_only=True)
class EmbedCall:
    """What a request for embeddings asks for, whatever API it came by."""

    embed: embeddings_pb.EmbedRequest

    def field_name(self, field: str) -> str:
        """Return the caller's name of one of the worker's fields, given by its path."""
        return field


E = TypeVar("E", bound=EmbedCall)


class EmbeddingDialect(Dialect, Protocol[E]):
    """An API that turns texts into vectors."""

    def read(self, body: Any) -> E:
        """Read a parsed body. Raises ApiError (400) as above."""
        ...

    def pieces(self, call: E, response: embeddings_pb.EmbedResponse) -> Iterator[bytes]:
        """Yield the JSON document of a response in pieces that take about a millisecond each."""
        ...

    def is_small(self, response: embeddings_pb.EmbedResponse) -> bool:
        """Return whether a response is so small that its pieces may be made at once."""
        ...
