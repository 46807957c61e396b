"""Translates items of an input into the messages of a conversation.

Neighbouring items of the assistant (reasoning, text, calls) become one message, as chat templates expect them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import ImageSink
from services.gateway.dialects.json_model import RequestModel, json_text, unread_paths, wrong_type
from services.gateway.dialects.openai_responses.item_kinds import SKIPPED_ITEMS, SYSTEM_TEXTS
from services.gateway.dialects.openai_responses.item_models import (
    AdditionalTools,
    CallOutputItem,
    CustomCallItem,
    FunctionCallItem,
    ImagePart,
    ItemReference,
    MessageItem,
    ReasoningItem,
    RefusalPart,
    TextPart,
    read_part,
)
from services.gateway.dialects.openai_responses.tool_names import INPUT, Tools, flat_name
from services.gateway.errors import ApiError, ErrorKind, bad_request
from services.gateway.quoting import shown
from services.runtime.messages.message import Message

_ROLES: Final = {
    "system": pb.ROLE_SYSTEM,
    "developer": pb.ROLE_SYSTEM,
    "user": pb.ROLE_USER,
    "assistant": pb.ROLE_ASSISTANT,
}
_DETAILS: Final = {
    None: pb.IMAGE_DETAIL_UNSPECIFIED,
    "auto": pb.IMAGE_DETAIL_AUTO,
    "low": pb.IMAGE_DETAIL_LOW,
    "high": pb.IMAGE_DETAIL_HIGH,
    "original": pb.IMAGE_DETAIL_HIGH,
}
KNOWN: Final = (
    "message, reasoning, function_call, function_call_output, custom_tool_call, custom_tool_call_output, item_reference"
)

MAX_REFERENCES: Final = 256
"""The most items of one input that refer to stored ones."""


@dataclass(frozen=True, slots=True)
class Recalled:
    """The items that a request continues, and those that it refers to."""

    history: Sequence[dict[str, Any]] = ()
    """The items of the previous response: its input and its output."""
    references: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    """Stored items by id."""
    reasoning: Mapping[str, str] = field(default_factory=dict)
    """Texts of the reasoning by their sealed tokens. A token that could not be opened is absent."""


@dataclass(slots=True)
class Conversation:
    """Messages that are made of items, with the paths of what they are made of."""

    generate: pb.GenerateRequest
    images: ImageSink
    tools: Tools
    recalled: Recalled | None
    """None while it is not known what was stored: references and sealed reasoning are then left out."""
    items: list[dict[str, Any]] = field(default_factory=list)
    """The items of the whole input, with those that were recalled."""
    paths: list[str] = field(default_factory=list)
    """The path of each message."""
    parts: list[list[str]] = field(default_factory=list)
    """The paths of the parts of each message's content."""
    calls: list[list[str]] = field(default_factory=list)
    """The paths of the calls of each message."""
    ignored: list[str] = field(default_factory=list)
    wanted: dict[str, None] = field(default_factory=dict)
    """The ids of items that the input refers to."""
    sealed: list[str] = field(default_factory=list)
    """The sealed tokens in the input."""
    _names: dict[str, str] = field(default_factory=dict)
    """The names of called functions by the ids of the calls."""
    _instructions: defaultdict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The texts of each system message, by its index. `join` joins them, once."""
    _reasonings: defaultdict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The texts of each message's reasoning, by its index, like the above."""

    def instruct(self, text: str) -> None:
        """Begin with a system message."""
        self._text(self._add(pb.ROLE_SYSTEM, "instructions"), text, "instructions")

    def recall(self) -> None:
        """Add the items of the previous response."""
        if self.recalled is not None:
            for item in self.recalled.history:
                self._add_item(item, "previous_response_id")

    def add_all(self, given: str | list[dict[str, Any]] | None) -> None:
        """Add the request's own input. Raises ApiError (400, 404)."""
        if isinstance(given, str):
            self._add_item({"type": "message", "role": "user", "content": given}, "input")
        else:
            for index, item in enumerate(given or ()):
                self._add_item(item, f"input[{index}]")

    def refers(self, previous_response_id: str | None) -> bool:
        """Return whether the input refers to what the gateway has stored or sealed."""
        return previous_response_id is not None or bool(self.wanted or self.sealed)

    def join(self) -> None:
        """Set the texts that several items make together, once all items were added."""
        for index, texts in self._instructions.items():
            self.generate.messages[index].content[0].text = "".join(texts)
        for index, texts in self._reasonings.items():
            self.generate.messages[index].reasoning_content = "".join(texts)

    def _add_item(self, item: dict[str, Any], path: str) -> None:
        kind = item.get("type")
        if kind is None and "role" in item:
            item = {**item, "type": (kind := "message")}
        if not isinstance(kind, str):
            raise bad_request(Message("not_one_of", field=f"{path}.type", value=shown(kind), choices=KNOWN))
        if kind == "item_reference":
            self._refer(read_part(ItemReference, item, path).id, path)
            return
        if isinstance(kind, str) and kind in SKIPPED_ITEMS:
            self.ignored.append(path)
            return
        self.items.append(item)
        match kind:
            case "message":
                self._message(self._read(MessageItem, item, path), path)
            case "reasoning":
                self._reasoning(self._read(ReasoningItem, item, path), path)
            case "function_call":
                call = self._read(FunctionCallItem, item, path)
                self._call(call.call_id, flat_name(call.namespace, call.name), call.arguments, path)
            case "custom_tool_call":
                custom = self._read(CustomCallItem, item, path)
                arguments = json_text(f"{path}.input", {INPUT: custom.input})
                self._call(custom.call_id, flat_name(custom.namespace, custom.name), arguments, path)
            case "function_call_output" | "custom_tool_call_output":
                self._output(self._read(CallOutputItem, item, path), path)
            case "additional_tools":
                self.tools.add_all(self._read(AdditionalTools, item, path).tools, f"{path}.tools")
            case _:
                raise bad_request(Message("not_one_of", field=f"{path}.type", value=shown(kind), choices=KNOWN))

    def _read(self, model: type[Any], item: dict[str, Any], path: str) -> Any:
        read: RequestModel = read_part(model, item, path)
        self.ignored += [f"{path}.{name}" for name in unread_paths(read, item)]
        return read

    def _refer(self, item_id: str, path: str) -> None:
        if item_id in self.wanted:
            raise bad_request(Message("item_reference_repeated", field=f"{path}.id", value=shown(item_id)))
        if len(self.wanted) == MAX_REFERENCES:
            raise bad_request(Message("too_many_item_references", field=path, limit=MAX_REFERENCES))
        self.wanted[item_id] = None
        if self.recalled is None:
            return
        item = self.recalled.references.get(item_id)
        if item is None:
            raise ApiError(
                404,
                ErrorKind.NOT_FOUND,
                Message("item_not_found", field=f"{path}.id", value=shown(item_id)),
                code="item_not_found",
            )
        self._add_item(item, path)

    def _message(self, item: MessageItem, path: str) -> None:
        role = _ROLES[item.role]
        last = self.generate.messages[-1] if self.generate.messages else None
        is_open = last is not None and last.role == role == pb.ROLE_ASSISTANT and not last.content
        if role == pb.ROLE_SYSTEM and len(self.generate.messages) == 1 and last is not None and last.role == role:
            # Some templates allow one system message, at the beginning.
            self._text(last, "\n\n" + "".join(_texts(item, path)), path)
            return
        message = last if last is not None and is_open and not last.tool_calls else self._add(role, path)
        if isinstance(item.content, str):
            self._text(message, item.content, f"{path}.content")
            return
        if role == pb.ROLE_SYSTEM:
            self._text(message, "".join(_texts(item, path)), f"{path}.content")
            return
        self._content(message, item.content, f"{path}.content")

    def _content(self, message: pb.Message, parts: list[dict[str, Any]], path: str) -> None:
        for index, part in enumerate(parts):
            where = f"{path}[{index}]"
            match part.get("type"):
                case "input_text" | "output_text" | "text" | "summary_text" | "reasoning_text":
                    self._text(message, read_part(TextPart, part, where).text, where)
                case "refusal":
                    self._text(message, read_part(RefusalPart, part, where).refusal, where)
                case "input_image":
                    self._image(message, read_part(ImagePart, part, where), where)
                case kind:
                    choices = "input_text, input_image, output_text, refusal"
                    raise bad_request(Message("not_one_of", field=f"{where}.type", value=shown(kind), choices=choices))

    def _image(self, message: pb.Message, part: ImagePart, path: str) -> None:
        if part.image_url is None:
            raise bad_request(Message("field_missing", field=f"{path}.image_url", expected="string"))
        self.parts[-1].append(path)
        image = message.content.add(image=pb.Image(detail=_DETAILS[part.detail])).image
        self.images.add(image, url=part.image_url, path=f"{path}.image_url", part=path)

    def _reasoning(self, item: ReasoningItem, path: str) -> None:
        text = "".join(part.text for part in item.content or item.summary or ())
        if item.encrypted_content:
            self.sealed.append(item.encrypted_content)
            if self.recalled is not None:
                opened = self.recalled.reasoning.get(item.encrypted_content)
                if opened is None:
                    self.ignored.append(f"{path}.encrypted_content")
                text = opened or text
        if not text:
            return
        last = self.generate.messages[-1] if self.generate.messages else None
        is_open = last is not None and last.role == pb.ROLE_ASSISTANT and not last.content and not last.tool_calls
        if not is_open:
            self._add(pb.ROLE_ASSISTANT, path)
        self._reasonings[len(self.generate.messages) - 1].append(text)

    def _call(self, call_id: str, name: str, arguments: str, path: str) -> None:
        self._names[call_id] = name
        last = self.generate.messages[-1] if self.generate.messages else None
        is_open = last is not None and last.role == pb.ROLE_ASSISTANT
        message = last if last is not None and is_open else self._add(pb.ROLE_ASSISTANT, path)
        message.tool_calls.add(id=call_id, name=name, arguments_json=arguments)
        self.calls[-1].append(path)

    def _output(self, item: CallOutputItem, path: str) -> None:
        message = self._add(pb.ROLE_TOOL, path)
        message.tool_call_id, message.name = item.call_id, self._names.get(item.call_id, "")
        if isinstance(item.output, str):
            self._text(message, item.output, f"{path}.output")
        else:
            self._content(message, item.output, f"{path}.output")
        if not message.content:
            self._text(message, "", f"{path}.output")

    def _add(self, role: pb.Role.ValueType, path: str) -> pb.Message:
        self.paths.append(path)
        self.parts.append([])
        self.calls.append([])
        return self.generate.messages.add(role=role)

    def _text(self, message: pb.Message, text: str, path: str) -> None:
        if message.role == pb.ROLE_SYSTEM:
            # A system message gets its texts while it is the last one.
            texts = self._instructions[len(self.generate.messages) - 1]
            texts.append(text)
            if len(texts) > 1:
                return
            text = ""
        message.content.add(text=text)
        self.parts[-1].append(path)


def _texts(item: MessageItem, path: str) -> list[str]:
    """Return the texts of a system message. Raises ApiError (400) for other parts."""
    if isinstance(item.content, str):
        return [item.content]
    texts = []
    for index, part in enumerate(item.content):
        where = f"{path}.content[{index}]"
        if part.get("type") not in SYSTEM_TEXTS:
            raise wrong_type(where, "input_text", part)
        texts.append(read_part(TextPart, part, where).text)
    return texts
