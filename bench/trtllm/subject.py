"""The engine under test, and requests to it."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.inference.triton_backend.contract import Params, Request, Tokens, Usage
from services.inference.triton_backend.engines.trtllm import TrtllmEngine
from services.inference.triton_backend.params_parser import parse
from services.worker.triton_kit.request_error import RequestError

ANSWER_SECONDS = 120
"""The most seconds of one request. The first ones may wait for kernels to be compiled."""


class Skipped(Exception):
    """The check does not apply. The message says why."""


class Reader:
    """A sink that collects all outputs of a request."""

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.top: list[list[tuple[int, float]]] = []
        self.moments: list[float] = []
        """The times at which tokens arrived, in seconds of the monotonic clock."""
        self.reason = ""
        self.usage = Usage()
        self.error: RequestError | None = None
        self.cancelled = False
        self.started = threading.Event()
        self._ended = threading.Event()

    def has_capacity(self) -> bool:
        """Implement Sink."""
        return True

    def is_cancelled(self) -> bool:
        """Implement Sink."""
        return self.cancelled

    def note_progress(self) -> None:
        """Implement Sink."""

    def emit(self, tokens: Tokens) -> None:
        """Implement Sink."""
        self.token_ids += tokens.token_ids
        self.logprobs += tokens.logprobs or []
        self.top += tokens.top or []
        self.moments.append(time.monotonic())
        self.started.set()

    def finish(self, finish_reason: str, usage: Usage, last: Tokens | None = None) -> None:
        """Implement Sink."""
        if last is not None:
            self.emit(last)
        self.reason, self.usage = finish_reason, usage
        self._ended.set()

    def fail(self, error: RequestError) -> None:
        """Implement Sink."""
        self.error = error
        self._ended.set()

    @property
    def has_ended(self) -> bool:
        """True once the request has ended."""
        return self._ended.is_set()

    def wait(self) -> Reader:
        """Wait until the request ends, and raise the error that ended it, if there is one."""
        if not self._ended.wait(ANSWER_SECONDS):
            raise AssertionError(f"the request did not end within {ANSWER_SECONDS} s")
        if self.error is not None:
            raise self.error
        return self


class Subject:
    """A loaded engine, with functions that send it requests."""

    def __init__(self, engine: TrtllmEngine, directory: Path) -> None:
        self.engine = engine
        self.directory = directory
        self._salts = itertools.count()
        self.question = self.chat("What is the capital of France? Answer in one word.")
        self.repetition = self.ids("ha ha ha ha ha ha ha ha")

    def chat(self, content: Any) -> list[int]:
        """Render a prompt of one user message with the checkpoint's template."""
        messages = [{"role": "user", "content": content}]
        text = self.engine.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return self.ids(text)

    def ids(self, text: str) -> list[int]:
        """Return the token ids of a text."""
        return list(self.engine.tokenizer.encode(text, add_special_tokens=False))

    def text(self, response: Reader) -> str:
        """Return the text of a response without the token that ended it."""
        ends = self.engine.checkpoint.end_ids
        return str(self.engine.tokenizer.decode([i for i in response.token_ids if i not in ends]))

    def start(self, prompt: list[int] | str, images: Sequence[bytes] = (), **params: Any) -> Reader:
        """Start a request. Requests share nothing in the prefix cache unless they have the same `cache_salt`."""
        # Cached values may differ in their last digits, and then greedy responses differ.
        salt = {"cache_salt": f"smoke-{next(self._salts)}"}
        reader, parsed = Reader(), parse(json.dumps(salt | params))
        assert isinstance(parsed, Params)
        request = (
            Request(parsed, text_input=prompt, images=tuple(images))
            if isinstance(prompt, str)
            else Request(parsed, prompt, images=tuple(images))
        )
        self.engine.submit(request, reader)
        return reader

    def ask(self, prompt: list[int] | str, images: Sequence[bytes] = (), **params: Any) -> Reader:
        """Run a request to its end."""
        return self.start(prompt, images, **params).wait()

    def greedy(self, prompt: list[int], tokens: int = 24, **params: Any) -> list[int]:
        """Return the token ids of a greedy response."""
        return self.ask(prompt, temperature=0, ignore_eos=True, max_tokens=tokens, **params).token_ids

    def needs(self, parameter: str) -> None:
        """Raise Skipped for a parameter that the engine does not support."""
        if parameter not in self.engine.supported_parameters:
            raise Skipped("the engine does not support it")
