"""Records the answers of a model to all prompts, through the engine llamacpp."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final

from bench.auto_calls.prompts import Prompt
from services.inference.model.chat_template import ChatTemplate
from services.inference.model.detokenizer import Detokenizer
from services.inference.model.tokenizer import ModelTokenizer
from services.inference.triton_backend.contract import Params, Request, Tokens, Usage
from services.inference.triton_backend.engines.llamacpp import LlamaCppEngine
from services.worker.triton_kit.request_error import RequestError

MAX_TOKENS: Final = 120
CONTEXT_TOKENS: Final = 1024
DECIDED_CHARACTERS: Final = 80
"""An answer that begins as JSON and has no name of a function by then is no call. It is cut off, to save time."""
AT_ONCE: Final = 10
"""All prompts with the same tools."""
_JSON_BEGIN: Final = re.compile(r"\s*(```\w*\s*)?[\[{]")


class _Sink:
    """Collects the text of one answer, until it is clear that it neither is nor begins with a call."""

    def __init__(self, prompt: Prompt, tokenizer: ModelTokenizer, ended: SimpleQueue[_Sink]) -> None:
        self.prompt: Final = prompt
        self.text = ""
        self.finish_reason = ""
        self._detokenizer: Final = Detokenizer(tokenizer)
        self._ended: Final = ended

    def has_capacity(self) -> bool:
        return True

    def is_cancelled(self) -> bool:
        names = (tool["name"] for tool in self.prompt.tools)
        is_json = len(self.text) >= DECIDED_CHARACTERS and _JSON_BEGIN.match(self.text)
        return bool(is_json) and not any(name in self.text for name in names)

    def note_progress(self) -> None:
        """Ignore it: only text is recorded."""

    def emit(self, tokens: Tokens) -> None:
        self.text += "".join(map(self._detokenizer.feed, tokens.token_ids))

    def finish(self, finish_reason: str, usage: Usage, last: Tokens | None = None) -> None:
        del usage
        if last is not None:
            self.emit(last)
        self.finish_reason = finish_reason
        self._ended.put(self)

    def fail(self, error: RequestError) -> None:
        raise error

    def record(self) -> str:
        """Return the answer as JSON text."""
        answer = {"prompt": self.prompt.text, "answer": self.text, "finish_reason": self.finish_reason}
        return json.dumps(answer, ensure_ascii=False)


def record(
    sets: Iterable[Sequence[Prompt]], directory: Path, sampling: Mapping[str, Any], records: Path, *, threads: int
) -> None:
    """Append the answers that `records` lacks to it, one JSON object in each line.

    Args:
        sets: Lists of prompts with the same tools, which are answered at once.
        directory: The model's directory, with tokenizer, chat template and weights.
        sampling: Sampling fields of the catalog entry. The temperature is 0 instead.
        records: The file, which may have a part of the answers already.
        threads: The number of threads of the engine.
    """
    tokenizer, template = ModelTokenizer(directory), ChatTemplate(directory)
    params = Params(max_tokens=MAX_TOKENS, **{**sampling, "temperature": 0})
    model, known = str(directory / "model.gguf"), read_records(records)
    engine = LlamaCppEngine(model=model, context_length=CONTEXT_TOKENS, slots=AT_ONCE, threads=threads)
    try:
        with records.open("a") as file:
            for prompts in sets:
                missing = {p.text: _token_ids(p, tokenizer, template) for p in prompts if p.text not in known}
                ended: SimpleQueue[_Sink] = SimpleQueue()
                sinks = [_Sink(prompt, tokenizer, ended) for prompt in prompts if prompt.text in missing]
                # The first prompt is read alone, so that the others share its tools.
                for sink in sinks[:1]:
                    first = Request(params=Params(max_tokens=1), prompt_token_ids=missing[sink.prompt.text])
                    engine.submit(first, _Sink(sink.prompt, tokenizer, ended))
                    ended.get()
                for sink in sinks:
                    engine.submit(Request(params=params, prompt_token_ids=missing[sink.prompt.text]), sink)
                for _ in sinks:
                    file.write(ended.get().record() + "\n")
                    file.flush()
    finally:
        engine.close()


def _token_ids(prompt: Prompt, tokenizer: ModelTokenizer, template: ChatTemplate) -> list[int]:
    """Render a prompt as the worker does."""
    tools = [{"type": "function", "function": tool} for tool in prompt.tools]
    rendered = template.render([{"role": "user", "content": prompt.text}], tools=tools)
    return tokenizer.encode(rendered, most=CONTEXT_TOKENS)


def read_records(path: Path) -> dict[str, str]:
    """Return the recorded answers by the text of their prompt; none if there is no such file."""
    lines = path.read_text().splitlines() if path.exists() else []
    return {record["prompt"]: record["answer"] for record in map(json.loads, lines)}
