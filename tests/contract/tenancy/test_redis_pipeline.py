"""Scripts over one shared connection to a real Valkey: every caller gets its own reply."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from services.gateway.redis.connection import connect, disconnect
from services.gateway.redis.link import RedisAwayError, RedisLink
from services.gateway.redis.script import Script
from tests.contract.tenancy.redis_servers import Server, running
from tests.support.waits import until

SECONDS = 0.3
ECHO = Script("if ARGV[1] == 'fault' then return redis.error_reply('ERR a fault') end return ARGV[1] .. KEYS[1]")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "redis")
    with running([server]):
        yield server


@pytest.fixture
async def link(server: Server) -> AsyncIterator[RedisLink]:
    async with linked(server.port) as link:
        yield link


@asynccontextmanager
async def linked(port: int, *, seconds: float = SECONDS) -> AsyncIterator[RedisLink]:
    link = RedisLink(connect(f"redis://127.0.0.1:{port}", timeout=seconds), timeout=seconds)
    try:
        yield link
    finally:
        await link.close()


class Swallowing:
    """A proxy in front of a port. After `swallow`, its present connections stay open but transport nothing."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> Swallowing:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.swallow()
        for writer in self._writers:
            writer.close()

    def swallow(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        self._writers += [writer, far_writer]
        self._tasks |= {asyncio.create_task(_pump(reader, far_writer)), asyncio.create_task(_pump(far_reader, writer))}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


async def ask(link: RedisLink, word: str) -> str:
    response: str = await link.run(lambda redis: ECHO.run(redis, "!", word))
    return response


async def ask_together(link: RedisLink, words: Sequence[str]) -> list[str | None]:
    return await link.run_many(lambda redis: ECHO.run_many(redis, [("!", word) for word in words]))


async def connections(server: Server) -> int:
    """Return the number of connections over which scripts are run."""
    async with Redis.from_url(server.url, decode_responses=True) as other:
        return sum(client["cmd"] == "evalsha" for client in await other.client_list())


async def replies_again(link: RedisLink, word: str) -> None:
    async def replies() -> bool:
        try:
            assert await ask(link, word) == f"{word}!"
        except RedisAwayError:
            return False
        return True

    await until(replies, 10, "Redis replies again")


async def test_every_caller_gets_its_own_reply(link: RedisLink, server: Server) -> None:
    await ask(link, "first")
    words = [str(number) for number in range(500)]
    assert await asyncio.gather(*(ask(link, word) for word in words)) == [f"{word}!" for word in words]
    assert await connections(server) == 1


async def test_a_script_that_fails_does_not_affect_others(link: RedisLink) -> None:
    await ask(link, "first")
    redis, words = link.redis, [f"{number}" if number % 3 else "fault" for number in range(90)]
    found = await asyncio.gather(*(ECHO.run(redis, "!", word) for word in words), return_exceptions=True)
    for word, response in zip(words, found, strict=True):
        if word == "fault":
            assert isinstance(response, ResponseError)
        else:
            assert response == f"{word}!"


async def test_a_closed_connection_is_opened_again(link: RedisLink, server: Server) -> None:
    await ask(link, "first")
    async with Redis.from_url(server.url) as other:
        await other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert await ask(link, "second") == "second!"
    assert not link.away


async def test_commands_lost_with_a_redis_are_sent_to_the_next_one(server: Server) -> None:
    async with linked(server.port, seconds=20) as patient:
        await ask(patient, "first")
        await ask(patient, "second")
        server.signal(signal.SIGSTOP)
        asked = [asyncio.create_task(ask(patient, word)) for word in "abc"]
        await asyncio.sleep(0)
        server.kill()
        server.start()
        assert await asyncio.gather(*asked) == ["a!", "b!", "c!"]


async def test_a_connection_that_transports_nothing_is_replaced(server: Server) -> None:
    async with Swallowing(server.port) as network, linked(network.port) as link:
        await ask(link, "first")
        await ask(link, "second")
        network.swallow()
        with pytest.raises(RedisAwayError):
            await ask(link, "third")
        await replies_again(link, "fourth")
        await ask(link, "fifth")


async def test_late_replies_are_dropped(link: RedisLink, server: Server) -> None:
    await ask(link, "first")
    server.signal(signal.SIGSTOP)
    try:
        late = await asyncio.gather(*(ask(link, f"late-{number}") for number in range(5)), return_exceptions=True)
        assert all(isinstance(response, RedisAwayError) for response in late)
    finally:
        server.signal(signal.SIGCONT)
    await replies_again(link, "after")
    assert await asyncio.gather(*(ask(link, word) for word in "abc")) == ["a!", "b!", "c!"]


async def test_a_cancelled_caller_does_not_shift_replies(link: RedisLink) -> None:
    await ask(link, "first")
    gone = [asyncio.create_task(ask(link, f"gone-{number}")) for number in range(5)]
    staying = [asyncio.create_task(ask(link, f"stays-{number}")) for number in range(5)]
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    assert await asyncio.gather(*staying) == [f"stays-{number}!" for number in range(5)]


async def test_a_server_that_was_demoted_is_left(link: RedisLink, server: Server) -> None:
    write = Script("return redis.call('SET', KEYS[1], ARGV[1])['ok']")
    await link.run(lambda redis: write.run(redis, "k", "1"))
    async with Redis.from_url(server.url) as other:
        await other.execute_command("REPLICAOF", "127.0.0.1", str(server.port))
        with pytest.raises(RedisAwayError):
            await link.run(lambda redis: write.run(redis, "k", "2"))
        assert await connections(server) == 0
        await other.execute_command("REPLICAOF", "NO", "ONE")


async def test_closing_the_link_closes_all_connections(server: Server) -> None:
    redis = connect(server.url, timeout=SECONDS)
    await ECHO.run(redis, "!", "a")
    await ECHO.run(redis, "!", "b")
    await disconnect(redis)
    assert await connections(server) == 0


async def test_a_command_that_cannot_be_encoded_does_not_shift_replies(link: RedisLink) -> None:
    assert await ask(link, "first") == "first!"
    for _ in range(3):
        with pytest.raises(UnicodeEncodeError):
            await ask(link, "half of a pair: \ud800")
        words = [f"word {number}" for number in range(20)]
        async with asyncio.timeout(10):
            responses = await asyncio.gather(*(ask(link, word) for word in words))
        assert responses == [f"{word}!" for word in words]


async def test_scripts_that_are_sent_together_get_their_own_replies(link: RedisLink, server: Server) -> None:
    words = [str(number) for number in range(300)]
    together, single = await asyncio.gather(ask_together(link, words), ask(link, "single"))
    assert (together, single) == ([f"{word}!" for word in words], "single!")
    assert await ask_together(link, []) == []
    async with Redis.from_url(server.url, decode_responses=True) as unpipelined:
        assert await ECHO.run_many(unpipelined, [("!", word) for word in words]) == together


async def test_an_error_among_scripts_that_are_sent_together_affects_no_other(link: RedisLink) -> None:
    await ask(link, "first")
    replies = await ECHO.run_many(link.redis, [("!", word) for word in ("a", "fault", "b")])
    assert (replies[0], replies[2]) == ("a!", "b!")
    assert isinstance(replies[1], ResponseError)
    assert await ask_together(link, ["a", "fault", "b"]) == ["a!", None, "b!"]
    assert link.away, "as after any command that fails"


async def test_scripts_that_are_sent_together_to_a_server_without_them_are_sent_in_full(link: RedisLink) -> None:
    await ask(link, "first")
    await link.redis.script_flush()
    assert await ask_together(link, "abc") == ["a!", "b!", "c!"]


async def test_scripts_that_are_sent_together_and_lost_are_sent_to_the_next_server(server: Server) -> None:
    async with linked(server.port, seconds=20) as patient:
        await ask(patient, "first")
        server.signal(signal.SIGSTOP)
        asked = asyncio.create_task(ask_together(patient, "abc"))
        await asyncio.sleep(0)
        server.kill()
        server.start()
        assert await asked == ["a!", "b!", "c!"]


async def test_late_replies_to_scripts_that_were_sent_together_are_dropped(link: RedisLink, server: Server) -> None:
    await ask(link, "first")
    server.signal(signal.SIGSTOP)
    try:
        with pytest.raises(RedisAwayError):
            await ask_together(link, ["late"] * 5)
    finally:
        server.signal(signal.SIGCONT)
    await replies_again(link, "after")
    gone = asyncio.create_task(ask_together(link, ["gone"] * 5))
    staying = asyncio.create_task(ask(link, "stays"))
    await asyncio.sleep(0)
    gone.cancel()
    assert await staying == "stays!"
    assert await ask_together(link, "abc") == ["a!", "b!", "c!"]
