"""Streaming survives a reverse proxy that nobody configured for it: real Nginx, its buffering left on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from services.stack.ports import free_ports, is_free
from tests.e2e.conftest import RunningStack
from tests.system_packages import require

CONFIG = """
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
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
}}
"""


@pytest.fixture
def proxy_url(stack: RunningStack, tmp_path: Path) -> Iterator[str]:
    nginx = require("nginx", package="nginx-light")
    port = free_ports(1)[0]
    config = tmp_path / "nginx.conf"
    config.write_text(CONFIG.format(directory=tmp_path, port=port, upstream=stack.state["ports"]["gateway"]))
    process = subprocess.Popen([nginx, "-p", tmp_path, "-c", config, "-e", tmp_path / "error.log"])
    try:
        limit = time.monotonic() + 10
        while is_free(port):
            assert process.poll() is None, (tmp_path / "error.log").read_text()
            assert time.monotonic() < limit, "nginx does not listen"
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}/api"
    finally:
        process.terminate()
        process.wait(10)


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_events_pass_nginx_one_by_one(stack: RunningStack, proxy_url: str, encoding: str) -> None:
    headers = {"Authorization": f"Bearer {stack.api_key}", "Accept-Encoding": encoding}
    body = {
        "model": "smollm2-135m",
        "messages": [{"role": "user", "content": "Tell me a long story."}],
        "max_tokens": 80,
        "stream": True,
    }
    with httpx.stream("POST", f"{proxy_url}/chat/completions", headers=headers, json=body, timeout=60) as response:
        assert response.status_code == 200
        reads = list(response.iter_bytes())
    assert b"".join(reads).endswith(b"data: [DONE]\n\n")
    assert len(reads) >= 20, "buffered answers come in one or two reads"
