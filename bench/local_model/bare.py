"""Run the engine llamacpp by itself, without Triton or any service: `python -m bench.local_model.bare ARGUMENTS`.

It reads lines of JSON with prompts (lists of token ids), which it generates for at once, and answers each line with a
line of JSON: the `tokens` of all responses, and for each prompt the seconds until its `first` token and its `last` one.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

from services.inference.triton_backend.contract import Params, Request, Tokens, Usage
from services.inference.triton_backend.engines import llamacpp
from services.worker.triton_kit.request_error import RequestError


class _Sink:
    """Counts the tokens of one request."""

    def __init__(self) -> None:
        self.count = 0
        self.began = time.perf_counter()
        self.first: float | None = None
        self.last = 0.0
        self.ended = threading.Event()

    def has_capacity(self) -> bool:
        return True

    def is_cancelled(self) -> bool:
        return False

    def note_progress(self) -> None:
        """Ignore it: only tokens are counted."""

    def emit(self, tokens: Tokens) -> None:
        self.count += len(tokens.token_ids)
        self.last = time.perf_counter() - self.began
        if self.first is None and tokens.token_ids:
            self.first = self.last

    def finish(self, finish_reason: str, usage: Usage, last: Tokens | None = None) -> None:
        if last is not None:
            self.emit(last)
        self.ended.set()

    def fail(self, error: RequestError) -> None:
        raise error


def main() -> None:
    """Generate for each line of standard input. The first argument is the engine's arguments as JSON."""
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    engine = llamacpp.create(arguments)
    for line in sys.stdin:
        batch = json.loads(line)
        params = Params(max_tokens=batch["max_tokens"], ignore_eos=True, **batch["sampling"])
        sinks = []
        for prompt in batch["prompts"]:
            sinks.append(_Sink())
            engine.submit(Request(params=params, prompt_token_ids=prompt), sinks[-1])
        for sink in sinks:
            sink.ended.wait()
        times = {"first": [sink.first for sink in sinks], "last": [sink.last for sink in sinks]}
        print(json.dumps({"tokens": sum(sink.count for sink in sinks), **times}), flush=True)
    engine.close()


if __name__ == "__main__":
    main()
