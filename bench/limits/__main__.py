"""Measure the cost of keys, limits and usage per request, and print a table: `python -m bench.limits`.

It measures without HTTP: the gateway's own calls in the order of a request, with a real Valkey on this machine.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

from redis.asyncio import Redis
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.record import Outcome
from services.gateway.redis.connection import connect
from services.gateway.redis.link import RedisAwayError, RedisLink
from services.gateway.settings import RedisAwayPolicy
from services.gateway.tenancy import keys
from services.gateway.tenancy.fallback_limits import FallbackLimits
from services.gateway.tenancy.key_cache import KeyCache
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.reservation import Reservations
from services.gateway.tenancy.tiers import Tiers
from services.gateway.tenancy.token_estimate import estimate_of
from services.stack import valkey
from services.stack.ports import free_ports, is_free

REQUESTS = 2_000
ALL_LIMITS = Limits(rpm=10**6, tpm=10**8, concurrency=1000, daily_tokens=10**11, monthly_tokens=10**12)
REQUEST = pb.GenerateRequest(
    model="m", messages=[pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="Why is the sky blue?" * 20)])]
)


async def measure(redis: Redis, *, name: str, limits: Limits) -> list[str]:
    """Measure one row: the cost of requests of a key with these limits."""
    link = RedisLink(redis, timeout=5)
    key_cache, tiers = KeyCache(link, grace_seconds=30), Tiers(None)
    reservations = Reservations(
        link,
        FallbackLimits(RedisAwayPolicy.LOCAL, lambda: 1),
        reservation_seconds=6,
        renew_seconds=2,
        reserve_output=1024,
    )
    _, secret = await keys.create(redis, name=name, limits=limits, model_limits={"m": limits})
    before: list[float] = []
    after: list[float] = []

    async def request() -> None:
        began = time.perf_counter()
        caller = await key_cache.find(secret)
        assert caller is not None  # noqa: S101  # it was just created
        subject, estimate = tiers.subject(caller.key, "m"), estimate_of(REQUEST, reserve_output=1024)
        reservation_id = reservations.new_id("r")
        reservation = reservations.admitted(
            subject, estimate, reservation_id, await reservations.decide(subject, estimate, reservation_id)
        )
        before.append(time.perf_counter() - began)
        reservation.count([pb.Event(started=pb.Started(prompt_tokens=100))])
        # The count of the prompt is corrected in the background, outside the request's path.
        await asyncio.sleep(0.002)
        reservation.count([pb.Event(usage=pb.Usage(prompt_tokens=100, completion_tokens=50))])
        began = time.perf_counter()
        await reservation.settle(Outcome.COMPLETE)
        after.append(time.perf_counter() - began)

    await request()
    await redis.config_resetstat()
    before.clear()
    after.clear()
    began = _processor_seconds()
    for _ in range(REQUESTS):
        await request()
    own = _processor_seconds() - began
    stats = await redis.info("commandstats")
    commands = {command: stats[f"cmdstat_{command}"] for command in ("evalsha",)}
    calls = sum(each["calls"] for each in commands.values())
    server = sum(each["usec"] for each in commands.values())
    return [
        name,
        f"{calls / REQUESTS:.2f}",
        f"{median(before) * 1e6:.0f} / {quantiles(before, n=100)[98] * 1e6:.0f}",
        f"{median(after) * 1e6:.0f} / {quantiles(after, n=100)[98] * 1e6:.0f}",
        f"{own / REQUESTS * 1e6:.0f}",
        f"{server / REQUESTS:.0f}",
    ]


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def report(url: str) -> None:
    """Measure with and without limits, and print a table."""
    redis = connect(url, timeout=5)
    rows = [
        await measure(redis, name="no limits", limits=Limits()),
        await measure(redis, name="all limits, of key and model", limits=ALL_LIMITS),
    ]
    await redis.aclose()
    columns = ("key with", "round trips", "before the worker, µs p50 / p99", "settling, µs p50 / p99")
    head = [*columns, "gateway CPU, µs", "Redis CPU, µs"]
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(row) + " |")


async def added_while_frozen(url: str, pid: int) -> None:
    """Measure how long requests of a cached key wait while Redis is frozen."""
    link = RedisLink(connect(url, timeout=0.05), timeout=0.05)
    key_cache, tiers = KeyCache(link, grace_seconds=30), Tiers(None)
    reservations = Reservations(
        link,
        FallbackLimits(RedisAwayPolicy.LOCAL, lambda: 1),
        reservation_seconds=6,
        renew_seconds=2,
        reserve_output=1024,
    )
    _, secret = await keys.create(link.redis, name="frozen")
    waited: list[float] = []

    async def request() -> None:
        began = time.perf_counter()
        caller = await key_cache.find(secret)
        assert caller is not None  # noqa: S101  # it was just created
        subject, estimate = tiers.subject(caller.key, "m"), estimate_of(REQUEST, reserve_output=1024)
        reservation_id = reservations.new_id("r")
        try:
            await reservations.decide(subject, estimate, reservation_id)
        except RedisAwayError:
            reservations.admit_without_redis(subject, estimate, reservation_id)
        waited.append(time.perf_counter() - began)

    await request()
    os.kill(pid, signal.SIGSTOP)
    waited.clear()
    try:
        for _ in range(20):
            await asyncio.gather(*(request() for _ in range(20)))
            await asyncio.sleep(0.05)
    finally:
        os.kill(pid, signal.SIGCONT)
    await link.close()
    p50, p99, most = median(waited) * 1e3, quantiles(waited, n=100)[98] * 1e3, max(waited) * 1e3
    print(
        "\nWait for a frozen Redis, with a timeout of 50 ms, over 400 requests: "
        f"p50 {p50:.1f}, p99 {p99:.1f}, max {most:.1f} ms"
    )


def main() -> None:
    """Start a Valkey, measure, and stop it."""
    with tempfile.TemporaryDirectory() as directory:
        port = free_ports(1)[0]
        process = subprocess.Popen(
            valkey.command(port=port, directory=Path(directory), persist=False), stdout=subprocess.DEVNULL
        )
        url = f"redis://127.0.0.1:{port}/0"
        try:
            while is_free(port):
                time.sleep(0.02)
            asyncio.run(report(url))
            asyncio.run(added_while_frozen(url, process.pid))
        finally:
            process.terminate()
            process.wait(10)


if __name__ == "__main__":
    main()
