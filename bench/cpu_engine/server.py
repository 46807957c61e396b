"""Run the server inside xllamacpp, by its own API: `python -m bench.cpu_engine.server ARGUMENTS`.

The arguments are those of our engine, as JSON. It reads and writes the same lines as `bench.local_model.bare`. The
server keeps back tokens that are part of a character, so that `tokens` come from its own report at the end.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import xllamacpp

from bench.cpu_engine import BATCH_TOKENS


class _Response:
    """Notes the times of one response."""

    def __init__(self) -> None:
        self.count = 0
        self.began = time.perf_counter()
        self.first: float | None = None
        self.last = 0.0

    def note(self, part: str) -> bool:
        """Note a part of the response. Return False, so that the server goes on."""
        message = json.loads(part)
        if "error" in message:
            raise RuntimeError(message["error"])
        self.last = time.perf_counter() - self.began
        if self.first is None:
            self.first = self.last
        if "usage" in message:
            self.count = message["usage"]["completion_tokens"]
        return False


def open_server(arguments: dict[str, Any]) -> Any:
    """Start a server with the model, context, slots and threads of our engine's `arguments`."""
    params = xllamacpp.CommonParams()
    params.model.path = arguments["model"]
    params.n_parallel = arguments["slots"]
    params.n_ctx = arguments["context_length"] * arguments["slots"]
    params.n_batch = params.n_ubatch = BATCH_TOKENS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = arguments["threads"]
    params.fit_params = False
    # A cache of earlier prompts would copy them out of the slots.
    params.cache_ram_mib = 0
    return xllamacpp.Server(params)


def main() -> None:
    """Generate for each line of standard input."""
    server = open_server(json.loads(sys.argv[1]))
    for line in sys.stdin:
        batch = json.loads(line)
        common = {"n_predict": batch["max_tokens"], "ignore_eos": True, "stream": True, "cache_prompt": False}
        responses, threads = [], []
        for prompt in batch["prompts"]:
            responses.append(_Response())
            body = json.dumps({**common, **batch["sampling"], "prompt": prompt})
            threads.append(threading.Thread(target=server.handle_completions, args=(body, responses[-1].note)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        times = {"first": [one.first for one in responses], "last": [one.last for one in responses]}
        print(json.dumps({"tokens": sum(one.count for one in responses), **times}), flush=True)


if __name__ == "__main__":
    main()
