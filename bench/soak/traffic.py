"""Mixed traffic at a moderate rate: every kind of request in turn, by a few clients."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

import httpx

_PIXEL: Final = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
_SCHEMA: Final = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
_TOOL: Final = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
_VILIX: Final = str(Path(sys.executable).with_name("vilix"))


def requests(chat: str, thinking: str, embedding: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """The path and the body of each kind of request."""
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    short: dict[str, Any] = {"model": chat, "messages": messages, "max_tokens": 12}
    image = [{"type": "image_url", "image_url": {"url": _PIXEL}}, {"type": "text", "text": "What is it?"}]
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": _SCHEMA}}
    return {
        "stream": ("chat/completions", {**short, "stream": True}),
        "disconnect": ("chat/completions", {**short, "stream": True, "max_tokens": 200}),
        "chat": ("chat/completions", short),
        "structured output": ("chat/completions", {**short, "response_format": form}),
        "tools": ("chat/completions", {"model": thinking, "messages": messages, "tools": [_TOOL], "stream": True}),
        "image": ("chat/completions", {**short, "messages": [{"role": "user", "content": image}]}),
        "completion": ("completions", {"model": chat, "prompt": "Once upon", "max_tokens": 8}),
        "embeddings": ("embeddings", {"model": embedding, "input": ["one", "two"]}),
        "tokenize": ("tokenize", {"model": chat, "prompt": "one two three"}),
        "unknown model": ("chat/completions", {**short, "model": "none"}),
        "wrong field": ("chat/completions", {**short, "max_tokens": -1}),
        "wrong body": ("chat/completions", {}),
        "unknown path": ("nowhere", {}),
        "wrong key": ("chat/completions", short),
    }


class Traffic:
    """Sends requests and changes keys; counts the answers by kind and status."""

    def __init__(self, url: str, api_key: str, state_dir: Path, kinds: dict[str, tuple[str, dict[str, Any]]]) -> None:
        """Sends to `url` with `api_key`; keys are changed in the stack of `state_dir`."""
        self.answers: Counter[str] = Counter()
        self.keys_made = 0
        self._url, self._api_key, self._state_dir, self._kinds = url, api_key, state_dir, kinds

    async def run(self, stop: asyncio.Event, *, per_second: float, clients: int = 2) -> None:
        """Send requests until `stop` is set; two clients, and one that changes keys."""
        limits = httpx.Limits(max_keepalive_connections=clients)
        async with httpx.AsyncClient(timeout=60, limits=limits) as http, asyncio.TaskGroup() as group:
            turns = itertools.cycle(self._kinds)
            for _ in range(clients):
                group.create_task(self._client(http, turns, stop, clients / per_second))
            group.create_task(self._keys(http, stop))

    async def _client(self, http: httpx.AsyncClient, turns: Any, stop: asyncio.Event, pause: float) -> None:
        while not stop.is_set():
            await self.send(http, next(turns), self._api_key)
            await _wait(stop, pause)

    async def send(self, http: httpx.AsyncClient, kind: str, api_key: str) -> None:
        """Send one request of this kind and count its answer."""
        path, body = self._kinds[kind]
        headers = {"Authorization": f"Bearer {'wrong' if kind == 'wrong key' else api_key}"}
        async with http.stream("POST", f"{self._url}/{path}", json=body, headers=headers) as answer:
            async for _ in answer.aiter_bytes():
                if kind == "disconnect":
                    break
            self.answers[f"{kind}: {answer.status_code}"] += 1

    async def _keys(self, http: httpx.AsyncClient, stop: asyncio.Event) -> None:
        """Create a key, use it, change it, rotate it, and revoke it; every ten seconds."""
        while not stop.is_set():
            made = json.loads(await self._vilix("create", "--name", f"soak-{self.keys_made}", "--rpm", "60", "--json"))
            self.keys_made += 1
            await self.send(http, "tokenize", made["key"])
            await self._vilix("set", made["id"], "--rpm", "30")
            rotated = json.loads(await self._vilix("rotate", made["id"], "--grace", "0h", "--json"))
            await self.send(http, "chat", rotated["key"])
            await self._vilix("revoke", made["id"])
            await _wait(stop, 10)

    async def _vilix(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            _VILIX, "keys", *arguments, "--state-dir", str(self._state_dir), stdout=asyncio.subprocess.PIPE
        )
        output, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"vilix keys {arguments[0]} ended with {process.returncode}")
        return output.decode()


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
