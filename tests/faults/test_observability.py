"""Metrics, and one log line per request."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import httpx

from services.gateway.tenancy import keys
from tests.faults.chat_stream import body, read
from tests.faults.connection import Connection
from tests.faults.process import Process
from tests.faults.recordings import LONG
from tests.faults.system import System, running_system
from tests.faults.test_death import streams
from tests.support.waits import until

QUESTION = "سلام، این را هیچ‌کس نباید ببیند"
TIMINGS = ("duration_ms", "first_token_ms")


async def test_every_request_has_one_log_line(system: System) -> None:
    client = system.client()
    messages = [{"role": "user", "content": QUESTION}]
    headers = {"x-request-id": "req-of-a-client"}
    content = body(messages=messages, stream_options={"include_usage": True})
    streamed = await client.post("/chat/completions", json=content, headers=headers)
    rejected = await client.post("/chat/completions", json={"model": "nothing", "messages": messages})
    connection = await Connection.ask(system, body(LONG))
    await connection.until(b"data: ")
    connection.disconnect()
    await until(lambda: len(_lines(system.gateway)) == 3, what="the log has three lines")

    whole, unknown, gone = _lines(system.gateway)
    assert whole["request_id"] == "req-of-a-client"
    usage = next(chunk["usage"] for chunk in _chunks(streamed) if chunk.get("usage"))
    assert (whole["prompt_tokens"], whole["completion_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    assert (whole["route"], whole["status"], whole["model"]) == ("/api/chat/completions", 200, "replay")
    assert whole["outcome"] == "complete"
    assert whole["key_id"].startswith("key_")
    assert all(isinstance(whole[timing], float) and whole[timing] > 0 for timing in TIMINGS)
    assert (unknown["request_id"], unknown["status"]) == (rejected.headers["x-request-id"], 404)
    assert unknown["outcome"] == "rejected"
    assert (gone["status"], gone["outcome"]) == (200, "client gone")
    assert gone["completion_tokens"] > 0
    assert gone["prompt_tokens"] > 0

    worker_lines = [line for line in _json_lines(system.worker) if line.get("request_id") == "req-of-a-client"]
    assert [line["outcome"] for line in worker_lines] == ["ok"]
    for process in (system.gateway, system.worker):
        log = process.log.read_text()
        assert QUESTION not in log
        assert json.dumps(QUESTION) not in log


async def test_content_is_logged_only_if_it_is_enabled(tmp_path: Path) -> None:
    async with running_system(tmp_path, gateway_settings={"VILIX_LOG_CONTENT": "true"}) as system:
        messages = [{"role": "user", "content": QUESTION}]
        response = await system.client().post("/chat/completions", json=body(messages=messages, stream=False))
        await until(lambda: len(_lines(system.gateway)) == 1)
        (line,) = _lines(system.gateway)
        assert line["messages"][0]["content"] == [{"text": QUESTION}]
        assert line["choices"][0]["content"] == response.json()["choices"][0]["message"]["content"]
        assert system.api_key not in system.gateway.log.read_text()


async def test_metrics_count_requests_errors_durations_and_tokens(system: System) -> None:
    client = system.client()
    before = await system.gateway.metrics()
    usages = []
    for _ in range(3):
        response = (await client.post("/chat/completions", json=body(stream=False))).json()
        usages.append(response["usage"])
    assert (await read(client, "")).is_whole
    assert (await client.post("/chat/completions", json={**body(), "model": "nothing"})).status_code == 404
    assert (await client.post("/chat/completions", json=body(max_tokens=10**9))).status_code == 400
    assert (await client.get("/nothing")).status_code == 404
    await until(system.is_idle)
    after = await system.gateway.metrics()

    def grew(name: str) -> float:
        return after.get(name, 0) - before.get(name, 0)

    chat = 'vilix_http_requests_total{method="POST",model="%s",route="/api/chat/completions",status="%d"}'
    assert grew(chat % ("replay", 200)) == 4
    assert grew(chat % ("replay", 400)) == 1
    assert grew(chat % ("unknown", 404)) == 1
    assert grew('vilix_http_requests_total{method="GET",model="none",route="none",status="404"}') == 1
    seconds = 'vilix_http_request_duration_seconds_count{model="%s",route="/api/chat/completions"}'
    assert grew(seconds % "replay") == 5
    assert grew(seconds % "unknown") == 1
    # The worker rejected one of them.
    assert grew('vilix_worker_call_duration_seconds_count{model="replay"}') == 5
    assert grew('vilix_first_token_seconds_count{model="replay"}') == 4
    assert grew('vilix_inter_token_seconds_count{model="replay"}') > 0
    completion = usages[0]["completion_tokens"]
    assert grew('vilix_tokens_total{kind="completion",model="replay"}') == 4 * completion
    assert grew('vilix_tokens_total{kind="prompt",model="replay"}') == 4 * usages[0]["prompt_tokens"]
    worker = await system.worker.metrics()
    assert worker['vilix_worker_damaged_characters_total{model="replay"}'] == 0
    assert worker['vilix_worker_first_token_seconds_count{model="replay"}'] == 4
    for text in [await _text(system.gateway), await _text(system.worker)]:
        assert _lines(system.gateway)[0]["key_id"] not in text
        assert "req-" not in text
        assert "nothing" not in text


async def test_incomplete_generations_are_counted_by_outcome(system: System) -> None:
    connection = await Connection.ask(system, body(LONG))
    await connection.until(b"data: ")
    connection.disconnect()
    await until(lambda: _counts(system, "client gone", 1))
    (stream,) = await streams(system, LONG, 1)
    with system.worker.frozen():
        assert (await stream).errors
        await until(lambda: _counts(system, "silent", 1))
    await system.wait_until_ready()
    (stream,) = await streams(system, LONG, 1)
    system.worker.kill()
    assert (await stream).errors
    await until(lambda: _counts(system, "broken off", 1, worker_status="UNAVAILABLE"))
    ends = [(line["outcome"], line.get("worker_status")) for line in _lines(system.gateway)]
    assert ends == [("client gone", None), ("silent", None), ("broken off", "UNAVAILABLE")]
    assert all(line["completion_tokens"] > 0 and line["prompt_tokens"] > 0 for line in _lines(system.gateway))


async def test_a_stream_that_the_end_of_the_drain_cuts_off_has_the_outcome_drained(tmp_path: Path) -> None:
    async with running_system(tmp_path, gateway_settings={"VILIX_DRAIN_SECONDS": "1"}) as system:
        (stream,) = await streams(system, LONG, 1)
        system.gateway.signal(signal.SIGTERM)
        assert (await stream).errors
        await system.gateway.exit_code()
        (line,) = _lines(system.gateway)
        assert (line["outcome"], line["status"]) == ("drained", 200)
        assert line["completion_tokens"] > 0


async def test_queued_and_rejected_requests_of_a_key_are_counted(tmp_path: Path) -> None:
    tiers = tmp_path / "tiers.yaml"
    tiers.write_text("tiers: {queueing: {concurrency: 1, queue: true, queue_seconds: 60, queue_length: 2}}")
    async with running_system(tmp_path, gateway_settings={"VILIX_TIERS_FILE": str(tiers)}) as system:
        _, system.api_key = await keys.create(system.redis, name="queueing", tier="queueing")
        running = await Connection.ask(system, body(LONG))
        await running.until(b"data: ")
        waiting = [await Connection.ask(system, body(LONG, stream=stream)) for stream in (True, False)]
        await until(lambda: _waits(system, 2), what="two requests wait")
        rejected = await system.client().post("/chat/completions", json=body())
        assert rejected.status_code == 429
        metrics = await system.gateway.metrics()
        assert metrics['vilix_limits_rejected_total{limit="concurrency"}'] == 1
        chat = 'vilix_http_requests_total{method="POST",model="replay",route="/api/chat/completions",status="429"}'
        assert metrics[chat] == 1
        for connection in waiting:
            connection.disconnect()
        await until(lambda: _waits(system, 0), what="no request is queued")
        running.disconnect()
        await until(system.is_idle)
        await until(lambda: len(_lines(system.gateway)) == 4)
        outcomes = sorted(line["outcome"] for line in _lines(system.gateway))
        assert outcomes == ["client gone", "client gone", "client gone", "rejected"]


async def _counts(system: System, outcome: str, count: int, *, worker_status: str = "") -> bool:
    name = f'vilix_generations_total{{model="replay",outcome="{outcome}",worker_status="{worker_status}"}}'
    return (await system.gateway.metrics()).get(name) == count


async def _waits(system: System, count: int) -> bool:
    return await system.gateway.metric("vilix_limits_waiting") == count


def _lines(process: Process) -> list[dict[str, Any]]:
    """Return the log lines of chat requests."""
    requests = [line for line in _json_lines(process) if line["message"] == "request"]
    return [line for line in requests if line["route"] == "/api/chat/completions"]


def _json_lines(process: Process) -> list[dict[str, Any]]:
    return [json.loads(line) for line in process.log.read_text().splitlines()]


def _chunks(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


async def _text(process: Process) -> str:
    async with httpx.AsyncClient() as client:
        return (await client.get(f"http://127.0.0.1:{process.metrics_port}/metrics")).text
