"""The bytes of responses of OpenAI's and Anthropic's API, made before they are needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench.tokens.source import WORDS

STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_END: Final = b"0\r\n\r\n"


@dataclass(frozen=True)
class Api:
    """The responses of one API. A stream has the parts `first`, one of `events` for each token, and `last`."""

    first: bytes
    events: Sequence[bytes]
    """One for each of WORDS."""
    last: bytes
    whole: Callable[[int], bytes]
    """Returns the response with a number of tokens that is no stream."""


def chunk(data: bytes) -> bytes:
    """Return a chunk of HTTP's chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def document(content: Any) -> bytes:
    """Return a response with a JSON document."""
    data = json.dumps(content).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(data), data)


def _text(tokens: int) -> str:
    return "".join(WORDS[number % len(WORDS)] for number in range(tokens))


def _openai() -> Api:
    """Return chat completions, as the gateway writes them."""
    prefix = (
        b'data: {"id":"chatcmpl-0123456789abcdef01234567","object":"chat.completion.chunk","created":1764400000,'
        b'"model":"source","choices":[{"index":0,"delta":{'
    )
    tail = b'},"logprobs":null,"finish_reason":null}]}\n\n'

    def whole(tokens: int) -> bytes:
        message = {"role": "assistant", "content": _text(tokens)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}
        usage = {"prompt_tokens": 5, "completion_tokens": tokens, "total_tokens": 5 + tokens}
        fields = {"id": "chatcmpl-0123456789abcdef01234567", "object": "chat.completion", "created": 1764400000}
        return document({**fields, "model": "source", "choices": [choice], "usage": usage})

    return Api(
        first=chunk(prefix + b'"role":"assistant","content":""' + tail),
        events=[chunk(prefix + b'"content":"' + word.encode() + b'"' + tail) for word in WORDS],
        last=chunk(prefix + b'},"logprobs":null,"finish_reason":"length"}]}\n\ndata: [DONE]\n\n') + _END,
        whole=whole,
    )


def _anthropic() -> Api:
    """Return messages."""
    message = {"id": "msg_0123456789abcdef01234567", "type": "message", "role": "assistant", "model": "source"}
    stop = {"stop_reason": None, "stop_sequence": None}

    def event(name: str, **fields: Any) -> bytes:
        data = json.dumps({"type": name, **fields}, separators=(",", ":"))
        return f"event: {name}\ndata: {data}\n\n".encode()

    def whole(tokens: int) -> bytes:
        content = [{"type": "text", "text": _text(tokens)}]
        usage = {"input_tokens": 5, "output_tokens": tokens}
        return document({**message, **stop, "stop_reason": "max_tokens", "content": content, "usage": usage})

    beginning: dict[str, Any] = {**message, **stop, "content": [], "usage": {"input_tokens": 5, "output_tokens": 0}}
    return Api(
        first=chunk(
            event("message_start", message=beginning)
            + event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        ),
        events=[
            chunk(event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})) for word in WORDS
        ],
        last=chunk(
            event("content_block_stop", index=0)
            + event("message_delta", delta={**stop, "stop_reason": "max_tokens"}, usage={"output_tokens": 500})
            + event("message_stop")
        )
        + _END,
        whole=whole,
    )


OPENAI: Final = _openai()
ANTHROPIC: Final = _anthropic()
