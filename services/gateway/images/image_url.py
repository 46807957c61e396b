"""Checks the URLs of images: they must be https, on hosts that the operator has listed."""

from __future__ import annotations

from typing import Final
from urllib.parse import SplitResult, urlsplit

from services.gateway.errors import bad_request
from services.gateway.quoting import shown
from services.runtime.messages.message import Message

HTTPS_PORT: Final = 443
MAX_LENGTH: Final = 4096


def check_url(path: str, url: str, hosts: frozenset[str]) -> SplitResult:
    """Return the parts of a URL from which an image may be fetched. Raises ApiError (400) for any other.

    Args:
        path: The path of the field, for messages.
        url: The URL.
        hosts: The listed hosts, as HOST or HOST:PORT.
    """
    if not hosts:
        raise bad_request(Message("images_not_fetched", field=path))
    if len(url) > MAX_LENGTH or not url.isascii() or not url.isprintable() or set(url) & set(" \\"):
        raise bad_request(Message("url_not_printable", field=path, value=shown(url), limit=MAX_LENGTH))
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or HTTPS_PORT
    except ValueError as error:
        raise bad_request(Message("url_not_valid", field=path, value=shown(url), reason=str(error))) from None
    if parts.scheme != "https" or parts.username is not None or parts.password is not None:
        raise bad_request(Message("url_not_https", field=path, value=shown(url)))
    name = host if port == HTTPS_PORT else f"{host}:{port}"
    if name not in hosts:
        allowed = ", ".join(sorted(hosts))
        raise bad_request(Message("url_host_not_allowed", field=path, host=shown(name), allowed=allowed))
    return parts
