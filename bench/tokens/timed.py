"""Run a service and measure inside it: `python -m bench.tokens.timed MODULE FILE`.

It writes a JSON object a line to FILE, whose `at` is the time of `time.monotonic`, which all processes share:

    {"what": "gathered", "at", "ms"}                   a worker hands a message to gRPC; how long each output has waited
    {"what": "to_engine", "at"}                        a worker has handed a request to the stream of Triton
    {"what": "blocked", "at", "seconds"}               the event loop was late because its own process was busy
"""

from __future__ import annotations

import contextlib
import json
import runpy
import sys
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.runtime import loop_watch

NOTED_BLOCK_SECONDS: Final = 0.005


class Notes:
    """The file."""

    def __init__(self, path: Path) -> None:
        """Write to the file at `path`."""
        self._file: Final = path.open("a", buffering=1)

    def note(self, what: str, **fields: Any) -> None:
        """Write a line."""
        self._file.write(json.dumps({"what": what, "at": time.monotonic(), **fields}) + "\n")


def watch_loop(notes: Notes) -> None:
    """Note each time that the event loop is blocked."""
    observe = loop_watch.BLOCKED_SECONDS.observe

    def noted(seconds: float) -> None:
        if seconds >= NOTED_BLOCK_SECONDS:
            notes.note("blocked", seconds=seconds)
        observe(seconds)

    loop_watch.BLOCKED_SECONDS.observe = noted  # type: ignore[method-assign, assignment]


def watch_worker(notes: Notes) -> None:
    """Note when requests go to Triton, and how long the outputs of a step wait for their message."""
    from services.inference.call_demultiplexer import CallDemultiplexer  # noqa: PLC0415  # a gateway has it not
    from services.worker.step_stream import StepStream  # noqa: PLC0415

    begin = StepStream.begin

    def begin_noted(self: StepStream, *args: Any, **options: Any) -> Any:
        request = begin(self, *args, **options)
        notes.note("to_engine")
        return request

    StepStream.begin = begin_noted  # type: ignore[method-assign]
    put_text, put_events, responses = (
        CallDemultiplexer.put_text,
        CallDemultiplexer.put_events,
        CallDemultiplexer.responses,
    )
    came: dict[CallDemultiplexer, list[float]] = defaultdict(list)

    def put_text_noted(self: CallDemultiplexer, *args: Any, **options: Any) -> None:
        came[self].append(time.monotonic())
        put_text(self, *args, **options)

    def put_events_noted(self: CallDemultiplexer, *args: Any, **options: Any) -> None:
        came[self].append(time.monotonic())
        put_events(self, *args, **options)

    async def responses_noted(
        self: CallDemultiplexer, requests: AsyncIterator[pb.GenerateManyRequest]
    ) -> AsyncGenerator[pb.GenerateManyResponse, None]:
        async with contextlib.aclosing(responses(self, requests)) as messages:
            async for message in messages:
                if times := came.pop(self, []):
                    now = time.monotonic()
                    notes.note("gathered", ms=[round((now - at) * 1000, 3) for at in times])
                yield message

    CallDemultiplexer.put_text = put_text_noted  # type: ignore[method-assign]
    CallDemultiplexer.put_events = put_events_noted  # type: ignore[method-assign]
    CallDemultiplexer.responses = responses_noted  # type: ignore[method-assign]


def main() -> None:
    """Run the service until it ends."""
    module, path = sys.argv[1:]
    notes = Notes(Path(path))
    watch_loop(notes)
    if module == "services.inference":
        watch_worker(notes)
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
