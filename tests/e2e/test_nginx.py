"""Streaming through a real Nginx, with a default configuration and with the example of the documentation."""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.gateway.settings import GatewaySettings
from services.stack.ports import free_ports
from tests.e2e.nginx import running_nginx
from tests.e2e.stack import RunningStack
from tests.support.certificates import Authority
from tests.support.messages import message_id_of
from tests.support.repository import ROOT
from tests.support.waits import until

NAME = "ai.example.com"
PLAIN = """
gzip on;
gzip_types text/event-stream application/json;
gzip_proxied any;
server {{
  listen 127.0.0.1:{port};
  location / {{
    proxy_pass http://127.0.0.1:{upstream};
    proxy_http_version 1.1;
  }}
}}
"""
STORY = {
    "model": "smollm2-135m",
    "messages": [{"role": "user", "content": "Tell me a long story."}],
    "max_tokens": 80,
    "stream": True,
}
ENDLESS = {**STORY, "max_tokens": 1900, "min_tokens": 1900}


@dataclass(frozen=True)
class Example:
    """The proxy of docs/nginx.conf."""

    url: str
    port: int
    ca: Path
    access_log: Path
    upstream: int

    def client(self, key: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers=headers, verify=_context(self.ca), timeout=60)


@pytest.fixture(scope="session")
def plain_url(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    (port,) = free_ports(1)
    site = PLAIN.format(port=port, upstream=stack.state["ports"]["gateway"])
    with running_nginx(tmp_path_factory.mktemp("nginx"), site, port=port):
        yield f"http://127.0.0.1:{port}/api"


@pytest.fixture(scope="session")
def example(stack: RunningStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    directory = tmp_path_factory.mktemp("nginx-example")
    authority = Authority(directory / "authority")
    authority.issue(directory / "tls", name="localhost")
    (port,) = free_ports(1)
    upstream = int(stack.state["ports"]["gateway"])
    site = (ROOT / "docs" / "nginx.conf").read_text()
    for original, replacement in {
        "127.0.0.1:8000": f"127.0.0.1:{upstream}",
        "listen 443": f"listen 127.0.0.1:{port}",
        NAME + ";": "localhost;",
        "/etc/nginx/tls/ai.example.com.crt": str(directory / "tls" / "tls.crt"),
        "/etc/nginx/tls/ai.example.com.key": str(directory / "tls" / "tls.key"),
    }.items():
        assert original in site
        site = site.replace(original, replacement)
    log = directory / "connections.log"
    site = (
        f"log_format test '$connection $connection_requests $status $server_protocol';\naccess_log {log} test;\n{site}"
    )
    with running_nginx(directory, site, port=port):
        yield Example(f"https://localhost:{port}/api", port, authority.certificate, log, upstream)


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_events_pass_a_plain_nginx_one_by_one(stack: RunningStack, plain_url: str, encoding: str) -> None:
    """Nginx buffers and compresses event streams here, so the gateway's response headers must suffice."""
    headers = {"Authorization": f"Bearer {stack.api_key}", "Accept-Encoding": encoding}
    with httpx.stream("POST", f"{plain_url}/chat/completions", headers=headers, json=STORY, timeout=60) as response:
        assert response.status_code == 200
        assert response.headers.get("content-encoding", "identity") == encoding
        reads = list(response.iter_bytes())
    assert b"".join(reads).endswith(b"data: [DONE]\n\n")
    assert len(reads) >= 20, "a buffered response arrives in one or two reads"


def test_streams_pass_tls_and_http2(stack: RunningStack, example: Example) -> None:
    command = [
        "curl",
        "-sN",
        "--http2",
        "--cacert",
        example.ca,
        "-w",
        "%{http_version}",
        f"{example.url}/chat/completions",
    ]
    headers = ["-H", f"Authorization: Bearer {stack.api_key}", "-H", "Content-Type: application/json"]
    process = subprocess.Popen([*command, *headers, "-d", json.dumps(STORY)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        reads = []
        while part := os.read(process.stdout.fileno(), 2**16):
            reads.append(part)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert b"".join(reads).endswith(b"data: [DONE]\n\n2")
    assert len(reads) >= 20


async def test_connections_are_kept_open_on_both_sides(stack: RunningStack, example: Example) -> None:
    async def all_are_logged() -> bool:
        return len(example.access_log.read_text().splitlines()) == 10

    with example.client(stack.api_key) as client:
        assert client.get("/models").status_code == 200
        before = _connections_to(example.upstream)
        example.access_log.write_text("")
        for _ in range(10):
            assert client.get("/models").status_code == 200
    # Nginx logs a request after its response.
    await until(all_are_logged)
    lines = [line.split() for line in example.access_log.read_text().splitlines()]
    assert len({connection for connection, *_ in lines}) == 1
    assert [int(count) for _, count, *_ in lines] == list(range(2, 12))
    assert before
    assert before <= _connections_to(example.upstream)


@pytest.mark.parametrize("url", ["plain_url", "example"])
async def test_a_client_disconnect_behind_nginx_cancels_the_engines_request(
    stack: RunningStack, request: pytest.FixtureRequest, url: str
) -> None:
    proxy = request.getfixturevalue(url)
    base, verify = (proxy.url, _context(proxy.ca)) if isinstance(proxy, Example) else (proxy, True)
    metrics = f"http://127.0.0.1:{stack.state['ports']['inference_metrics']}/metrics"
    headers = {"Authorization": f"Bearer {stack.api_key}"}
    async with httpx.AsyncClient(headers=headers, verify=verify, timeout=60) as client:
        before = await _metric(client, metrics, "vilix_engine_cancelled_requests_total")
        async with client.stream("POST", f"{base}/chat/completions", json=ENDLESS) as response:
            assert response.status_code == 200
            # The iterator is kept in a variable, because its garbage collection would close the connection.
            lines = response.aiter_lines()
            await anext(lines)
            text = (await client.get(metrics)).text
            assert 'vilix_worker_requests_in_flight{model="smollm2-135m"} 1.0' in text, text

        async def has_ended() -> bool:
            cancelled = await _metric(client, metrics, "vilix_engine_cancelled_requests_total") > before
            return cancelled and not await _metric(client, metrics, "vilix_worker_requests_in_flight")

        await until(has_ended)


def test_uploads_have_the_gateways_size_limit(stack: RunningStack, example: Example) -> None:
    """Nginx rejects larger bodies in the gateway's format; by default it would respond with a page of HTML."""
    with example.client(stack.api_key) as client:
        fits = client.post("/chat/completions", json=_with_image(5 * 2**20))
        assert fits.status_code == 400, "the worker must reject the image"
        assert message_id_of(fits) == "vision_not_supported"
        too_large = client.post("/chat/completions", json=_with_image(17 * 2**20))
        assert too_large.status_code == 413
        assert too_large.headers["content-type"] == "application/json"
        assert "20 MiB" in too_large.json()["error"]["message"]


def test_oversized_headers_are_rejected(stack: RunningStack, example: Example) -> None:
    with example.client(stack.api_key) as client:
        assert client.get("/models", headers={"X-Large": "a" * 2**13}).status_code == 200
        assert client.get("/models", headers={"X-Large": "a" * 2**15}).status_code == 400
        assert client.get("/models").status_code == 200


def test_the_example_fits_the_gateways_defaults() -> None:
    site = (ROOT / "docs" / "nginx.conf").read_text()
    (timeouts,) = re.findall(r"proxy_read_timeout (\d+)s", site)
    assert f"client_max_body_size {GatewaySettings.model_fields['max_body_bytes'].default // 2**20}m;" in site
    keep_alive = GatewaySettings.model_fields["keep_alive"].default
    # Nginx's own default is 60 s as well.
    assert keep_alive * 3 <= int(timeouts) <= 60
    assert GatewaySettings.model_fields["keep_alive_seconds"].default > 60, (
        "Nginx must be the side that closes idle upstream connections"
    )


def _with_image(size: int) -> dict[str, Any]:
    url = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(size)).decode()
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    return {"model": "smollm2-135m", "max_tokens": 1, "messages": [{"role": "user", "content": content}]}


async def _metric(client: httpx.AsyncClient, url: str, name: str) -> float:
    text = (await client.get(url)).text
    return sum(float(value) for value in re.findall(rf'^{name}\{{model="smollm2-135m"\}} (\S+)$', text, re.MULTILINE))


def _connections_to(port: int) -> set[str]:
    """Return the local addresses of established connections to 127.0.0.1:`port`."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {local for _, local, remote, state, *_ in rows if state == "01" and remote == f"0100007F:{port:04X}"}


def _context(ca: Path) -> Any:
    return ssl.create_default_context(cafile=ca)
