"""Fetches images from hosts that the operator has listed, and connects to no other host.

A name is resolved once, all of its addresses are checked, and the connection is made to one of those addresses; TLS
verifies the name. Redirects are followed here, and each one is checked like the first URL.
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
from services.gateway.images.request_images import Images, RemoteImage
from services.runtime.messages.message import Message

MAX_REDIRECTS: Final = 3
MAX_CONNECTIONS: Final = 16
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_HEADERS: Final[dict[bytes | str, bytes | str]] = {
    "User-Agent": "vilix",
    "Accept": "image/png, image/jpeg, image/webp, image/gif",
}
_INTERNET: Final = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC: Final = tuple(map(ipaddress.IPv6Network, ("2001::/23", "2002::/16", "3fff::/20")))
"""Networks for tunnels that contain an IPv4 address, and one for documentation that Python 3.11 does not know."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(address: Address) -> bool:
    """Return whether an address belongs to the public internet.

    Private, loopback, link-local, shared, multicast and reserved addresses do not, nor do addresses that contain
    another one: IPv4-mapped, NAT64, 6to4 and Teredo.
    """
    if isinstance(address, ipaddress.IPv6Address) and (
        address not in _INTERNET or any(address in network for network in _NOT_PUBLIC)
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
        """Fetch all images of a request within `seconds`, from addresses for which `may_connect` is true."""
        self._seconds: Final = seconds
        self._pool: Final = httpcore2.AsyncConnectionPool(
            ssl_context=ssl_context or ssl.create_default_context(),
            max_connections=MAX_CONNECTIONS,
            # A kept connection would be used without checking its address again.
            max_keepalive_connections=0,
            network_backend=_CheckedNetwork(may_connect),
        )

    async def fill(self, images: Images) -> None:
        """Fetch the remote images of a request. Raises ApiError (400) for the first that cannot be fetched."""
        if not images.remote:
            return
        capacity = _Capacity(images)
        try:
            async with asyncio.timeout(self._seconds), asyncio.TaskGroup() as tasks:
                fetched = [tasks.create_task(self._fetch(image, capacity)) for image in images.remote]
        except TimeoutError:
            slow = next(
                (image for image, task in zip(images.remote, fetched, strict=True) if task.cancelled()),
                images.remote[0],
            )
            raise _unobtainable(Message("image_fetch_timed_out", field=slow.path, limit=self._seconds)) from None
        except ExceptionGroup as group:
            raise _first(group) from None
        for image, task in zip(images.remote, fetched, strict=True):
            images.fill(image.image, image.path, task.result())
        images.remote.clear()

    async def close(self) -> None:
        """Close all connections."""
        await self._pool.aclose()

    async def _fetch(self, image: RemoteImage, capacity: _Capacity) -> bytes:
        url, path = image.url, image.path
        for _ in range(1 + MAX_REDIRECTS):
            parts = check_url(path, url, capacity.images.limits.hosts)
            try:
                async with self._pool.stream(
                    "GET", _target(parts), headers=_HEADERS, extensions={"timeout": self._timeouts()}
                ) as response:
                    location = _header(response, b"location")
                    if response.status not in _REDIRECTS or location is None:
                        return await _content(path, response, capacity)
            except _NotPublicError:
                message = Message("image_host_not_public", field=path, host=parts.hostname or "")
                raise _unobtainable(message) from None
            except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
                reason = str(error) or type(error).__name__
                message = Message("image_fetch_failed", field=path, host=parts.hostname or "", reason=reason)
                raise _unobtainable(message) from None
            url = urljoin(url, location)
        raise _unobtainable(Message("image_redirected_too_often", field=path, limit=MAX_REDIRECTS))

    def _timeouts(self) -> dict[str, float]:
        return dict.fromkeys(("connect", "read", "write", "pool"), self._seconds)


class _Capacity:
    """The bytes that the images of one request may still have together."""

    def __init__(self, images: Images) -> None:
        self.images: Final = images
        self._left = images.limits.max_total_bytes - images.total_bytes

    def take(self, path: str, size: int) -> None:
        self._left -= size
        if self._left < 0:
            most = self.images.limits.max_total_bytes
            raise bad_request(Message("fetched_images_over_bytes", field=path, limit=most))


class _NotPublicError(Exception):
    """A name has an address to which no connection is allowed."""


class _CheckedNetwork(httpcore2.AnyIOBackend):
    """Connects to checked addresses, and never to a name, which could resolve to another address by then."""

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
        infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(info[4][0]) for info in infos]
        if not all(self._may_connect(ipaddress.ip_address(address)) for address in addresses):
            raise _NotPublicError
        for address in addresses[:-1]:
            try:
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
            except httpcore2.ConnectError:
                pass
        return await super().connect_tcp(addresses[-1], port, timeout, local_address, socket_options)


async def _content(path: str, response: httpcore2.Response, capacity: _Capacity) -> bytes:
    if response.status != 200:
        raise _unobtainable(Message("image_fetch_rejected", field=path, status=response.status))
    if (_header(response, b"content-encoding") or "identity") != "identity":
        raise _unobtainable(Message("image_compressed", field=path))
    most, announced = capacity.images.limits.max_bytes, _header(response, b"content-length") or ""
    if announced.isdecimal() and len(announced) < 20 and int(announced) > most:
        raise image_too_large(path, int(announced), most)
    content = bytearray()
    async for part in response.aiter_stream():
        capacity.take(path, len(part))
        content += part
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


def _unobtainable(message: Message) -> ApiError:
    return bad_request(message, code="invalid_image_url")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
