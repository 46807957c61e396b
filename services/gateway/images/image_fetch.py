"""Fetches images from hosts that the operator listed, and makes no connection to any other place.

A name is resolved once, every address that it has is checked, and the connection goes to one of those addresses; TLS
verifies the name. Redirects are followed by hand, and each hop is checked like the first.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import SplitResult, urljoin

import httpcore2

from services.gateway.errors import ApiError, bad_request
from services.gateway.images.image_url import HTTPS_PORT, check_url
from services.gateway.images.limits import image_too_large
from services.gateway.images.request_images import Elsewhere, Images

MAX_REDIRECTS: Final = 3
MAX_CONNECTIONS: Final = 16
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_HEADERS: Final[dict[bytes | str, bytes | str]] = {
    "User-Agent": "vilix",
    "Accept": "image/png, image/jpeg, image/webp, image/gif",
}
_INTERNET: Final = ipaddress.IPv6Network("2000::/3")
_OTHERWISE: Final = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2002::/16", "3fff::/20")))
"""Tunnels that carry an IPv4 address, and documentation, which Python 3.11 does not know of."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: Address) -> bool:
    """Whether an address belongs to the internet alone.

    Not so private, loopback, link-local, shared, multicast and reserved ones, and none that carries another one in it:
    IPv4-mapped, NAT64, 6to4, Teredo.
    """
    if isinstance(address, ipaddress.IPv6Address) and (
        address not in _INTERNET or any(address in network for network in _OTHERWISE)
    ):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


class ImageFetcher:
    """Fetches images for requests. `close` must be called."""

    def __init__(
        self,
        *,
        seconds: float,
        may_connect: Callable[[Address], bool] = is_public,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """All images of a request must be there within `seconds`."""
        self._seconds: Final = seconds
        self._pool: Final = httpcore2.AsyncConnectionPool(
            ssl_context=ssl_context or ssl.create_default_context(),
            max_connections=MAX_CONNECTIONS,
            # Nothing is kept that was checked for another request.
            max_keepalive_connections=0,
            network_backend=_CheckedNetwork(may_connect),
        )

    async def fill(self, images: Images) -> None:
        """Fetch what of these images is elsewhere. Raises ApiError (400) for the first that cannot be had."""
        if not images.elsewhere:
            return
        room = _Room(images)
        try:
            async with asyncio.timeout(self._seconds), asyncio.TaskGroup() as tasks:
                fetched = [tasks.create_task(self._fetch(one, room)) for one in images.elsewhere]
        except TimeoutError:
            slow = next(
                (one for one, task in zip(images.elsewhere, fetched, strict=True) if task.cancelled()),
                images.elsewhere[0],
            )
            raise _unobtainable(slow.path, f"could not be fetched within {self._seconds:g} s") from None
        except ExceptionGroup as group:
            raise _first(group) from None
        for one, task in zip(images.elsewhere, fetched, strict=True):
            images.fill(one.image, one.path, task.result())
        images.elsewhere.clear()

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.aclose()

    async def _fetch(self, wanted: Elsewhere, room: _Room) -> bytes:
        url, path = wanted.url, wanted.path
        for _ in range(1 + MAX_REDIRECTS):
            parts = check_url(path, url, room.images.limits.hosts)
            try:
                async with self._pool.stream(
                    "GET", _target(parts), headers=_HEADERS, extensions={"timeout": self._timeouts()}
                ) as response:
                    location = _header(response, b"location")
                    if response.status not in _REDIRECTS or location is None:
                        return await _content(path, response, room)
            except _NotPublicError:
                raise _unobtainable(path, f"is on {parts.hostname}, whose address is not a public one") from None
            except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
                said = str(error) or type(error).__name__
                raise _unobtainable(path, f"could not be fetched from {parts.hostname}: {said}") from None
            url = urljoin(url, location)
        raise _unobtainable(path, f"is redirected more than {MAX_REDIRECTS} times")

    def _timeouts(self) -> dict[str, float]:
        return dict.fromkeys(("connect", "read", "write", "pool"), self._seconds)


class _Room:
    """What the images of one request may still have, all together."""

    def __init__(self, images: Images) -> None:
        self.images: Final = images
        self._left = images.limits.max_total_bytes - images.total_bytes

    def take(self, path: str, size: int) -> None:
        self._left -= size
        if self._left < 0:
            most = self.images.limits.max_total_bytes
            raise bad_request(path, f"with {path}, the request's images have more than {most} bytes; send fewer")


class _NotPublicError(Exception):
    """A name has an address to which nothing may be sent."""


class _CheckedNetwork(httpcore2.AnyIOBackend):
    """Connects to addresses that were checked, and never to a name, which could mean another address by then."""

    def __init__(self, may_connect: Callable[[Address], bool]) -> None:
        self._may_connect: Final = may_connect

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # the library's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(entry[4][0]) for entry in found]
        if not all(self._may_connect(ipaddress.ip_address(address)) for address in addresses):
            raise _NotPublicError
        for address in addresses[:-1]:
            try:
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore2.ConnectError:
                pass
        return await super().connect_tcp(addresses[-1], port, timeout, local_address, socket_options)


async def _content(path: str, response: httpcore2.Response, room: _Room) -> bytes:
    if response.status != 200:
        raise _unobtainable(path, f"is not there: its host answers {response.status}")
    if (_header(response, b"content-encoding") or "identity") != "identity":
        raise _unobtainable(path, "is answered in a compressed form, which was not asked for")
    most, announced = room.images.limits.max_bytes, _header(response, b"content-length") or ""
    if announced.isdecimal() and len(announced) < 20 and int(announced) > most:
        raise image_too_large(path, int(announced), most)
    content = bytearray()
    async for piece in response.aiter_stream():
        room.take(path, len(piece))
        content += piece
        if len(content) > most:
            raise image_too_large(path, len(content), most)
    return bytes(content)


def _target(parts: SplitResult) -> httpcore2.URL:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return httpcore2.URL(
        scheme=b"https", host=(parts.hostname or "").encode(), port=parts.port or HTTPS_PORT, target=target.encode()
    )


def _header(response: httpcore2.Response, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), None)


def _unobtainable(path: str, said: str) -> ApiError:
    return bad_request(path, f"{path} {said}; send the image as a data: URL", code="invalid_image_url")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
