"""Traces of a gateway: content, and a collector that is away."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx

from tests.support.gateway import running_gateway, until_ready
from tests.support.otlp_receiver import receiving
from tests.support.repository import ROOT
from tests.support.scripted_worker import MODEL, ScriptedWorker, content, finish, started, usage

QUESTION, ANSWER = "who-may-read-this", "nobody"


STANDARD = {"content-length", "content-type", "date", "server", "vary"}
"""Headers of responses that HTTP defines."""


async def ask(url: str, api_key: str, worker: ScriptedWorker) -> httpx.Response:
    """Return the response to a request for a generation."""
    worker.script = [[started()], [content(ANSWER)], [finish(), usage()]]
    body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {api_key}"}) as client:
        response = await client.post("/api/chat/completions", json=body)
        assert response.json()["choices"][0]["message"]["content"] == ANSWER
        return response


async def test_spans_have_content_if_it_is_enabled(
    redis_url: str, worker_port: int, worker: ScriptedWorker, api_key: str, tmp_path: Path
) -> None:
    log = tmp_path / "gateway.log"
    with receiving() as collector:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.grpc_endpoint, "VILIX_TRACES_CONTENT": "true"}
        with running_gateway(redis_url, f"127.0.0.1:{worker_port}", log, **settings) as (url, process):
            await until_ready(url)
            await ask(url, api_key, worker)
            process.terminate()
            # The last spans are exported before the end.
            assert process.wait(20) == 0
        (root,) = [span for span in collector.spans() if span.name == "POST /api/chat/completions"]
        received = b"".join(collector.requests)
    (question,) = json.loads(root.attributes["gen_ai.input.messages"])
    (answer,) = json.loads(root.attributes["gen_ai.output.messages"])
    assert question == {"role": "user", "parts": [{"type": "text", "content": QUESTION}]}
    assert answer == {"role": "assistant", "parts": [{"type": "text", "content": ANSWER}]}
    assert api_key.encode() not in received
    assert QUESTION not in log.read_text()


async def test_the_page_explains_every_header_of_a_response(
    redis_url: str, worker_port: int, worker: ScriptedWorker, api_key: str, tmp_path: Path
) -> None:
    settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    with running_gateway(redis_url, f"127.0.0.1:{worker_port}", tmp_path / "log", **settings) as (url, _):
        await until_ready(url)
        response = await ask(url, api_key, worker)
    assert "traceresponse" in response.headers
    for language in ("en", "fa"):
        page = (ROOT / f"services/gateway/site/content/{language}.md").read_text()
        (section,) = re.findall(r"^## [^\n]+ \{#limits\}$(.*?)^## ", page, re.DOTALL | re.MULTILINE)
        assert set(response.headers) - STANDARD <= set(re.findall(r"`([a-z-]+)`", section)), language


async def test_a_collector_that_is_away_disturbs_nothing(
    redis_url: str, worker_port: int, worker: ScriptedWorker, api_key: str, tmp_path: Path
) -> None:
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_BSP_SCHEDULE_DELAY": "10",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }
    log = tmp_path / "gateway.log"
    with running_gateway(redis_url, f"127.0.0.1:{worker_port}", log, **settings) as (url, process):
        await until_ready(url)
        for _ in range(10):
            await ask(url, api_key, worker)
        process.terminate()
        assert process.wait(20) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line for line in lines if line["service"] == "gateway" and "exception" in line] == []
    # One line per request, and few about the collector.
    assert (
        len([line for line in lines if line["message"] == "request" and line["route"] == "/api/chat/completions"]) == 10
    )
    assert len([line for line in lines if "export" in line["message"].lower()]) < 10
