"""Chat requests and their streamed responses."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import orjson

MODEL: Final = "replay"


def body(word: str = "", *, stream: bool = True, **fields: Any) -> dict[str, Any]:
    """Return the body of a request that is answered with the recording of `word`."""
    content = f"{word} please" if word else "Hello"
    return {"model": MODEL, "stream": stream, "messages": [{"role": "user", "content": content}], **fields}


@dataclass
class Stream:
    """The events of a streamed response."""

    chunks: list[dict[str, Any]] = field(default_factory=list)
    done: bool = False

    @property
    def text(self) -> str:
        return "".join(c["choices"][0]["delta"].get("content") or "" for c in self.chunks if c.get("choices"))

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [chunk["error"] for chunk in self.chunks if "error" in chunk]

    @property
    def finish_reasons(self) -> list[str]:
        choices = [choice for chunk in self.chunks for choice in chunk.get("choices", ())]
        return [choice["finish_reason"] for choice in choices if choice["finish_reason"]]

    @property
    def is_whole(self) -> bool:
        return self.done and not self.errors and self.finish_reasons == ["stop"]

    def add(self, line: str) -> None:
        if line == "data: [DONE]":
            self.done = True
        elif line.startswith("data: "):
            self.chunks.append(orjson.loads(line[6:]))


async def read(client: httpx.AsyncClient, word: str, *, begun: asyncio.Event | None = None, **fields: Any) -> Stream:
    """Read a streamed response to its end. `begun` is set when its first token arrives."""
    stream = Stream()
    async with client.stream("POST", "/chat/completions", json=body(word, **fields)) as response:
        assert response.status_code == 200, (await response.aread()).decode()
        async for line in response.aiter_lines():
            stream.add(line)
            if begun is not None and stream.text:
                begun.set()
    return stream
