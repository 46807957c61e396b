"""Translates the messages of a request into the worker's messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.anthropic_messages.call import Origin
from services.gateway.dialects.anthropic_messages.content_model import (
    Base64Source,
    Block,
    ContentSource,
    DocumentBlock,
    ImageBlock,
    MessageParam,
    PlainTextBlock,
    SearchResultBlock,
    TextBlock,
    TextSource,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
    UrlSource,
)
from services.gateway.dialects.anthropic_messages.thinking import SignatureReader
from services.gateway.dialects.dialect import ImageSink
from services.gateway.dialects.json_model import json_text
from services.gateway.errors import bad_request
from services.runtime.messages.message import Message

BILLING_HEADER: Final = "x-anthropic-billing-header:"
"""The beginning of a system block in which Claude Code reports its version. Older versions change it every turn."""
_ROLES: Final = {"user": pb.ROLE_USER, "assistant": pb.ROLE_ASSISTANT, "system": pb.ROLE_SYSTEM}
_ERROR: Final = "Error: "
_BEGINNING: Final = 32
"""Characters in which an error's text says itself that it is one."""


class Conversation:
    """Adds messages to the worker's request. Neighbours with one author are one message."""

    def __init__(self, generate: pb.GenerateRequest, images: ImageSink, signatures: SignatureReader) -> None:
        """Add to `generate`, and images to `images`. Thinking is added if `signatures` proves that it is genuine."""
        self.origins: Final[list[Origin]] = []
        """The origin of each message of `generate`."""
        self.omitted = ""
        """The path of a block that is not part of the prompt."""
        self.left_out: Final[list[str]] = []
        """The paths of thinking that is too long."""
        self._generate: Final = generate
        self._images: Final = images
        self._signatures: Final = signatures
        self._thinking: list[str] = []
        """The thinking of the last message. It is joined once, because to extend a field copies it."""

    def add_system(self, system: str | Sequence[PlainTextBlock] | None) -> None:
        """Add the system prompt, without a first block that only reports the client's version."""
        if isinstance(system, str):
            self._begin(pb.ROLE_SYSTEM, "system").content.add(text=system)
            return
        for index, block in enumerate(system or ()):
            if index == 0 and block.text.startswith(BILLING_HEADER):
                self.omitted = "system[0]"
            elif block.text:
                _add_text(self._message(pb.ROLE_SYSTEM, "system"), block.text)

    def add(self, message: MessageParam, path: str) -> None:
        """Add one message of the request. Raises ApiError (400)."""
        role = _ROLES[message.role]
        if isinstance(message.content, str):
            _add_text(self._message(role, path), message.content)
            return
        for index, block in enumerate(message.content):
            self._add_block(block, role, path, f"{path}.content[{index}]")

    def finish(self) -> None:
        """Complete the last message, and have it continued if it is the assistant's."""
        self._join_thinking()
        messages = self._generate.messages
        if messages and messages[-1].role == pb.ROLE_ASSISTANT:
            self._generate.continue_final_message = True

    def _add_block(self, block: Block, role: pb.Role.ValueType, message_path: str, path: str) -> None:
        match block:
            case ToolResultBlock():
                self._expect(role, pb.ROLE_USER, path)
                self._add_result(block, path)
            case ToolUseBlock():
                self._expect(role, pb.ROLE_ASSISTANT, path)
                arguments = json_text(f"{path}.input", block.input)
                self._message(role, message_path).tool_calls.add(id=block.id, name=block.name, arguments_json=arguments)
            case ThinkingBlock():
                self._expect(role, pb.ROLE_ASSISTANT, path)
                self._add_thinking(block, message_path, path)
            case TextBlock(text=""):
                pass
            case TextBlock() | ImageBlock() | DocumentBlock() | SearchResultBlock():
                self._add_part(block, self._message(role, message_path), path)

    def _add_thinking(self, block: ThinkingBlock, message_path: str, path: str) -> None:
        self._message(pb.ROLE_ASSISTANT, message_path)
        thinking = self._signatures.read(block.thinking, block.signature or "", field=path)
        if thinking is None:
            self.left_out.append(path)
        elif thinking:
            self._thinking.append(thinking)

    def _join_thinking(self) -> None:
        if self._thinking:
            self._generate.messages[-1].reasoning_content = "".join(self._thinking)
            self._thinking = []

    def _expect(self, role: pb.Role.ValueType, expected: pb.Role.ValueType, path: str) -> None:
        if role != expected:
            author = next(name for name, value in _ROLES.items() if value == expected)
            raise bad_request(Message("block_in_wrong_message", field=path, author=author))

    def _add_result(self, block: ToolResultBlock, path: str) -> None:
        """Add the result of a tool as a message of its own."""
        message = self._begin(pb.ROLE_TOOL, path)
        message.tool_call_id = block.tool_use_id
        if isinstance(block.content, str):
            message.content.add(text=block.content)
        for index, part in enumerate(block.content if isinstance(block.content, list) else ()):
            self._add_part(part, message, f"{path}.content[{index}]")
        if not message.content:
            message.content.add(text="")
        if block.is_error:
            _mark_error(message)

    def _add_part(self, block: Any, message: pb.Message, path: str) -> None:
        match block:
            case TextBlock(text=text):
                _add_text(message, text)
            case ImageBlock():
                self._add_image(block, message, path)
            case DocumentBlock():
                self._add_document(block, message, path)
            case SearchResultBlock():
                lines = [block.title, block.source, *(part.text for part in block.content)]
                _add_text(message, "\n".join(lines))

    def _add_image(self, block: ImageBlock, message: pb.Message, path: str) -> None:
        source = f"{path}.source"
        match block.source:
            case Base64Source(data=data):
                url, field = f"data:;base64,{data}", f"{source}.data"
            case UrlSource(url=url):
                field = f"{source}.url"
                if not url[:6].lower().startswith("https:"):
                    raise bad_request(Message("image_url_not_https", field=field))
        self.origins[-1].images[len(message.content)] = path
        self._images.add(message.content.add(image=pb.Image()).image, url=url, path=field, part=path)

    def _add_document(self, block: DocumentBlock, message: pb.Message, path: str) -> None:
        head = "\n".join(text for text in (block.title, block.context) if text)
        if head:
            _add_text(message, head)
        match block.source:
            case TextSource(data=text):
                _add_text(message, text)
            case ContentSource(content=str(text)):
                _add_text(message, text)
            case ContentSource(content=parts):
                for index, part in enumerate(parts):
                    self._add_part(part, message, f"{path}.source.content[{index}]")

    def _message(self, role: pb.Role.ValueType, path: str) -> pb.Message:
        """Return the message to add to: the last one if it has the same author, or else a new one."""
        messages = self._generate.messages
        if messages and messages[-1].role == role and role != pb.ROLE_TOOL:
            return messages[-1]
        return self._begin(role, path)

    def _begin(self, role: pb.Role.ValueType, path: str) -> pb.Message:
        self._join_thinking()
        self.origins.append(Origin(path, {}))
        return self._generate.messages.add(role=role)


def _add_text(message: pb.Message, text: str) -> None:
    """Add a text, as a paragraph of its own unless the model wrote it: prompts have no other mark between blocks."""
    before = message.content[-1].text if message.content else ""
    if before and message.role != pb.ROLE_ASSISTANT and not before.endswith("\n"):
        text = f"\n\n{text}"
    message.content.add(text=text)


def _mark_error(message: pb.Message) -> None:
    """Have the text of a failed tool say that it has failed, because prompts have no other mark for it."""
    first = message.content[0]
    if not first.HasField("text"):
        message.content.insert(0, pb.ContentPart(text=_ERROR))
    elif "error" not in first.text[:_BEGINNING].lower():
        first.text = _ERROR + first.text
