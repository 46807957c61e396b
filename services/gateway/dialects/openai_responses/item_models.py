"""The items of an input, their parts, and tools. Each is read by itself, because clients send types of many kinds."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from services.gateway.dialects.json_model import HIDDEN, RequestModel, read_model
from services.gateway.errors import ApiError

M = TypeVar("M", bound=RequestModel)
Unused = Annotated[Any, HIDDEN]


class TextPart(RequestModel):
    """Text of a message: `input_text`, `output_text` or `text`."""

    text: str
    type: str = "input_text"
    annotations: Unused = None
    logprobs: Unused = None


class RefusalPart(RequestModel):
    """A refusal of the model."""

    refusal: str
    type: str = "refusal"


class ImagePart(RequestModel):
    """An image."""

    image_url: str | None = None
    detail: Literal["auto", "low", "high", "original"] | None = None
    type: str = "input_image"


class MessageItem(RequestModel):
    """A message."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[dict[str, Any]]
    type: str = "message"
    id: Unused = None
    status: Unused = None
    phase: Unused = None


class ReasoningPart(RequestModel):
    """A part of the reasoning, or of its summary."""

    text: str
    type: str | None = None


class ReasoningItem(RequestModel):
    """The reasoning before an answer."""

    type: str
    summary: list[ReasoningPart] | None = None
    content: list[ReasoningPart] | None = None
    encrypted_content: str | None = None
    id: Unused = None
    status: Unused = None


class FunctionCallItem(RequestModel):
    """A call of a function."""

    call_id: str
    name: str
    arguments: str
    type: str
    namespace: str | None = None
    id: Unused = None
    status: Unused = None


class CustomCallItem(RequestModel):
    """A call of a custom tool."""

    call_id: str
    name: str
    input: str
    type: str
    namespace: str | None = None
    id: Unused = None
    status: Unused = None


class CallOutputItem(RequestModel):
    """The result of a call."""

    call_id: str
    output: str | list[dict[str, Any]]
    type: str
    id: Unused = None
    status: Unused = None


class ItemReference(RequestModel):
    """A stored item, by its id."""

    id: str
    type: str = "item_reference"


class AdditionalTools(RequestModel):
    """Tools that a client adds in the course of a conversation."""

    tools: list[dict[str, Any]]
    type: str
    role: Unused = None
    id: Unused = None


class FunctionTool(RequestModel):
    """A function."""

    name: str
    type: str = "function"
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: Unused = None


class ToolFormat(RequestModel):
    """The format of a custom tool's input."""

    type: Literal["text", "grammar"]
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None


class CustomTool(RequestModel):
    """A tool whose input is text."""

    name: str
    type: str = "custom"
    description: str | None = None
    format: ToolFormat | None = None
    defer_loading: Unused = None


class NamespaceTool(RequestModel):
    """Tools under a common name."""

    name: str
    tools: list[dict[str, Any]]
    type: str = "namespace"
    description: Unused = None


class NamedTool(RequestModel):
    """A tool of `tool_choice`."""

    type: str
    name: str | None = None
    namespace: str | None = None


class AllowedTools(RequestModel):
    """The tools that may be called, of those that are offered."""

    type: str
    mode: Literal["auto", "required"]
    tools: list[dict[str, Any]]


def read_part(model: type[M], value: Any, path: str) -> M:
    """Return a part of a body as an instance of its model. Raises ApiError (400) with paths that begin with `path`."""
    try:
        return read_model(model, value)
    except ApiError as error:
        error.message = error.message.with_fields(lambda field: f"{path}.{field}" if field else path)
        error.field = error.message.field
        raise
