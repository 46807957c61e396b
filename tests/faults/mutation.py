"""Mutations of valid messages: of bytes, and of values in JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from random import Random
from typing import Any, Final

INTERESTING: Final = (
    b"\r\n", b"\n", b"\r\n\r\n", b"\0", b"\xff", b"\xed\xa0\x80", b"%00", b"%ff%fe", b"../", b" ", b"\t", b":", b";",
    b"Content-Length: 99999999999999999999\r\n", b"Content-Length: -1\r\n", b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked, chunked\r\n", b"Connection: Upgrade\r\n",
    b"Upgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"Content-Encoding: gzip\r\n", b"0\r\n\r\n", b"ffffffff\r\n",
    b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"Authorization: Bearer \xff\r\n",
    b"X-Request-Id: \x01\r\n", b"Host: \r\n", b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", b"\x7f\xff\xff\xff",
    b"[" * 300, b'{"a":' * 300, b"9" * 5000, b"1e400", b"-0", b"NaN", b"null", b"true", b'"\\ud800"',
)  # fmt: skip
_DEEP: Final = "stands for what Python itself could not write"
HOSTILE: Final[tuple[Callable[[], Any], ...]] = (
    lambda: None, lambda: True, lambda: False, lambda: 0, lambda: -1, lambda: 1, lambda: 2**31, lambda: 2**63,
    lambda: 2**64, lambda: -(2**63) - 1, lambda: 1e308, lambda: -1e-308, lambda: 1.5, lambda: "", lambda: "a",
    lambda: "\0", lambda: "9" * 5000, lambda: "١٢", lambda: "²", lambda: "<|im_end|>", lambda: "<think>",
    lambda: "٪s%s", lambda: "\u202e\u200f\u200d", lambda: "💥" * 100, lambda: "a" * 10_000, lambda: "{{ 7 * 7 }}",
    lambda: "data:,",
    lambda: "data:image/png;base64,AAAA", lambda: "http://127.0.0.1/", list, dict, lambda: [[]],
    lambda: [None], lambda: [{}], lambda: {"": ""}, lambda: {"type": "function"}, lambda: {"9" * 5000: 1},
    lambda: [1] * 2000, lambda: nested(100), lambda: nested(253), lambda: _DEEP, lambda: {"a": nested(90)},
    *(partial(float, number) for number in (
        "1e-40", "5e-324", "-5e-324", "-0.0", "1.1754943e-38", "3.4028235e38", "3.5e38", "-3.5e38",
        "1.7976931348623157e308",
        "1.0", "2.0", "20.0", "1e3", "1e22", "9007199254740993", "4294967296", "9223372036854775808",
        "0.9999999999", "2.0000001",
    )),
    *(partial(int, number) for number in (
        2**31 - 1, -(2**31), 2**32 - 1, 2**32, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1, 10**18, 10**400,
    )),
    *(partial(str, text) for text in (
        "\ud800", "\udfff\ud800", "a\udc00", "\ufdd0", "\uffff", "\U0010ffff", "\ufeff", "\u2028\u2029", "\x85",
        "\x7f", " ", "\0a\0", "e" + "\u0301" * 500, "\u1112\u1161\u11ab", "\u0627\u0653", "ﷺ", "ﬀ", "İ", "ſ", "K",
        "\u202e\u2066",
        "🏴\U000e0067", "</think>", "<tool_call>", "</tool_response>", "</s>", "＜/s＞", "<mask>", "]~b]~b]", "NaN",
        "1e-40", "-0", "1_0", "0x10",
    )),
    lambda: [""], lambda: [[], []], lambda: [-0.0], lambda: [1e-40], lambda: [2**63], lambda: [1.0], lambda: ["\ud800"],
    lambda: {"\0": 1}, lambda: {"\ud800": 1}, lambda: {"a": 1e-40}, lambda: {"1": 1e-40}, lambda: {"0": -0.0},
    lambda: {"-1": 1}, lambda: {"٣": 1}, lambda: {"type": []}, lambda: {"type": {"type": "text"}},
    lambda: {"$ref": "#"}, lambda: {"type": "object", "properties": {"a": {"$ref": "#"}}},
)  # fmt: skip


def nested(depth: int) -> Any:
    """Lists and objects inside one another."""
    value: Any = 1
    for level in range(depth):
        value = {"a": value} if level % 2 else [value]
    return value


def mutated(random: Random, message: bytes, others: Sequence[bytes] = ()) -> bytes:
    """Return `message` with one to four mutations, which may insert parts of `others`."""
    changed = bytearray(message)
    for _ in range(random.randint(1, 4)):
        _mutate(random, changed, others)
    return bytes(changed)


def _mutate(random: Random, data: bytearray, others: Sequence[bytes]) -> None:
    start = random.randrange(len(data) + 1)
    end = min(len(data), start + random.choice((1, 1, 2, 4, 16, 64, 1024)))
    match random.randrange(7):
        case 0:
            del data[start:]
        case 1:
            del data[start:end]
        case 2:
            data[start:start] = data[start:end]
        case 3:
            data[start:start] = random.choice(INTERESTING)
        case 4:
            data[start:end] = random.randbytes(end - start)
        case 5 if others:
            other = random.choice(others)
            data[start:end] = other[random.randrange(len(other) + 1) :]
        case _:
            if start < len(data):
                data[start] ^= 1 << random.randrange(8)


def with_hostile_value(random: Random, body: Any) -> bytes:
    """Return the JSON of `body` with one to three values or additional fields that do not belong there."""
    changed = json.loads(json.dumps(body))
    for _ in range(random.randint(1, 3)):
        holder, key = random.choice(_locations(changed))
        value = random.choice(HOSTILE)()
        if isinstance(holder, dict) and random.random() < 0.1:
            key = random.choice(
                ("unknown", "", "9" * 5000, "metadata", "chat_template_kwargs", "tools", "stop", "seed")
            )
        holder[key] = value
    return _written(changed)


def each_hostile_value(body: Any) -> Iterator[bytes]:
    """Yield the JSON of `body` with one value replaced by a hostile one, for each pair of them."""
    text = json.dumps(body)
    for number in range(len(_locations(body))):
        for make in HOSTILE:
            changed = json.loads(text)
            holder, key = _locations(changed)[number]
            holder[key] = make()
            yield _written(changed)


def _written(value: Any) -> bytes:
    # Python writes NaN and Infinity as such and lone surrogates as escapes, which are useful cases too.
    return json.dumps(value).encode().replace(f'"{_DEEP}"'.encode(), b"[" * 5000 + b"]" * 5000)


def _locations(value: Any) -> list[tuple[Any, Any]]:
    """Return each pair of an object or list and one of its keys or indices."""
    locations: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        for key in holder if isinstance(holder, dict) else range(len(holder)):
            locations.append((holder, key))
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])
    return locations or [({}, "")]
