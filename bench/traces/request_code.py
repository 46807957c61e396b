"""Measure the code around one request in a gateway and in a worker, without network, model or limits.

`python -P bench/traces/request_code.py` measures the packages on PYTHONPATH, also those of an older checkout, with
traces as the environment says. It prints the processor time in µs per request, of the thread that exports included.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import inspect
import json
import sys
import time
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.edge.access import Access
from services.gateway.record import Outcome
from services.inference.generation.usage import UsageCount
from services.runtime.telemetry import configure_logging
from services.worker.triton_messages import EngineOutput

REQUESTS: Final = 1_000
STAGES: Final = ("authenticate", "read", "admit", "serve")
REQUEST: Final = pb.GenerateRequest(model="m", messages=[pb.Message(role=pb.ROLE_USER)])
SCOPE: Final = {"type": "http", "method": "POST", "path": "/api/chat/completions", "scheme": "http"}
HEADERS: Final = [(b"host", b"localhost"), (b"authorization", b"Bearer vlx_x"), (b"content-type", b"application/json")]
USAGE: Final = {"cached_tokens": 0, "timings": {"queued_s": 0.001, "prefill_s": 0.01, "decode_s": 0.1}}
OUTPUT: Final = EngineOutput([1], None, None, None, "stop", USAGE)


async def handle(scope: Any, receive: Any, send: Any) -> None:
    """Note what the pipeline notes, and respond."""
    record = scope["state"]["record"]
    if hasattr(record, "enter"):
        for stage in STAGES:
            record.enter(stage)
    record.key_id, record.outcome = "key_1", Outcome.COMPLETE
    record.note_model("m", is_known=True)
    if getattr(record, "trace", None) is not None:
        call = record.trace.call("127.0.0.1:9001", "vilix.inference.v1.InferenceService/Generate")
        call.context.traceparent()
        call.end(None)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def drop(message: Any) -> None:
    """Send nothing."""


async def gateway(tracer: Any) -> None:
    """Serve requests."""
    options = {} if tracer is None else {"tracer": tracer}
    access = Access(handle, origins=["*"], **options)
    for _ in range(REQUESTS):
        await asyncio.create_task(access({**SCOPE, "headers": list(HEADERS)}, drop, drop))


async def worker(tracer: Any) -> None:
    """Count requests."""
    options = {} if "request" not in inspect.signature(UsageCount).parameters else {"request": REQUEST}
    options |= {} if tracer is None else {"tracer": tracer}

    async def call() -> None:
        with UsageCount("req-1", "m", **options) as usage:
            if hasattr(usage, "note_rendered"):
                usage.note_rendered()
            usage.take_started_event([], [])
            usage.note(OUTPUT)
            usage.event([])

    for _ in range(REQUESTS):
        await asyncio.create_task(call())


def tracing() -> Any:
    """Return the context of the tracer, or of None in a checkout without traces."""
    if importlib.util.find_spec("services.runtime.tracing") is None:
        return contextlib.nullcontext()
    from services.runtime.tracing.opening import opened_tracer  # noqa: PLC0415

    return opened_tracer("gateway", slow_seconds=30)


def main() -> None:
    """Measure, and print the results as JSON."""
    configure_logging("gateway")
    measured = {}
    for part in (gateway, worker):
        with tracing() as tracer:
            asyncio.run(part(None))  # warms up
            before = time.process_time()
            asyncio.run(part(tracer))
        # All spans were exported now.
        measured[part.__name__] = (time.process_time() - before) / REQUESTS * 1e6
    json.dump(measured, sys.stdout)


if __name__ == "__main__":
    main()
