"""Checks the environment variables of OpenTelemetry's exporters, which log a wrong one, secrets included, or raise."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_COMPRESSIONS: Final = {"grpc": ("gzip",), "http/protobuf": ("none", "gzip", "deflate")}
"""The protocols, and what the SDK's exporter for each accepts."""
_PREFIXES: Final = ("OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_")
_FILES: Final = ("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE")
# As the SDK reads it: opentelemetry.util.re.
_HEADER: Final = re.compile(r"[!#-'*+\-.0-9A-Z^-z|~]+[ \t]*=[ \t]*[ !#-+\--:<-\[\]-~]*")
_QUEUE: Final = "OTEL_BSP_MAX_QUEUE_SIZE"
_BATCH: Final = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"
_DEFAULT_QUEUE: Final = "2048"
_DEFAULT_BATCH: Final = "512"
_COUNTS: Final = (_QUEUE, _BATCH, "OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT")


def check(environment: Mapping[str, str]) -> str:
    """Check all variables, and return the protocol. Raises ValueError, which names one, without secrets."""
    protocol = _protocol(environment)
    for name, text in _set(environment, "ENDPOINT"):
        if not _is_url(text):
            raise ValueError(f"{name} must be a URL; its value, which may have a password, is not shown")
    for name, text in _set(environment, "HEADERS"):
        if not all(_HEADER.fullmatch(part.strip()) for part in text.split(",") if part.strip()):
            raise ValueError(f"{name} must be a list of NAME=VALUE, separated by commas; its value is not shown")
    for name, text in _set(environment, "COMPRESSION"):
        if text.lower().strip() not in _COMPRESSIONS[protocol]:
            raise ValueError(f"{name}={text!r} must be {' or '.join(_COMPRESSIONS[protocol])} with {protocol}")
    for suffix in _FILES:
        for name, text in _set(environment, suffix):
            _check_file(name, text)
    for name, text in _set(environment, "TIMEOUT"):
        if not 0 < _number(text) < math.inf:
            raise ValueError(f"{name}={text!r} must be a number of seconds above 0")
    _check_queue(environment)
    return protocol


def _check_queue(environment: Mapping[str, str]) -> None:
    for name in _COUNTS:
        text = environment.get(name, "1")
        if not (text.isascii() and text.isdecimal() and int(text) > 0):
            raise ValueError(f"{name}={text!r} must be a whole number above 0")
    queue, batch = environment.get(_QUEUE, _DEFAULT_QUEUE), environment.get(_BATCH, _DEFAULT_BATCH)
    if int(batch) > int(queue):
        raise ValueError(f"{_BATCH}={batch} must be at most {_QUEUE}={queue}")


def _protocol(environment: Mapping[str, str]) -> str:
    name = next((name for name in _PROTOCOLS if environment.get(name)), None)
    protocol = environment[name] if name is not None else "grpc"
    if protocol not in _COMPRESSIONS:
        raise ValueError(f"{name}={protocol!r} must be grpc or http/protobuf")
    return protocol


def _set(environment: Mapping[str, str], suffix: str) -> Iterator[tuple[str, str]]:
    for name in (prefix + suffix for prefix in _PREFIXES):
        if name in environment:
            yield name, environment[name]


def _is_url(text: str) -> bool:
    try:
        # Reading the port checks it.
        return urlsplit(text).port != 0
    except ValueError:
        return False


def _check_file(name: str, path: str) -> None:
    try:
        if path:
            Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{name}={path!r} cannot be read: {error.strerror}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
