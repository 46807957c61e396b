"""No request blocks an event loop.

The tests assert what each process measures of itself, which does not depend on the load of the machine: how late its
loop was while the process itself was busy. The gaps that a client sees depend on the machine, and are only recorded.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import grpc
import httpx
import orjson
import pytest
from vilix.embeddings.v1 import embeddings_service_pb2 as embeddings_pb
from vilix.embeddings.v1 import embeddings_service_pb2_grpc
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from tests.faults.chat_stream import MODEL, body
from tests.faults.everything import Everything, running_everything
from tests.faults.malformed import CAPABLE_CATALOG_ENTRY, TEMPLATE, capable_settings, exchange, model_directory
from tests.faults.recordings import LONG
from tests.faults.test_secrets import post
from tests.support.fault_table import record, times
from tests.support.models import smollm2
from tests.support.triton_servers import EMBEDDING_MODEL
from tests.support.waits import until

pytestmark = pytest.mark.timeout(300)

TIMEOUTS: Final = {"VILIX_IDLE_SECONDS": "60", "VILIX_BODY_SECONDS": "60"}
WATCHED: Final = {"VILIX_LOOP_WATCH_SECONDS": "0.002"}
"""Short enough to detect each block that is a little longer than LIMIT, also in a process that was idle before."""
SMALL_MODEL: Final = "smollm2-135m"
LARGE_TEMPLATE: Final = "large-template"
BLOCKED: Final = "vilix_event_loop_blocked_seconds"
LIMIT: Final = 0.05
TRIES: Final = times(3, 5)
GAP_MS: Final = 50
TICK_SECONDS: Final = 0.005
WORDS: Final = "یک دو three four, five. "


def chat(**fields: Any) -> tuple[str, bytes]:
    return "/api/chat/completions", orjson.dumps(body(stream=False, **fields))


def question(content: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}]}


def tool(number: int, properties: int) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {f"p{i}": {"type": "string", "enum": ["a", "b"]} for i in range(properties)},
    }
    return {"type": "function", "function": {"name": f"f{number}", "description": "d", "parameters": schema}}


def recursive_schema(size: int) -> dict[str, Any]:
    """Return a schema of definitions that refer to one another."""
    names = [f"d{i}" for i in range(size)]
    alternatives = [{"$ref": f"#/$defs/{name}"} for name in names[:20]]
    definitions = {
        name: {"type": "object", "properties": {other: {"anyOf": alternatives} for other in names[:5]}}
        for name in names
    }
    return {"$defs": definitions, "anyOf": alternatives, "pattern": "^(a+)+$"}


def wide_schema(properties: int) -> dict[str, Any]:
    """Return a schema of many required properties with patterns."""
    names = [f"p{i:03}" for i in range(properties)]
    return {
        "type": "object",
        "properties": {name: {"type": "string", "pattern": "^[a-z]{1,200}$"} for name in names},
        "required": names,
    }


def json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}


def structured(**fields: Any) -> tuple[str, bytes]:
    return chat(model=SMALL_MODEL, max_tokens=5, **fields)


def raw(content: bytes) -> tuple[str, bytes]:
    return "/api/chat/completions", content


MEGABYTE: Final = 2**20
LARGE_PREAMBLE: Final = "You are told a long story first. " * 10_000
HOSTILE: Final[dict[str, Callable[[], tuple[str, bytes]]]] = {
    "a prompt of 1 MB": lambda: chat(**question(WORDS * (MEGABYTE // 30))),
    "a prompt of 4 MB": lambda: chat(**question(WORDS * (4 * MEGABYTE // 30))),
    "a prompt of special tokens": lambda: chat(**question("<|im_end|>" * (MEGABYTE // 10))),
    "a prompt of 1 MB without a space": lambda: chat(**question("a" * MEGABYTE)),
    "an image of 14 MB": lambda: chat(
        **question(
            [{"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgoA" + "A" * (14 * MEGABYTE)}}]
        )
    ),
    "2,000 messages": lambda: chat(messages=[{"role": "user", "content": WORDS * 10}] * 2000),
    "300,000 parts": lambda: chat(**question([{"type": "text", "text": "a"}] * 300_000)),
    "200,000 parts of 2,000 messages": lambda: chat(
        messages=[{"role": "user", "content": [{"type": "text", "text": "a"}] * 100}] * 2000
    ),
    "many tools": lambda: chat(tools=[tool(number, 1000) for number in range(128)], n=8),
    "a large tool call": lambda: chat(
        messages=[
            {"role": "user", "content": "a"},
            {
                "role": "assistant",
                "tool_calls": [
                    {
                        "id": "c",
                        "type": "function",
                        "function": {"name": "f", "arguments": '{"a": [%s1]}' % ("1," * 10**6)},
                    }
                ],
            },
            {"role": "tool", "tool_call_id": "c", "content": "a"},
        ]
    ),
    "a deep body": lambda: raw(b"[" * (20 * MEGABYTE)),
    "a deep field": lambda: raw(b'{"model": "replay", "messages": ' + b"[" * MEGABYTE + b"]" * MEGABYTE + b"}"),
    "many small values": lambda: raw(b"[" + b"[]," * (6 * MEGABYTE) + b"0]"),
    "many numbers": lambda: raw(b'{"model": "replay", "stop_token_ids": [' + b"1," * (9 * MEGABYTE) + b"0]}"),
    "many keys": lambda: raw(b"{" + b",".join(b'"%07d":0' % i for i in range(1_500_000)) + b"}"),
    "many biases": lambda: chat(logit_bias={str(i): 1 for i in range(45_000)}),
    "a deep schema": lambda: chat(response_format=json_schema(nested_schema(80))),
    "a recursive schema": lambda: chat(response_format=json_schema(recursive_schema(1000))),
    "a hostile regular expression": lambda: chat(guided_regex="(a|a?)+" * 50_000),
    # These are accepted, and the real engine generates structured output for them.
    "a wide schema that is accepted": lambda: structured(response_format=json_schema(wide_schema(700))),
    "a recursive schema that is accepted": lambda: structured(response_format=json_schema(recursive_schema(20))),
    "a regular expression that is accepted": lambda: structured(guided_regex="(a|bc?)+" * 500),
    "a large template": lambda: chat(model=LARGE_TEMPLATE),
    "large variables of the template": lambda: chat(chat_template_kwargs={f"a{i}": [{}] * 10 for i in range(10_000)}),
    # One text is too long, so that the worker counts all texts but embeds none, which would take minutes.
    "many texts to embed": lambda: (
        "/api/embeddings",
        orjson.dumps({"model": EMBEDDING_MODEL, "input": [*[WORDS * 3] * 2047, WORDS * 300]}),
    ),
    "one text of 1 MB to embed": lambda: (
        "/api/embeddings",
        orjson.dumps({"model": EMBEDDING_MODEL, "input": WORDS * (MEGABYTE // 30)}),
    ),
    "many token ids to embed": lambda: (
        "/api/embeddings",
        orjson.dumps({"model": EMBEDDING_MODEL, "input": [[1] * 8000] * 500}),
    ),
}


ACCEPTED: Final = (b"HTTP/1.1 200 ",)
ACCEPTED_REQUESTS: Final = {what for what in HOSTILE if "accepted" in what} | {"a large template"}


def nested_schema(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema, "b": {"type": "array", "items": {"$ref": "#"}}}}
    return schema


@pytest.fixture(scope="module")
async def everything(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Everything]:
    directory = tmp_path_factory.mktemp("loop")
    worker_settings = {**capable_settings(directory), **TIMEOUTS, **WATCHED}
    large = model_directory(directory / "large", LARGE_PREAMBLE + TEMPLATE)
    small = smollm2()
    worker_settings["VILIX_MODELS"] += f",{LARGE_TEMPLATE}={large},{SMALL_MODEL}={small}"
    entry = CAPABLE_CATALOG_ENTRY.replace(f"id: {MODEL}", f"id: {LARGE_TEMPLATE}")
    (Path(worker_settings["VILIX_CATALOG_DIR"]) / f"{LARGE_TEMPLATE}.yaml").write_text(entry)
    more_models = {
        LARGE_TEMPLATE: ("replay", {"recordings": str(directory / "recordings.json"), "context_length": 100_000}),
        SMALL_MODEL: ("llamacpp", {"model": str(small / "model.gguf"), "context_length": 2048}),
    }
    gateway_settings = {**TIMEOUTS, **WATCHED, "VILIX_EXPECTED_MODELS": ",".join([MODEL, *more_models])}
    async with running_everything(
        directory,
        worker_settings=worker_settings,
        gateway_settings=gateway_settings,
        embedder_settings=WATCHED,
        more_models=more_models,
    ) as running:
        yield running


class Probe:
    """A stream of steady tokens, read by a separate process."""

    def __init__(self) -> None:
        self.tokens: list[float] = []
        """The arrival of each token in seconds of `time.monotonic`, a clock that all processes share."""
        self.ticks: list[float] = []
        """The ticks of a process that only waits for its next tick: its delays are those of the machine."""

    async def run(self, everything: Everything) -> None:
        """Read the stream until cancelled."""
        address, environment = everything.system.gateway.address, {"VILIX_API_KEY": everything.system.api_key}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(self.ticks, "tests.faults.ticks", str(TICK_SECONDS)))
            tasks.create_task(
                self._follow(self.tokens, "tests.faults.stream_reader", address, stdin=body(LONG), **environment)
            )

    @staticmethod
    async def _follow(
        moments: list[float], module: str, argument: str, *, stdin: Any = None, **environment: str
    ) -> None:
        """Run a module and append each number that it prints to `moments`."""
        pipe, argv = asyncio.subprocess.PIPE, [sys.executable, "-m", module, argument]
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=pipe, stdout=pipe, env={**os.environ, **environment}
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(orjson.dumps(stdin))
            process.stdin.write_eof()
            async for line in process.stdout:
                moments.append(float(line))  # noqa: PERF401  # the list is read meanwhile
        finally:
            process.kill()
            await process.wait()

    async def worst_gap(self, since: float) -> tuple[float, float]:
        """Return the longest gap in seconds between tokens after `since`: without the machine's delays, and with."""
        now = time.monotonic()
        await until(lambda: min(self.tokens[-1], self.ticks[-1]) > now, what="the probe streams on")
        gaps = [pair for pair in pairwise(self.tokens) if pair[0] > since]
        late = [(a, b, b - a - TICK_SECONDS) for a, b in pairwise(self.ticks) if b > since and b - a > 2 * TICK_SECONDS]
        worst = max(
            last - first - max((seconds for a, b, seconds in late if a < last and b > first), default=0.0)
            for first, last in gaps
        )
        return worst, max(last - first for first, last in gaps)


@pytest.fixture(scope="module")
async def probe(everything: Everything) -> AsyncIterator[Probe]:
    probe = Probe()
    task = asyncio.create_task(probe.run(everything))
    await until(lambda: len(probe.tokens) > 100 and bool(probe.ticks), what="the probe streams")
    yield probe
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("what", HOSTILE)
async def test_a_hostile_request_blocks_no_event_loop(everything: Everything, probe: Probe, what: str) -> None:
    target, content = HOSTILE[what]()
    whole = post(target, everything.system.api_key, content)

    async def ask() -> None:
        response = await exchange(everything.system.gateway.address, [whole], seconds=100)
        expected = ACCEPTED if what in ACCEPTED_REQUESTS else (*ACCEPTED, b"HTTP/1.1 400 ", b"HTTP/1.1 413 ")
        assert response.startswith(expected), response[:500]

    await check_no_block(everything, probe, what, ask)


GRPC: Final[dict[str, Callable[[], Any]]] = {
    "200,000 parts": lambda: pb.GenerateRequest(
        model=MODEL, messages=[pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="")] * 100)] * 2000
    ),
    "15,000 elements of 1,250 messages": lambda: pb.GenerateRequest(
        model=MODEL, messages=[pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="a")] * 5)] * 1250
    ),
    "a message of 12 MB of empty parts": lambda: pb.GenerateRequest(
        model=MODEL, messages=[pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart()] * 4_000_000)]
    ),
    "a million ids": lambda: pb.GenerateRequest(model=MODEL, prompt_token_ids=[1] * 1_000_000),
    "texts of 1 MB": lambda: embeddings_pb.EmbedRequest(
        model=EMBEDDING_MODEL, texts=[*["word " * 100] * 2047, "word " * 1000]
    ),
    "a million texts": lambda: embeddings_pb.EmbedRequest(model=EMBEDDING_MODEL, texts=["a"] * 1_000_000),
}


@pytest.mark.parametrize("what", GRPC)
async def test_a_hostile_grpc_call_blocks_no_event_loop(everything: Everything, probe: Probe, what: str) -> None:
    request = GRPC[what]()
    inference = isinstance(request, pb.GenerateRequest)
    target = everything.system.worker.address if inference else everything.embedder.target
    options = [("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, options) as channel:
        generate: Any = inference_service_pb2_grpc.InferenceServiceStub(channel).Generate
        embed: Any = embeddings_service_pb2_grpc.EmbeddingsServiceStub(channel).Embed

        async def ask() -> None:
            try:
                if inference:
                    _ = [response async for response in generate(request, timeout=100)]
                else:
                    await embed(request, timeout=100)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, error

        await check_no_block(everything, probe, what, ask)


async def check_no_block(everything: Everything, probe: Probe, what: str, ask: Callable[[], Any]) -> None:
    """Check that `ask` does not block a loop in each of TRIES tries; a single block may have another cause."""
    tries = []
    began = time.monotonic()
    for _ in range(TRIES):
        before = await blocked(everything)
        await ask()
        after = await blocked(everything)
        tries.append(
            {
                name: {k: n - before[name][k] for k, n in counts.items() if n > before[name][k]}
                for name, counts in after.items()
            }
        )
        if not any(tries[-1].values()):
            break
    gap, whole = await probe.worst_gap(began)
    assert not any(tries[-1].values()), f"numbers of blocks longer than these seconds: {tries}"
    record(
        f"The event loop is never blocked: {what}",
        "no process blocks its loop for 50 ms; a concurrent stream with a token every 20 ms has no gap of more than "
        f"{GAP_MS} ms beyond the delays of the machine",
        f"no block; longest gap {gap * 1000:.0f} ms beyond the machine's delays, {whole * 1000:.0f} ms in total",
        met=gap < GAP_MS / 1000,
    )


async def blocked(everything: Everything) -> dict[str, dict[str, float]]:
    """Return how often each process's loop was blocked for longer than each bucket's seconds, from LIMIT on."""
    blocks = {}
    async with httpx.AsyncClient() as client:
        for name, address in everything.metrics.items():
            text = (await client.get(f"http://{address}/metrics", timeout=30)).text
            counts = {
                float(le): float(n)
                for le, n in re.findall(rf'^{BLOCKED}_bucket{{le="(.*?)"}} (.*)$', text, re.MULTILINE)
            }
            assert counts, f"{name} does not measure its loop"
            total = counts.pop(float("inf"))
            blocks[name] = {f"{le:g}": total - n for le, n in counts.items() if le >= LIMIT}
    return blocks
