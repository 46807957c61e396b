"""The interface of dialects. A dialect is the format of one endpoint that generates, embeds or renders a prompt.

A dialect reads a key and a body into a neutral call, encodes the events of a worker as a stream or as one document, and
renders errors and limits. Its call knows the API's names of the worker's fields. The pipeline, limits and routing
depend on no API. Only the paths in app.py and the list of operations in openapi.py name the dialects. What belongs to
no dialect (GET endpoints, unknown paths, errors of the server itself) has OpenAI's format, except where
services.gateway.edge.error_format finds that the request belongs to Anthropic's API, and the middleware Access
sends `openai-processing-ms` with every response.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from vilix.embeddings.v1 import embeddings_service_pb2 as embeddings_pb
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.credential import Credential
from services.gateway.dialects.collector import ResponseCollector
from services.gateway.dialects.ignored_fields import ignored_header
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
    """The identity of a response."""

    id: str
    created: int
    """Seconds since 1970."""
    request_id: str
    fingerprint: str
    """It changes with the weights, the engine or the version that answer."""


class ImageSink(Protocol):
    """Takes the images of a request while its body is read."""

    def add(self, image: pb.Image, *, url: str, path: str, part: str) -> None:
        """Take the image at `url`, and fill `image` with it now or before the worker is called.

        Args:
            image: The message to fill.
            url: A `data:` or `https:` URL.
            path: The path of the field that holds the URL.
            part: The path of the content part that the image belongs to.

        Raises:
            ApiError: The URL or the image is not valid (400).
        """
        ...


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """The options of reading a body."""

    strict: bool
    """Whether fields that would have no effect are rejected, instead of being reported."""
    images: ImageSink
    tenant: str = ""
    """The pseudonym of the key's owner, to whom what the gateway has signed is bound."""


@dataclass(frozen=True, kw_only=True)
class GenerateCall:
    """A request for a generation, independent of the API. A dialect adds the fields that its responses need."""

    generate: pb.GenerateRequest
    stream: bool = False
    """Whether the generation is sent while it runs."""
    ignored: Sequence[str] = ()
    """The names of fields of the body that are not part of the API."""
    dry_run: bool = False
    """Whether only the rendered prompt is requested."""
    affinity_key: str = ""
    """The caller's name of a series of requests that probably begin with the same text, for routing policies."""

    def field_name(self, field: str) -> str:
        """Return the caller's name for the path of a worker's field, or an empty string if the API has none."""
        return field

    def all_ignored(self, of_worker: Iterable[str]) -> list[str]:
        """Return the caller's names of all fields that have no effect. The worker ignores those in `of_worker`."""
        return [*self.ignored, *map(self.field_name, of_worker)]

    def reports(self, started: pb.Started | None) -> dict[str, str]:
        """Return headers about what a response leaves out. `started` is None before the worker has sent it."""
        return ignored_header(self.all_ignored(started.ignored_parameters if started is not None else ()))

    @property
    def choices(self) -> int:
        """The number of choices to generate, of all prompts."""
        return max(1, self.generate.n) * (1 + len(self.generate.further_prompts))


C = TypeVar("C", bound=GenerateCall)


def without_prompt(call: C) -> C:
    """Return a call with only the fields that encoding a response needs, without its prompt, which may be large."""
    generate = pb.GenerateRequest(model=call.generate.model, n=call.choices)
    if call.generate.HasField("logprobs"):
        generate.logprobs.CopyFrom(call.generate.logprobs)
    # As `dataclasses.replace` would do, which takes several times as many calls.
    slim = object.__new__(type(call))
    vars(slim).update(vars(call), generate=generate)
    return slim


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """The prompt that a worker rendered for a call."""

    response: pb.RenderPromptResponse
    worker: str
    """The worker's address."""
    ignored: Sequence[str]
    """The API's names of all fields that have no effect."""


class StreamEncoder(Protocol):
    """Encodes one generation as Server-Sent Events. Each method returns complete events, or no bytes."""

    def encode(self, events: Iterable[pb.Event]) -> bytes:
        """Return the API's events for a group of worker events, joined, because they are sent together."""
        ...

    def note(self, budget: SpentBudget) -> None:
        """Name the budget that ended the generation in all later events."""
        ...

    def end(self) -> bytes:
        """Return the bytes that follow the last event of a complete generation."""
        ...

    def error(self, error: ApiError) -> bytes:
        """Return the events that end a failed stream. Nothing may follow them."""
        ...

    def keep_alive(self) -> bytes:
        """Return the bytes that are sent after a time of silence."""
        ...

    def queued(self, position: int) -> bytes:
        """Return the bytes that report the position in the queue. The request that is next has position 1."""
        ...


@dataclass(frozen=True, slots=True)
class TextFrames:
    """The bytes around the text of a delta. The text as JSON, joined by them, is the API's event for it."""

    content: Sequence[bytes]
    reasoning: Sequence[bytes]


class PlainTextEncoder(ABC):
    """Base of the StreamEncoders whose events for text differ only in their text, so that each token costs less."""

    @abstractmethod
    def text_frames(self) -> TextFrames | None:
        """Return the frames for deltas of the choice 0 without log probabilities, or None if the events differ."""


class Dialect(Protocol):
    """The part of an API that all endpoints need."""

    def credential(self, headers: Mapping[str, str]) -> Credential:
        """Return the key that a request carries, and the header in which the API expects it."""
        ...

    def error(self, error: ApiError, *, request_id: str) -> ErrorReply:
        """Render an error as a response, in the caller's language."""
        ...

    def response_headers(self, limits: RateLimits, *, request_id: str) -> dict[str, str]:
        """Return the API's response headers, such as the state of limits."""
        ...


class PromptDialect(Dialect, Protocol[C]):
    """An API that returns rendered prompts."""

    def read(self, body: Any, options: ReadOptions) -> C:
        """Read a parsed body. Raises ApiError (400) that names the field, its value and what is allowed."""
        ...

    def prompt(self, call: C, prompt: RenderedPrompt) -> bytes:
        """Return a rendered prompt as a JSON document."""
        ...


class GenerationDialect(PromptDialect[C], Protocol[C]):
    """An API that generates text."""

    @property
    def id_prefix(self) -> str:
        """The beginning of the ids of its responses, with its separator."""
        ...

    def encoder(self, call: C, head: ResponseHead) -> StreamEncoder:
        """Return the encoder of one stream. `call` has no prompt."""
        ...

    def response(self, call: C, head: ResponseHead, collected: ResponseCollector) -> bytes:
        """Return a complete generation as a JSON document. `call` has no prompt."""
        ...


@dataclass(frozen=True, kw_only=True)
class EmbedCall:
    """A request for embeddings, independent of the API."""

    embed: embeddings_pb.EmbedRequest
    ignored: Sequence[str] = ()
    """The names of fields of the body that have no effect."""

    def field_name(self, field: str) -> str:
        """Return the caller's name for the path of a worker's field."""
        return field


E = TypeVar("E", bound=EmbedCall)


class EmbeddingDialect(Dialect, Protocol[E]):
    """An API that turns texts into vectors."""

    def read(self, body: Any, *, strict: bool) -> E:
        """Read a parsed body. `strict` rejects fields that would have no effect.

        Raises ApiError (400) that names the field, its value and what is allowed.
        """
        ...

    def segments(self, call: E, response: embeddings_pb.EmbedResponse) -> Iterator[bytes]:
        """Yield the JSON document of a response in segments that take about a millisecond each to encode."""
        ...

    def is_small(self, response: embeddings_pb.EmbedResponse) -> bool:
        """Return whether a response is small enough to be encoded without a pause."""
        ...
