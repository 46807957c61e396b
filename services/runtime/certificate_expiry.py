"""Reads when certificates expire, without a library that parses certificates: workers have none."""

from __future__ import annotations

import re
import ssl
from datetime import UTC, datetime
from typing import Final

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
"""The tag of a time whose year has two digits: 50 to 99 are of the 20th century (RFC 5280, 4.1.2.5.1)."""


def earliest_expiry(pem: bytes) -> float:
    """Return when the first of the certificates in `pem` expires, in seconds since 1970.

    Raises ValueError if there is none, or one cannot be read.
    """
    try:
        return min(_expiry(ssl.PEM_cert_to_DER_cert(match.group().decode())) for match in _CERTIFICATE.finditer(pem))
    except IndexError:
        raise ValueError("a certificate is cut off") from None


def _expiry(der: bytes) -> float:
    """Return the field notAfter of a certificate: RFC 5280, 4.1."""
    _, certificate, _ = _element(der)
    _, fields, _ = _element(certificate)
    tag, _, rest = _element(fields)
    # Version (optional), serial number, algorithm and issuer precede the validity.
    for _ in range(3 if tag == _VERSION else 2):
        _, _, rest = _element(rest)
    _, validity, _ = _element(rest)
    _, _, after = _element(validity)
    tag, text, _ = _element(after)
    time = text.decode("ascii")
    if tag == _UTC_TIME:
        time = ("20" if time < "50" else "19") + time
    return datetime.strptime(time, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Return the tag and the contents of the first element of DER, and what follows it."""
    tag, length, start = data[0], data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise IndexError
    return tag, data[start : start + length], data[start + length :]
