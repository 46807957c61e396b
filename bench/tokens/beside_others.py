"""The gateway beside other programs that serve the same API, in turns on the same core, from the same load client."""

from __future__ import annotations

import json
import tempfile
import urllib.request
from pathlib import Path
from typing import Final

from bench.tokens.gateway_alone import Alone, running
from bench.tokens.load_client import CHAT, MESSAGES, Load, Row, request_row, stream_row
from bench.tokens.part import Options, Recorder, Rows, display, in_turns
from bench.tokens.servers import LITELLM, LITELLMS, PEERS, PEERS_PYTHON, UPSTREAM
from bench.tokens.streaming import STARTS_PER_SECOND, TOKENS, paced, warm_up
from services.stack.ports import LOOPBACK

LITELLM_STREAMS: Final = 32
PEER_STREAMS: Final = (32, 256)
CLIENTS: Final = 16
VILIX_REQUESTS: Final = 2000
LITELLM_REQUESTS: Final = 300
REQUEST_TOKENS: Final = 8
MESSAGES_ROUNDS: Final = 2
"""The rounds with Anthropic's API: LiteLLM takes a minute for each."""
PYTHONS_FIRST_HEADER: Final = "host"
"""The HTTP clients of Python send it first, and the one of LiteLLM's Rust path sends it after others."""


async def litellm(options: Options) -> Rows:
    """Measure the gateway and LiteLLM, by OpenAI's and by Anthropic's API; the latter with and without Rust."""
    if not LITELLM.exists():
        raise FileNotFoundError("LiteLLM is not installed; run: make .cache/litellm/.installed")
    recorder = Recorder()
    servers = ["gateway", "instant_gateway", *LITELLMS]
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with running(Path(directory), display(), servers) as alone:
            for name in ("gateway", "instant_gateway", "litellm"):
                for path in (CHAT, MESSAGES):
                    await warm_up(alone, name, path=path)
            before = set(_clients(alone))
            await warm_up(alone, "litellm_rust", path=MESSAGES)
            clients = set(_clients(alone)) - before
            uses_rust = bool(clients) and not any(client.startswith(PYTHONS_FIRST_HEADER) for client in clients)
            for number in range(options.rounds):
                pairs = [("litellm", CHAT), ("gateway", CHAT)]
                if number < MESSAGES_ROUNDS:
                    pairs += [("litellm", MESSAGES), ("litellm_rust", MESSAGES), ("gateway", MESSAGES)]
                for name, path in in_turns(pairs, number):
                    row = await _streams(alone, name, path, options)
                    row |= await _requests(alone, "instant_gateway" if name == "gateway" else name, path, options)
                    recorder.add(f"{name} {path}", {**row, "uses_rust": float(uses_rust and name == "litellm_rust")})
    return recorder.rows


async def _streams(alone: Alone, name: str, path: str, options: Options) -> Row:
    tokens = options.choose(TOKENS, 50)
    load = Load(LITELLM_STREAMS, LITELLM_STREAMS, STARTS_PER_SECOND)
    row = stream_row(await alone.run(name, load, max_tokens=tokens, path=path), streams=LITELLM_STREAMS, tokens=tokens)
    return {**row, "tokens_per_cpu_second": 1e6 / row["us_per_token"]}


async def _requests(alone: Alone, name: str, path: str, options: Options) -> Row:
    count = LITELLM_REQUESTS if name in LITELLMS else VILIX_REQUESTS
    load = Load(CLIENTS, options.choose(count, count // 10))
    row = request_row(await alone.run(name, load, stream=False, max_tokens=REQUEST_TOKENS, path=path))
    return {f"whole_{key}": value for key, value in row.items()}


def _clients(alone: Alone) -> list[str]:
    """Return what tells apart the HTTP clients that the upstream has had requests of."""
    with urllib.request.urlopen(f"http://{LOOPBACK}:{alone.ports[UPSTREAM]}/clients", timeout=10) as response:
        clients: list[str] = json.loads(response.read())
    return clients


async def peers(options: Options) -> Rows:
    """Measure the gateway, vllm-router, sglang-router and the bare writer."""
    if not PEERS_PYTHON.exists():
        raise FileNotFoundError("the routers are not installed; run: make .cache/peers/.installed")
    recorder, names, tokens = Recorder(), ("gateway", *PEERS, "bare"), options.choose(TOKENS, 50)
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with running(Path(directory), display(), names) as alone:
            for name in names:
                await warm_up(alone, name)
            for number in range(options.rounds):
                for streams in PEER_STREAMS:
                    for name in in_turns(names, number):
                        recorder.add(f"{name} {streams}", await paced(alone, name, streams, tokens))
    return recorder.rows
