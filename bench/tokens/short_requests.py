"""Short requests through the gateway alone, and the first token beside a direct call of the worker."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from bench.gateway import system
from bench.gateway.clients import DirectClient, HttpClient
from bench.tokens.gateway_alone import running
from bench.tokens.load_client import Load, percentiles, request_row
from bench.tokens.part import Options, Recorder, Rows, display, in_turns
from bench.tokens.streaming import warm_up

CLIENTS: Final = 16
REQUESTS: Final = 3000
KINDS: Final = (("whole", False, 8), ("streamed", True, 4))
"""The kinds of requests: streamed or not, and the number of tokens."""


async def requests(options: Options) -> Rows:
    """Measure requests with 8 tokens that are not streamed, and with 4 that are, from 16 clients and from one."""
    recorder, count = Recorder(), options.choose(REQUESTS, 300)
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with running(Path(directory), display(), ["instant_gateway"]) as alone:
            await warm_up(alone, "instant_gateway")
            for number in range(options.rounds):
                for name, stream, tokens in in_turns(KINDS, number):
                    for clients, all_of_them in ((CLIENTS, count), (1, count // 10)):
                        report = await alone.run(
                            "instant_gateway", Load(clients, all_of_them), stream=stream, max_tokens=tokens
                        )
                        recorder.add(f"{name}, {clients} {'clients' if clients > 1 else 'client'}", request_row(report))
    return recorder.rows


async def first_token(options: Options) -> Rows:
    """Measure the first token through the gateway and by a direct gRPC call of the same worker, in turns.

    The worker, Triton and the replay engine are real, and the engine answers at once. There is one client.
    """
    recorder, count = Recorder(), options.choose(400, 40)
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with system.running(Path(directory), display(), litellm=False) as running_system:
            direct = DirectClient(running_system.worker)
            ours = await HttpClient.connect(running_system.gateway_port, running_system.api_key)
            for number in range(options.rounds + 1):
                seconds: dict[str, list[float]] = {"direct": [], "gateway": []}
                for _ in range(count):
                    seconds["direct"].append(await direct.first_token(system.INSTANT))
                    seconds["gateway"].append((await ours.stream(system.INSTANT))[0])
                # The first round warms up.
                if number:
                    row = {}
                    for name, values in seconds.items():
                        row[f"{name}_ms_p50"], row[f"{name}_ms_p99"] = (each * 1000 for each in percentiles(values))
                    for which in ("p50", "p99"):
                        row[f"added_ms_{which}"] = row[f"gateway_ms_{which}"] - row[f"direct_ms_{which}"]
                    recorder.add("first token", row)
            await direct.close()
            ours.close()
    return recorder.rows
