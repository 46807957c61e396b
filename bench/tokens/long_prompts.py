"""Prompts of 10,000 to 100,000 tokens, as agents send them: the way to the engine, beside the tokenizer alone."""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from random import Random
from typing import Any, Final

from tokenizers import Tokenizer

from bench.tokens import whole_path
from bench.tokens.load_client import Row
from bench.tokens.part import Options, Recorder, Rows, display
from bench.tokens.whole_path import ROOT, WholePath
from services.stack.ports import LOOPBACK

PROMPT_TOKENS: Final = (10_000, 50_000, 100_000)
REPETITIONS: Final = 3
"""Requests of each length in a round, of which the median counts."""
LONG_BLOCK_SECONDS: Final = 0.020


def prompt(tokenizer: Tokenizer, tokens: int) -> str:
    """Return text of the documentation and the code with so many tokens."""
    files = [*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "services" / "gateway").rglob("*.py"))]
    paragraphs = [part for file in files for part in file.read_text().split("\n\n")]
    # Prompts of each length have the same mixture.
    Random(1).shuffle(paragraphs)  # noqa: S311  # no secret
    text = "\n\n".join(paragraphs)
    encoding = tokenizer.encode(text, add_special_tokens=False)
    if len(encoding.ids) < tokens:
        raise ValueError(f"the text has {len(encoding.ids)} tokens; {tokens} are needed")
    return text[: encoding.offsets[tokens - 1][1]]


async def prompts(options: Options) -> Rows:
    """Measure the time from sending a request until the worker hands it to Triton, and the tokenizer's own time."""
    recorder = Recorder()
    with tempfile.TemporaryDirectory(prefix="vilix-bench-") as directory:
        async with whole_path.running(Path(directory), display(), timed=True) as path:
            tokenizer = Tokenizer.from_file(str(path.tokenizer))
            texts = {tokens: prompt(tokenizer, tokens) for tokens in PROMPT_TOKENS}
            await _to_engine(path, texts[PROMPT_TOKENS[0]])
            for _ in range(options.rounds):
                for tokens, text in texts.items():
                    recorder.add(f"{tokens} tokens", await _row(path, tokenizer, text))
    return recorder.rows


async def _row(path: WholePath, tokenizer: Tokenizer, text: str) -> Row:
    alone, ours, began, before = [], [], time.monotonic(), path.cpu_seconds()
    count = 0
    for _ in range(REPETITIONS):
        started = time.perf_counter()
        # The fastest way that the library has, without the positions of tokens in the text.
        count = len(tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids)
        alone.append(time.perf_counter() - started)
        ours.append(await _to_engine(path, text))
    after = path.cpu_seconds()
    blocks = {
        part: [note["seconds"] for note in path.notes(part) if note["what"] == "blocked" and note["at"] >= began]
        for part in ("gateway", "worker")
    }
    return {
        "tokens": count,
        "tokenizer_ms": statistics.median(alone) * 1000,
        "to_engine_ms": statistics.median(ours) * 1000,
        "ratio": statistics.median(ours) / statistics.median(alone),
        "us_per_token": statistics.median(ours) / count * 1e6,
        **{f"{part}_cpu_ms": (after[part] - before[part]) / REPETITIONS * 1000 for part in ("gateway", "worker")},
        **{f"{part}_longest_block_ms": max(blocks[part], default=0.0) * 1000 for part in blocks},
        "blocks_over_20_ms": sum(seconds > LONG_BLOCK_SECONDS for part in blocks for seconds in blocks[part]),
    }


async def _to_engine(path: WholePath, text: str) -> float:
    """Send a request, read its response, and return the seconds until the worker handed it to Triton."""
    body = json.dumps(path.body(text, max_tokens=1)).encode()
    reader, writer = await asyncio.open_connection(LOOPBACK, path.port)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {LOOPBACK}\r\nAuthorization: Bearer {path.api_key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    began = time.monotonic()
    writer.write(head.encode() + body)
    response = await reader.read(-1)
    writer.close()
    if not response.startswith(b"HTTP/1.1 200") or b"[DONE]" not in response:
        raise ConnectionError(response[:1000].decode(errors="replace"))
    notes: list[dict[str, Any]] = path.notes("worker")
    return float(next(note["at"] for note in notes if note["what"] == "to_engine" and note["at"] >= began)) - began
