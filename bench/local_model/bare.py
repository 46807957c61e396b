"""`python -m bench.local_model.bare`: the engine's own loop, without Triton and without anything around it.

Reads JSON lines of prompts (lists of lists of token ids), answers each with tokens per second.
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

    def has_room(self) -> bool:
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
    """Answer the lines of standard input. The first argument is the engine's arguments as JSON."""
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    engine = llamacpp.create(arguments)
    for line in sys.stdin:
        asked = json.loads(line)
        sinks = [_Sink() for _ in asked["prompts"]]
        params = Params(max_tokens=asked["max_tokens"], ignore_eos=True, temperature=asked["temperature"])
        began = time.perf_counter()
        for prompt, sink in zip(asked["prompts"], sinks, strict=True):
            engine.submit(Request(params=params, prompt_token_ids=prompt), sink)
        for sink in sinks:
            sink.ended.wait()
        print(sum(sink.count for sink in sinks) / (time.perf_counter() - began), flush=True)
    engine.close()


if __name__ == "__main__":
    main()
