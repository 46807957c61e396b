"""Signatures of thinking: to whom they are bound, and how much text they carry."""

from __future__ import annotations

import zlib
from base64 import urlsafe_b64encode
from typing import Any, Final

import orjson
import pytest

from services.gateway.dialects.anthropic_messages import thinking
from services.gateway.dialects.anthropic_messages.call import MessagesCall
from services.gateway.dialects.anthropic_messages.content_model import MessageParam, TextBlock, ThinkingBlock
from services.gateway.dialects.anthropic_messages.conversation import Conversation
from services.gateway.dialects.anthropic_messages.dialect import AnthropicMessages
from services.gateway.dialects.anthropic_messages.thinking import MAX_THINKING_BYTES, ThinkingSignatures
from services.gateway.dialects.dialect import ReadOptions
from services.gateway.edge.body import LARGE_BYTES
from services.gateway.errors import ApiError
from services.gateway.images.limits import ImageLimits
from services.gateway.images.request_images import Images
from services.gateway.key_ring import KeyRing
from services.runtime.messages.message import Message

RING: Final = KeyRing()
MAX_BYTES: Final = 3 * MAX_THINKING_BYTES
SIGNATURES: Final = ThinkingSignatures(RING, max_bytes=MAX_BYTES)
DIALECT: Final = AnthropicMessages(SIGNATURES)
TENANT: Final = "a"


def read(*blocks: dict[str, Any], tenant: str = TENANT, strict: bool = False, model: str = "m") -> MessagesCall:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": list(blocks)}]
    options = ReadOptions(strict, Images(ImageLimits()), tenant)
    return DIALECT.read({"model": model, "max_tokens": 9, "messages": messages}, options)


def block(text: str, signature: str) -> dict[str, Any]:
    return {"type": "thinking", "thinking": text, "signature": signature}


def sealed(text: str, *, compression: int = 0) -> str:
    """Return a signature that carries any text, also one that is too long, or that compresses too well."""
    context = thinking.context_of(TENANT, "m")
    data = RING.seal(zlib.compress(text.encode(), compression), purpose=thinking.PURPOSE, context=context)
    return thinking.HIDDEN + urlsafe_b64encode(data).decode()


@pytest.mark.parametrize("is_hidden", [False, True])
def test_thinking_returns_only_to_its_tenant_and_model(is_hidden: bool) -> None:
    signature = SIGNATURES.write(TENANT, "m", "I think.", is_hidden=is_hidden)
    returned = block("" if is_hidden else "I think.", signature)

    def reasoning(**options: Any) -> str:
        return read(returned, **options).generate.messages[1].reasoning_content

    assert reasoning() == "I think."
    assert reasoning(tenant="b") == ""
    assert reasoning(model="n") == ""


def test_a_call_signs_for_the_tenant_who_made_it() -> None:
    assert read(tenant="b").tenant == "b"


def test_long_thinking_is_signed_and_not_sealed() -> None:
    longest = "x" * MAX_THINKING_BYTES
    for text in (longest, f"{longest}x"):
        shown = SIGNATURES.write(TENANT, "m", text, is_hidden=False)
        assert read(block(text, shown)).generate.messages[1].reasoning_content == text
    hidden = SIGNATURES.write(TENANT, "m", longest, is_hidden=True)
    assert read(block("", hidden)).generate.messages[1].reasoning_content == longest
    assert SIGNATURES.write(TENANT, "m", f"{longest}x", is_hidden=True) == ""


def test_a_signature_that_carries_too_much_is_left_out_and_reported() -> None:
    call = read(block("", sealed("x" * (MAX_THINKING_BYTES + 1))), block("", sealed("more")))
    assert call.generate.messages[1].reasoning_content == "more"
    assert call.reports(None)["x-ignored-params"] == "messages[1].content[0]"


def test_no_more_is_unpacked_than_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked: list[int] = []
    original = zlib.decompressobj

    class Counting:
        def decompress(self, data: bytes, most: int) -> bytes:
            text = original().decompress(data, most)
            unpacked.append(len(text))
            return text

    compressed, plain = (sealed("x" * (3 * MAX_THINKING_BYTES), compression=level) for level in (9, 0))
    # Signatures that are too long themselves are not even opened.
    monkeypatch.setattr(thinking, "_MAX_LENGTH", len(plain))
    monkeypatch.setattr(zlib, "decompressobj", Counting)
    read(block("", plain), block("", compressed))
    assert unpacked[0] == MAX_THINKING_BYTES + 1
    assert unpacked[1] <= thinking.MOST_RATIO * len(compressed)


def test_a_body_that_is_read_on_the_event_loop_carries_no_megabytes() -> None:
    text = "x" * MAX_THINKING_BYTES
    signature = SIGNATURES.write(TENANT, "m", text, is_hidden=True)
    assert len(signature) > MAX_THINKING_BYTES / thinking.MOST_RATIO
    assert read(block("", signature)).generate.messages[1].reasoning_content == text
    # The same text as it would be compressed without a bound, in far fewer bytes.
    small = block("", sealed(text, compression=9))
    blocks = [small] * (LARGE_BYTES // len(orjson.dumps(small)))
    assert len(blocks) > MAX_BYTES / MAX_THINKING_BYTES
    call = read(*blocks, block("", sealed("more")))
    assert call.generate.messages[1].reasoning_content == "more"
    assert call.reports(None)["x-ignored-params"].count("messages[1].content[") == len(blocks)


def test_the_signatures_of_a_request_carry_a_limited_amount() -> None:
    largest = sealed("x" * MAX_THINKING_BYTES)
    assert len(read(*[block("", largest)] * 3).generate.messages[1].reasoning_content) == MAX_BYTES
    with pytest.raises(ApiError) as rejection:
        read(*[block("", largest)] * 4)
    assert rejection.value.status == 400
    assert rejection.value.message == Message("thinking_too_large", field="messages[1].content[3]", limit=MAX_BYTES)


class CountingMessage:
    """A message that counts the characters of reasoning that it is given."""

    assigned = 0

    def __init__(self, role: int) -> None:
        self.role = role
        self.content = Items()
        self.reasoning_content = ""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "reasoning_content":
            CountingMessage.assigned += len(value)
        super().__setattr__(name, value)


class Part:
    def __init__(self, text: str) -> None:
        self.text = text


class Items(list[Any]):
    """A repeated field."""

    def add(self, **fields: Any) -> Any:
        self.append(CountingMessage(**fields) if "role" in fields else Part(**fields))
        return self[-1]


class Request:
    def __init__(self) -> None:
        self.messages = Items()
        self.continue_final_message = False


def test_blocks_of_thinking_are_copied_once() -> None:
    CountingMessage.assigned = 0
    number, request = 33_000, Request()
    written = ThinkingBlock(
        thinking="0123456789", signature=SIGNATURES.write(TENANT, "m", "0123456789", is_hidden=False)
    )
    generate: Any = request
    conversation = Conversation(generate, Images(ImageLimits()), SIGNATURES.reader(TENANT, "m"))
    for index in range(3):
        half = [written] * (number // 6)
        conversation.add(MessageParam(role="user", content="hi"), f"messages[{2 * index}]")
        blocks = [*half, TextBlock(text="a"), *half]
        conversation.add(MessageParam(role="assistant", content=[*blocks]), f"messages[{2 * index + 1}]")
    conversation.finish()
    assert request.messages[1].reasoning_content == "0123456789" * (number // 3)
    assert request.messages[5].reasoning_content == "0123456789" * (number // 3)
    assert CountingMessage.assigned == number * 10
