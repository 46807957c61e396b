"""Run the engine llamacpp by itself, without Triton or any service: `python -m bench.local_model.bare ARGUMENTS`.

It reads lines of JSON with prompts (lists of token ids) and prints the tokens per second for each line.
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
        self.ended = threading.Event()

    def has_capacity(self) -> bool:
        return True

    def is_cancelled(self) -> bool:
        return False

    def emit(self, tokens: Tokens) -> None:
        self.count += len(tokens.token_ids)

    def finish(self, finish_reason: str, usage: Usage, last: Tokens | None = None) -> None:
        self.count += len(last.token_ids) if last else 0
        self.ended.set()

    def fail(self, error: RequestError) -> None:
        raise error


def main() -> None:
    """Generate for each line of standard input. The first argument is the engine's arguments as JSON."""
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    engine = llamacpp.create(arguments)
    for line in sys.stdin:
        batch = json.loads(line)
        sinks = [_Sink() for _ in batch["prompts"]]
        params = Params(max_tokens=batch["max_tokens"], ignore_eos=True, temperature=batch["temperature"])
        began = time.perf_counter()
        for prompt, sink in zip(batch["prompts"], sinks, strict=True):
            engine.submit(Request(params=params, prompt_token_ids=prompt), sink)
        for sink in sinks:
            sink.ended.wait()
        print(sum(sink.count for sink in sinks) / (time.perf_counter() - began), flush=True)
    engine.close()


if __name__ == "__main__":
    main()
