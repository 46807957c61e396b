"""Requests for a generation and their streamed responses: of chats, if no other API is named."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from tests.support.generating_apis import CHAT, Api, Event, event_of

MODEL: Final = "replay"


def body(word: str = "", *, stream: bool = True, api: Api = CHAT, model: str = MODEL, **fields: Any) -> dict[str, Any]:
    """Return the body of a request that is answered with the recording of `word`."""
    return api.body(f"{word} please" if word else "Hello", model, **{"stream": stream, **fields})


@dataclass
class Stream:
    """The events of a streamed response."""

    api: Api = CHAT
    chunks: list[Event] = field(default_factory=list)
    done: bool = False
    """True once the event that ends a regular stream has arrived."""

    @property
    def text(self) -> str:
        return "".join(map(self.api.text_of, self.chunks))

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [dict(error) for chunk in self.chunks if (error := self.api.error_of(chunk)) is not None]

    @property
    def ends_with_error(self) -> bool:
        """True if an error is the last event, or the last but the event of a response that has failed."""
        *_, last = [chunk for chunk in self.chunks if chunk.get("type") != "response.failed"]
        return self.api.error_of(last) is not None

    @property
    def finish_reasons(self) -> list[str]:
        return [reason for chunk in self.chunks if (reason := self.api.finish_of(chunk)) is not None]

    @property
    def is_whole(self) -> bool:
        return self.done and not self.errors and self.finish_reasons == [self.api.finished]

    def add(self, line: str) -> None:
        event = event_of(line)
        if event is not None:
            self.done |= event.get("type") == self.api.last
            if event.get("type") != "[DONE]":
                self.chunks.append(event)


async def read(
    client: httpx.AsyncClient, word: str, *, api: Api = CHAT, begun: asyncio.Event | None = None, **fields: Any
) -> Stream:
    """Read a streamed response to its end. `begun` is set when its first token arrives."""
    stream = Stream(api)
    async with client.stream("POST", api.path, json=body(word, api=api, **fields)) as response:
        assert response.status_code == 200, (await response.aread()).decode()
        async for line in response.aiter_lines():
            stream.add(line)
            if begun is not None and not begun.is_set() and stream.text:
                begun.set()
    return stream
