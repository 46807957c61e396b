"""Mixed traffic of many users: all kinds of requests, client disconnects, errors, and changes of keys."""

from __future__ import annotations

import asyncio
import base64
import itertools
import struct
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import Any, Final

import httpx
from redis.asyncio import Redis

from services.gateway.tenancy import keys
from services.gateway.tenancy.key import Change
from services.gateway.tenancy.limits import Limits

REAL_MODEL: Final = "smollm2-135m"
RECORDED_MODEL: Final = "replay-thinking"
EMBEDDING_MODEL: Final = "multilingual-e5-small"
USERS: Final = 4
BUSY_TRIES: Final = 5
"""How often a request is repeated that gets 503, because an overloaded machine can delay a Redis command beyond its
timeout."""
PAUSE_SECONDS: Final = 0.5
"""A user's average pause between two actions."""
TOOL: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
SCHEMA: Final = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


class UnexpectedResponseError(Exception):
    """An action got a response that it must not get."""


class Traffic:
    """Users that act at random until `stop` is called. With the same seed, each user takes the same actions."""

    def __init__(self, url: str, api_key: str, redis: Redis, *, seed: int, users: int = USERS) -> None:
        """Send requests to the API at the base URL `url`, and change keys over the connection `redis`."""
        self.done: Counter[str] = Counter()
        """How often each action was completed."""
        self.created_keys: list[str] = []
        """The ids of the created API keys."""
        self._redis = redis
        self._numbers = itertools.count()
        self._seed = seed
        self._users = users
        self._stopping = False
        self._client = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=120,
            limits=httpx.Limits(max_connections=40),
        )

    async def run(self) -> None:
        """Let all users act until `stop`.

        Raises:
            UnexpectedResponseError: An action got a response that it must not get.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for user in range(self._users):
                    group.create_task(self._act(Random(self._seed * 1000 + user)))  # noqa: S311  # no secret
        finally:
            await self._client.aclose()

    def stop(self) -> None:
        """Stop each user after its current action."""
        self._stopping = True

    async def _act(self, random: Random) -> None:
        names, weights = zip(*((name, weight) for name, (weight, _) in ACTIONS.items()), strict=True)
        while not self._stopping:
            (name,) = random.choices(names, weights)
            try:
                await ACTIONS[name][1](self, random)
            except (httpx.HTTPError, UnexpectedResponseError) as error:
                raise UnexpectedResponseError(f"{name}: {error!r}") from error
            self.done[name] += 1
            await asyncio.sleep(random.expovariate(1 / PAUSE_SECONDS))

    async def _post(
        self, path: str, body: Mapping[str, Any], *, expected: tuple[int, ...] = (200,), **more: Any
    ) -> Any:
        return await self._ask("POST", path, expected=expected, json=body, **more)

    async def _ask(self, method: str, path: str, *, expected: tuple[int, ...] = (200,), **more: Any) -> Any:
        response = await self._client.request(method, path, **more)
        for _ in range(BUSY_TRIES):
            if response.status_code != 503:
                break
            self.done["busy"] += 1
            await asyncio.sleep(float(response.headers.get("retry-after", 1)))
            response = await self._client.request(method, path, **more)
        if response.status_code not in expected:
            raise UnexpectedResponseError(f"{response.status_code} instead of {expected}: {response.text[:500]}")
        return response.json()

    async def _stream(self, body: Mapping[str, Any], *, most_events: int | None = None, **more: Any) -> None:
        """Read a stream to its end, or disconnect after `most_events`."""
        events = 0
        async with self._client.stream("POST", "/chat/completions", json={**body, "stream": True}, **more) as response:
            if response.status_code == 503:
                self.done["busy"] += 1
                return
            if response.status_code != 200:
                raise UnexpectedResponseError(f"{response.status_code}: {(await response.aread())[:500]!r}")
            last = ""
            async for line in response.aiter_lines():
                last = line or last
                events += line.startswith("data: ")
                if most_events is not None and events >= most_events:
                    return
        if last != "data: [DONE]":
            raise UnexpectedResponseError(f"a stream ended with {last[:500]!r}")

    async def stream_recorded(self, random: Random) -> None:
        """Read a recorded stream with reasoning."""
        await self._stream(_chat(RECORDED_MODEL, _question(random)))

    async def stream_real(self, random: Random) -> None:
        """Read a stream of the real model."""
        await self._stream(_chat(REAL_MODEL, _question(random), max_tokens=random.randint(5, 40)))

    async def disconnect(self, random: Random) -> None:
        """Disconnect before the end of a stream."""
        model = random.choice((REAL_MODEL, RECORDED_MODEL))
        await self._stream(_chat(model, _question(random), max_tokens=100), most_events=random.randint(1, 6))

    async def whole(self, random: Random) -> None:
        """Request a response without streaming, with several choices and log probabilities."""
        more = {"n": 2, "logprobs": True, "top_logprobs": 3, "max_tokens": 10, "seed": random.randrange(10**6)}
        await self._post("/chat/completions", _chat(REAL_MODEL, _question(random), **more))

    async def structured(self, random: Random) -> None:
        """Request structured output with a new schema each time, so that caches evict entries."""
        schema = {**SCHEMA, "title": f"n{random.randrange(10**9)}"}
        response_format = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}
        await self._post(
            "/chat/completions", _chat(REAL_MODEL, _question(random), response_format=response_format, max_tokens=20)
        )

    async def tools(self, random: Random) -> None:
        """Offer a tool."""
        await self._stream(_chat(RECORDED_MODEL, "هوای تهران؟", tools=[TOOL]))

    async def text(self, random: Random) -> None:
        """Use the legacy API."""
        await self._post("/completions", {"model": REAL_MODEL, "prompt": "Once upon a time", "max_tokens": 10})

    async def tokenize(self, random: Random) -> None:
        """Count tokens of a long text."""
        await self._post("/tokenize", {"model": REAL_MODEL, "prompt": _question(random) * random.choice((1, 20, 60))})

    async def embed(self, random: Random) -> None:
        """Embed some texts."""
        texts = [_question(random) for _ in range(random.randint(1, 8))]
        await self._post("/embeddings", {"model": EMBEDDING_MODEL, "input": texts})

    async def list_models(self, random: Random) -> None:
        """List the models and the usage."""
        for path in ("/models", "/usage"):
            await self._ask("GET", path)

    async def image(self, random: Random) -> None:
        """Send an image to a model that does not support images."""
        url = "data:image/png;base64," + base64.b64encode(_png(random.randint(1, 200))).decode()
        parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
        await self._post("/chat/completions", _chat(REAL_MODEL, parts), expected=(400,))

    async def mistake(self, random: Random) -> None:
        """Send one of many kinds of invalid requests."""
        question = _question(random)
        body, status, headers = random.choice(
            (
                (_chat("no-such-model", question), 404, {}),
                (_chat(REAL_MODEL, question, temperature=9), 400, {}),
                (_chat(REAL_MODEL, question, max_tokens=10**6), 400, {}),
                (_chat(REAL_MODEL, question * 20_000), 400, {}),
                (_chat(REAL_MODEL, question, structured_outputs={"regex": "((("}), 400, {}),
                (_chat(REAL_MODEL, question, structured_outputs={"grammar": "root ::= ("}), 400, {}),
                (_chat(REAL_MODEL, question), 401, {"Authorization": "Bearer vlx_wrong"}),
                ({"model": REAL_MODEL}, 400, {}),
            )
        )
        await self._post("/chat/completions", body, expected=(status,), headers=headers)

    async def life_of_a_key(self, random: Random) -> None:
        """Create, use, change, rotate and revoke a key, and check that it is rejected afterwards."""
        name = f"soak-{time.time_ns()}-{next(self._numbers)}"
        key, secret = await keys.create(self._redis, name=name, limits=Limits(rpm=100))
        self.created_keys.append(key.id)
        credential = {"Authorization": f"Bearer {secret}"}
        await self._post("/tokenize", {"model": REAL_MODEL, "prompt": "a"}, headers=credential)
        await self._stream(_chat(RECORDED_MODEL, _question(random)), most_events=3, headers=credential)
        await keys.change(self._redis, name, Change(limits=Limits(rpm=50)))
        _, secret = await keys.rotate(self._redis, name, grace_seconds=1)
        credential = {"Authorization": f"Bearer {secret}"}
        await self._post("/embeddings", {"model": EMBEDDING_MODEL, "input": "a"}, headers=credential)
        await keys.revoke(self._redis, name)
        await self._post("/tokenize", {"model": REAL_MODEL, "prompt": "a"}, headers=credential, expected=(401,))


ACTIONS: Final[dict[str, tuple[int, Callable[[Traffic, Random], Awaitable[None]]]]] = {
    "recorded streams": (20, Traffic.stream_recorded),
    "real streams": (15, Traffic.stream_real),
    "client disconnects": (10, Traffic.disconnect),
    "whole answers": (5, Traffic.whole),
    "structured output": (8, Traffic.structured),
    "tools": (6, Traffic.tools),
    "text completions": (4, Traffic.text),
    "tokenize": (6, Traffic.tokenize),
    "embeddings": (10, Traffic.embed),
    "lists": (4, Traffic.list_models),
    "images": (4, Traffic.image),
    "mistakes": (12, Traffic.mistake),
    "key lifecycles": (4, Traffic.life_of_a_key),
}
"""The actions with their weights."""


def _chat(model: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": content}], **more}


def _question(random: Random) -> str:
    return random.choice(
        ("Why is the sky blue?", "سلام! می\u200cتوانی کمک کنی؟", "Count to five.", "Write a poem.")
    ) + (f" ({random.randrange(10**6)})")


def _png(side: int) -> bytes:
    """Return a PNG of a black square."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\0" * side) * side)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
