"""Compare the gateway's client of Redis with others by the limits script: `python -m bench.redis_clients`.

The others are not installed with Vilix: `uv pip install coredis valkey-glide`. docs/adr/0009-connection-to-redis.md has
the figures that decided.
"""

from __future__ import annotations

import asyncio
import importlib
import itertools
import resource
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import uvloop
from redis.asyncio import Redis

from services.gateway.record import Outcome
from services.gateway.redis.connection import connect
from services.gateway.tenancy import limits_script
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.token_estimate import TokenEstimate
from services.stack import valkey
from services.stack.ports import free_ports, is_free

ROUNDS = 9
REQUESTS = {1: 600, 32: 3200, 256: 5120}
"""Requests of a round, by the number of callers at once. Each is two calls: admit and settle."""
LIMITS = Limits(rpm=10**6, tpm=10**8, concurrency=10**4, daily_tokens=10**11, monthly_tokens=10**12)
SUBJECT = limits_script.Subject(key=Key(id="k", name="k", created=0), model="m", limits=LIMITS, model_limits=LIMITS)
ESTIMATE = TokenEstimate(model="m", prompt=100, output=50, max_output=1024)


class Coredis:
    """coredis with one connection, behind the interface of redis-py."""

    @classmethod
    async def open(cls, port: int) -> Coredis:
        """Connect."""
        client = cls()
        module = importlib.import_module("coredis")
        client._redis = module.Redis(host="127.0.0.1", port=port, decode_responses=True, max_connections=1)
        await client._redis.__aenter__()
        return client

    async def evalsha(self, digest: str, _: int, key: str, *arguments: str) -> Any:
        """Run a script."""
        return await self._redis.evalsha(digest, [key], list(arguments))

    async def aclose(self) -> None:
        """Disconnect."""
        await self._redis.__aexit__(None, None, None)


class Glide:
    """valkey-glide, behind the interface of redis-py."""

    @classmethod
    async def open(cls, port: int) -> Glide:
        """Connect."""
        client = cls()
        glide = importlib.import_module("glide")
        address = glide.NodeAddress("127.0.0.1", port)
        client._glide = await glide.GlideClient.create(glide.GlideClientConfiguration([address], request_timeout=5000))
        return client

    async def evalsha(self, digest: str, keys: int, key: str, *arguments: str) -> Any:
        """Run a script."""
        return await self._glide.custom_command(["EVALSHA", digest, str(keys), key, *arguments])

    async def aclose(self) -> None:
        """Disconnect."""
        await self._glide.close()


async def measure(client: Any, callers: int, ids: itertools.count[int]) -> tuple[float, float]:
    """Return the microseconds of a call: by the clock, and of the process's CPU time."""
    requests = iter(range(REQUESTS[callers]))

    async def call() -> None:
        for _ in requests:
            reservation = limits_script.ReservationId(f"r{next(ids)}", "request", 6)
            decision = await limits_script.admit(client, SUBJECT, ESTIMATE, reservation)
            assert decision.rejection is None  # noqa: S101  # the limits are far away
            produced = limits_script.Produced(prompt=100, completion=50)
            await limits_script.settle(client, SUBJECT, reservation, produced, outcome=Outcome.COMPLETE)

    began, used = time.perf_counter(), _processor_seconds()
    await asyncio.gather(*(call() for _ in range(callers)))
    microseconds = 1e6 / (2 * REQUESTS[callers])
    return (time.perf_counter() - began) * microseconds, (_processor_seconds() - used) * microseconds


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def compare(port: int) -> None:
    """Measure all clients in turn, and print a table."""
    url = f"redis://127.0.0.1:{port}"
    clients: dict[str, Any] = {"ours": connect(url, timeout=5)}
    clients["coredis"] = await Coredis.open(port)
    clients["valkey-glide"] = await Glide.open(port)
    clients["redis-py"] = Redis.from_url(url, decode_responses=True, max_connections=256)
    await limits_script.show(clients["ours"], SUBJECT)  # The server knows the script from now on.
    ids = itertools.count()
    print("| callers | client | time per call, µs | ratio | CPU per call, µs | ratio |\n|---|---|---|---|---|---|")
    for callers in REQUESTS:
        rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
        for number in range(-1, ROUNDS):
            order = list(clients)[number % len(clients) :] + list(clients)[: number % len(clients)]
            for name in order:
                result = await measure(clients[name], callers, ids)
                # The first round warms up.
                if number >= 0:
                    rounds[name].append(result)
        for name, results in rounds.items():
            cells = []
            for column in (0, 1):
                values = [result[column] for result in results]
                ratio = median(value / own[column] for value, own in zip(values, rounds["ours"], strict=True))
                cells += [f"{median(values):.0f} ({min(values):.0f}-{max(values):.0f})", f"{ratio:.2f}"]
            print(f"| {callers} | {name} | {' | '.join(cells)} |")
    for client in clients.values():
        await client.aclose()


def main() -> None:
    """Start a Valkey, compare, and stop it."""
    with tempfile.TemporaryDirectory() as directory:
        port = free_ports(1)[0]
        command = valkey.command(port=port, directory=Path(directory), persist=False)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            while is_free(port):
                time.sleep(0.02)
            uvloop.run(compare(port))
        finally:
            process.terminate()
            process.wait(10)


if __name__ == "__main__":
    main()
