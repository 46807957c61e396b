"""Images in requests to the gateway."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.gateway import running_gateway, until_ready
from tests.support.messages import message_id_of
from tests.support.scripted_worker import MODEL, ScriptedWorker, content, finish, started, usage

PNG = b"\x89PNG\r\n\x1a\n and more"
PATH = "messages[0].content[0].image_url.url"


def body(url: str, **fields: Any) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}}]
    return {"model": MODEL, "messages": [{"role": "user", "content": parts}], **fields}


def data_url(image: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"


class LoopbackServer:
    """A server on this machine to which the gateway must never connect."""

    def __init__(self) -> None:
        self.connections = 0
        self.port = 0

    async def count(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        writer.close()


@pytest.fixture
async def loopback() -> AsyncIterator[LoopbackServer]:
    found = LoopbackServer()
    server = await asyncio.start_server(found.count, "127.0.0.1", 0)
    async with server:
        found.port = server.sockets[0].getsockname()[1]
        yield found


async def test_an_image_reaches_the_worker(http: httpx.AsyncClient, worker: ScriptedWorker) -> None:
    worker.script = [[started()], [content("بله")], [finish(), usage()]]
    response = await http.post("/api/chat/completions", json=body(data_url(PNG)))
    assert response.status_code == 200, response.text
    (part,) = worker.requests[-1].messages[0].content
    assert (part.image.data, part.image.mime_type) == (PNG, "image/png")


async def test_https_urls_are_rejected_if_no_host_is_listed(
    http: httpx.AsyncClient, worker: ScriptedWorker, loopback: LoopbackServer
) -> None:
    for path in ("chat/completions", "tokenize"):
        for scheme in ("https", "http", "ftp", "file"):
            response = await http.post(f"/api/{path}", json=body(f"{scheme}://localhost:{loopback.port}/a.png"))
            assert response.status_code == 400
            assert response.json()["error"]["param"] == PATH
            assert message_id_of(response) == ("images_not_fetched" if scheme == "https" else "image_not_data_url")
    assert loopback.connections == 0
    assert worker.requests == []


NAMES = ("localhost", "127.0.0.1", "0.0.0.0", "169.254.169.254", "10.0.0.1", "::1")  # noqa: S104  # rejected


@pytest.fixture
async def listing(
    http: httpx.AsyncClient, loopback: LoopbackServer, redis_url: str, worker_port: int, tmp_path: Path
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a gateway whose operator has listed hosts that are not public."""
    settings = {"VILIX_IMAGE_HOSTS": ",".join(f"{name}:{loopback.port}" for name in NAMES), "VILIX_IMAGE_SECONDS": "5"}
    with running_gateway(redis_url, f"127.0.0.1:{worker_port}", tmp_path / "log", **settings) as (url, _):
        async with httpx.AsyncClient(base_url=url, headers=http.headers, timeout=20) as client:
            await until_ready(url)
            yield client


@pytest.mark.parametrize("name", NAMES)
async def test_a_listed_host_must_have_a_public_address(
    listing: httpx.AsyncClient, worker: ScriptedWorker, loopback: LoopbackServer, name: str
) -> None:
    host = f"[{name}]" if ":" in name else name
    fields: tuple[dict[str, Any], ...] = ({}, {"stream": True}, {"dry_run": True})
    for more in fields:
        asked = body(f"https://{host}:{loopback.port}/a.png", **more)
        response = await listing.post("/api/chat/completions", json=asked)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert (error["param"], error["code"]) == (PATH, "invalid_image_url")
        assert message_id_of(response) == "image_host_not_public"
    elsewhere = await listing.post("/api/chat/completions", json=body("https://example.org/a.png"))
    assert message_id_of(elsewhere) == "url_host_not_allowed"
    assert loopback.connections == 0
    assert worker.requests == []
