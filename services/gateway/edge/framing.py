"""Rejects requests whose headers are ambiguous about where the body ends or which host is meant.

A proxy in front may interpret an ambiguous head differently than this server: then one client's bytes would become
another client's request. See RFC 9112, sections 3.2 and 6, and RFC 9110, sections 7.2 and 10.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from services.runtime.messages.message import Message
from services.runtime.telemetry import without_keys

_HOST: Final = re.compile(rb"(?:\[[0-9A-Za-z:.%_~-]+\]|[0-9A-Za-z._~!$&'()*+;=%-]*)(?::[0-9]*)?")
_SHOWN: Final = 64
_SINGLE: Final = (b"authorization",)
"""Fields that identify the caller, so that a second one is ambiguous."""


class FramingError(NamedTuple):
    """The status and the message with which a request is rejected."""

    status: int
    message: Message


def framing_error(version: str, headers: Sequence[tuple[bytes, bytes]]) -> FramingError | None:
    """Return why a request with this HTTP version and these headers is rejected, or None if it is valid.

    The names of the headers are in lower case.
    """
    names = [name for name, _ in headers]
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        return FramingError(400, Message("host_not_single", count=len(hosts)))
    if hosts and not _HOST.fullmatch(hosts[0]):
        return FramingError(400, Message("host_not_valid", value=_shown(hosts[0])))
    for single in _SINGLE:
        if names.count(single) > 1:
            return FramingError(400, Message("header_repeated", name=single.decode().capitalize()))
    return _of_transfer_coding(version, headers) or _of_expectation(version, headers)


def _of_transfer_coding(version: str, headers: Sequence[tuple[bytes, bytes]]) -> FramingError | None:
    values = [value for name, value in headers if name == b"transfer-encoding"]
    if not values:
        return None
    if version != "1.1":
        return FramingError(400, Message("transfer_encoding_unknown", version=version))
    codings = [coding.strip(b" \t").lower() for coding in b",".join(values).split(b",")]
    if codings == [b"chunked"]:
        return None
    if codings[-1] != b"chunked" or codings.count(b"chunked") > 1:
        return FramingError(400, Message("transfer_encoding_not_chunked"))
    return FramingError(501, Message("transfer_coding_not_supported", value=_shown(codings[0])))


def _of_expectation(version: str, headers: Sequence[tuple[bytes, bytes]]) -> FramingError | None:
    for name, value in headers:
        if version == "1.1" and name == b"expect" and value.strip(b" \t").lower() != b"100-continue":
            return FramingError(417, Message("expectation_not_supported", value=_shown(value)))
    return None


def _shown(value: bytes) -> str:
    """Return the beginning of a field's value, for a message."""
    # Keys are removed before the value is cut, because a part of a key would not be recognised as one.
    return repr(without_keys(value.decode("latin-1"))[:_SHOWN])
