"""Image fetching: the gateway connects only to listed hosts with public addresses.

The servers of these tests listen on loopback, which is not public. Tests that need a connection permit loopback.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import ReadOptions
from services.gateway.dialects.openai_chat.request import read_chat
from services.gateway.errors import ApiError
from services.gateway.images.image_fetch import Address, ImageFetcher, is_public
from services.gateway.images.limits import ImageLimits
from services.gateway.images.request_images import Images
from tests.support.certificates import Authority

PNG = b"\x89PNG\r\n\x1a\n and more"
PATH = "messages[0].content[0].image_url.url"
LOOPBACK = ipaddress.ip_network("127.0.0.0/8")


@dataclass
class Host:
    """A server that sends the response set for a path, and counts connections and requests."""

    port: int = 0
    responses: dict[str, bytes] = field(default_factory=dict)
    connections: int = 0
    requests: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split(" ")[1]
            self.requests.append(head)
            reply = self.responses.get(path, response(PNG))
            writer.write(reply)
            await writer.drain()
            if reply.endswith(b"and wait"):
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()


def response(content: bytes, status: str = "200 OK", **headers: Any) -> bytes:
    lines = {"content_length": len(content), "connection": "close", **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + content


def redirect(to: str) -> bytes:
    return response(b"", "302 Found", location=to)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the TLS context of a server named localhost, and that of a client that trusts it."""
    directory = tmp_path_factory.mktemp("certificates")
    authority = Authority(directory / "ca")
    authority.issue(directory / "server", name="localhost")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(directory / "server" / "tls.crt", directory / "server" / "tls.key")
    return server, ssl.create_default_context(cafile=str(Path(authority.certificate)))


@pytest.fixture
async def host(certificates: tuple[ssl.SSLContext, ssl.SSLContext]) -> AsyncIterator[Host]:
    """Run a host with TLS."""
    host = Host()
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0, ssl=certificates[0])
    async with server:
        host.port = server.sockets[0].getsockname()[1]
        yield host


@pytest.fixture
async def forbidden() -> AsyncIterator[Host]:
    """Run a host that must not get a connection. It counts connections before any TLS handshake."""
    host = Host()
    server = await asyncio.start_server(host.serve, "127.0.0.1", 0)
    async with server:
        host.port = server.sockets[0].getsockname()[1]
        yield host


@asynccontextmanager
async def fetching(
    certificates: tuple[ssl.SSLContext, ssl.SSLContext], *, seconds: float = 10, loopback: bool = True
) -> AsyncIterator[ImageFetcher]:
    def may_connect(address: Address) -> bool:
        return (loopback and address in LOOPBACK) or is_public(address)

    fetcher = ImageFetcher(seconds=seconds, may_connect=may_connect, ssl_context=certificates[1])
    try:
        yield fetcher
    finally:
        await fetcher.close()


@dataclass
class Chat:
    generate: pb.GenerateRequest
    images: Images


def chat(*urls: str, hosts: str = "", **limits: int) -> Chat:
    content = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    images = Images(ImageLimits(hosts=frozenset(hosts.split()), **limits))
    return Chat(read_chat(body, ReadOptions(True, images)).generate, images)


async def rejected(fetcher: ImageFetcher, *urls: str, hosts: str, **limits: int) -> ApiError:
    with pytest.raises(ApiError) as caught:
        await fetcher.fill(chat(*urls, hosts=hosts, **limits).images)
    assert caught.value.status == 400
    assert caught.value.field is not None
    assert caught.value.field.startswith("messages[0].content[")
    return caught.value


async def test_an_image_of_a_listed_host_is_fetched(certificates: Any, host: Host) -> None:
    at = f"localhost:{host.port}"
    host.responses["/a?b=c"] = redirect("/there")
    async with fetching(certificates) as fetcher:
        request = chat(f"https://{at}/a?b=c#d", f"https://LOCALHOST:{host.port}/second", hosts=at)
        await fetcher.fill(request.images)
    images = [part.image for part in request.generate.messages[0].content]
    assert [(image.data, image.mime_type) for image in images] == [(PNG, "image/png")] * 2
    assert sorted(head.split(" ")[1] for head in host.requests) == ["/a?b=c", "/second", "/there"]
    assert all(f"host: localhost:{host.port}\r\n" in head.lower() for head in host.requests)


@pytest.mark.parametrize(
    ("url", "hosts", "message_id"),
    [
        ("https://example.org/", "", "images_not_fetched"),
        (
            "https://example.org/",
            "example.com",
            "url_host_not_allowed",
        ),
        ("https://example.com:8443/", "example.com", "url_host_not_allowed"),
        ("https://example.com.evil.org/", "example.com", "url_host_not_allowed"),
        ("https://example.com@evil.org/", "example.com", "url_not_https"),
        ("https://example.com\\@evil.org/", "example.com", "url_not_printable"),
        ("https://example.com\t.evil.org/", "example.com", "url_not_printable"),
        ("https://example.com:99999/", "example.com", "url_not_valid"),
        ("https:///", "example.com", "url_host_not_allowed"),
        ("https://" + "a" * 5000, "example.com", "url_not_printable"),
        ("http://example.com/", "example.com", "image_not_data_url"),
        ("ftp://example.com/", "example.com", "image_not_data_url"),
    ],
)
def test_other_urls_are_rejected_before_any_connection(url: str, hosts: str, message_id: str) -> None:
    with pytest.raises(ApiError) as caught:
        chat(url, hosts=hosts)
    assert (caught.value.field, caught.value.message.id) == (PATH, message_id)


@pytest.mark.parametrize(
    "name",
    # All of them are rejected.
    ["localhost", "127.0.0.1", "127.1", "2130706433", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]"],  # noqa: S104
)
async def test_no_connection_is_made_to_loopback(certificates: Any, forbidden: Host, name: str) -> None:
    at = f"{name.strip('[]')}:{forbidden.port}"
    async with fetching(certificates, loopback=False) as fetcher:
        error = await rejected(fetcher, f"https://{name}:{forbidden.port}/", hosts=at)
    assert error.message.id in ("image_host_not_public", "image_fetch_failed")
    assert error.code == "invalid_image_url"
    assert forbidden.connections == 0


async def test_every_redirect_is_checked(certificates: Any, host: Host, forbidden: Host) -> None:
    at = f"localhost:{host.port}"
    there = f"127.0.0.2:{forbidden.port}"
    host.responses |= {
        "/plain": redirect(f"http://{at}/"),
        "/unlisted": redirect(f"https://127.0.0.1:{forbidden.port}/"),
        "/private": redirect(f"https://10.0.0.1:{forbidden.port}/"),
        "/round": redirect("/round"),
        "/file": redirect("file:///etc/passwd"),
    }
    async with fetching(certificates) as fetcher:
        for path, message_id in {
            "/plain": "url_not_https",
            "/unlisted": "url_host_not_allowed",
            "/private": "image_host_not_public",
            "/round": "image_redirected_too_often",
            "/file": "url_not_https",
        }.items():
            error = await rejected(fetcher, f"https://{at}{path}", hosts=f"{at} {there} 10.0.0.1:{forbidden.port}")
            assert error.message.id == message_id
    assert forbidden.connections == 0
    assert len(host.requests) == 4 + 4


async def test_a_name_is_resolved_once_and_all_its_addresses_must_be_public(
    certificates: Any, host: Host, forbidden: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = f"localhost:{host.port}"
    resolved: list[str] = []
    addresses = iter((["127.0.0.1"], ["127.0.0.1", "192.168.1.1"], ["::ffff:127.0.0.1"]))

    async def getaddrinfo(name: str, port: int, **_: Any) -> list[Any]:
        resolved.append(name)
        return [(0, 0, 0, "", (address, port)) for address in next(addresses)]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with fetching(certificates) as fetcher:
        await fetcher.fill(chat(f"https://{at}/", hosts=at).images)
        assert resolved == ["localhost"]
        for _ in range(2):
            assert (await rejected(fetcher, f"https://{at}/", hosts=at)).message.id == "image_host_not_public"
    assert host.connections == 1


async def test_a_certificate_must_have_the_name_of_the_host(certificates: Any, host: Host) -> None:
    at = f"127.0.0.1:{host.port}"
    async with fetching(certificates) as fetcher:
        error = await rejected(fetcher, f"https://{at}/", hosts=at)
    assert (error.message.id, error.message.parameters["host"]) == ("image_fetch_failed", "127.0.0.1")
    assert host.requests == []


async def test_sizes_are_checked_while_images_arrive(certificates: Any, host: Host) -> None:
    at = f"localhost:{host.port}"
    chunks = b"".join(b"400\r\n" + b"x" * 1024 + b"\r\n" for _ in range(20))
    endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks
    host.responses |= {
        "/announced": response(PNG, content_length=10**6),
        "/endless": endless + b"and wait",
        "/packed": response(PNG, content_encoding="gzip"),
        "/missing": response(b"", "404 Not Found"),
        "/page": response(b"<html>"),
    }
    limits = {"max_bytes": 10_000, "max_total_bytes": 30_000}
    async with fetching(certificates) as fetcher:
        for path, message_id in {
            "/announced": "image_over_bytes",
            "/endless": "image_over_bytes",
            "/packed": "image_compressed",
            "/missing": "image_fetch_rejected",
            "/page": "image_format_unknown",
        }.items():
            assert (await rejected(fetcher, f"https://{at}{path}", hosts=at, **limits)).message.id == message_id
        host.responses["/a"] = response(PNG + bytes(8_000))
        urls = [f"https://{at}/a"] * 4
        assert (await rejected(fetcher, *urls, hosts=at, **limits)).message.id == "fetched_images_over_bytes"


async def test_fetching_from_a_slow_host_times_out(certificates: Any, host: Host) -> None:
    at = f"localhost:{host.port}"
    host.responses["/slow"] = response(PNG, content_length=10_000) + b"and wait"
    async with fetching(certificates, seconds=0.3) as fetcher:
        error = await rejected(fetcher, f"https://{at}/slow", hosts=at)
    assert error.message.id in ("image_fetch_timed_out", "image_fetch_failed")


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104  # nothing is bound
        *("10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.0.1"),
        *("192.0.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1"),
        *("255.255.255.255", "::", "::1", "::ffff:8.8.8.8", "::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1"),
        *("64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:1::1", "fc00::1", "fd00:ec2::254"),
        *("fe80::1", "fec0::1", "ff02::1", "3fff::1", "5f00::1"),
    ],
)
def test_special_addresses_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2a00:1450:4001:82a::200e"])
def test_other_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))
