"""Opens clients of Redis or Valkey: one server, Sentinel, or a cluster, with or without TLS. The URL says which.

    redis://USER:PASSWORD@HOST:PORT/DATABASE              one server; rediss:// with TLS
    redis+sentinel://…@HOST:PORT,HOST:PORT/DB?master=NAME the primary that Sentinels report; rediss+sentinel:// with TLS
    redis+cluster://…@HOST:PORT,HOST:PORT                 a cluster; rediss+cluster:// with TLS

TLS takes `ssl_ca_certs=FILE` and, for client certificates, `ssl_certfile=FILE` and `ssl_keyfile=FILE` after the `?`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast
from urllib.parse import parse_qs, unquote, urlsplit

from redis.asyncio import Redis, RedisCluster, Sentinel, SentinelConnectionPool, SSLConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from services.gateway.redis.pipeline import PipelinedRedis

MAX_CONNECTIONS: Final = 256
MIN_TIMEOUT_SECONDS: Final = 1.0
_TLS_OPTIONS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OWN_OPTIONS: Final = (
    "username",
    "password",
    "decode_responses",
    "socket_timeout",
    "socket_connect_timeout",
    *_TLS_OPTIONS,
)


def connect(url: str, *, timeout: float) -> Redis:
    """Return a client, which connects when it is used.

    Args:
        url: One of the forms above.
        timeout: Seconds that a reply may take.

    Returns:
        The client. That of a cluster is a RedisCluster, which has the same commands.

    Raises:
        ValueError: The URL has none of the forms above.
    """
    parts = urlsplit(url)
    scheme, _, topology = parts.scheme.partition("+")
    if scheme not in ("redis", "rediss") or topology not in ("", "sentinel", "cluster"):
        raise ValueError(f"the Redis URL begins with {parts.scheme!r}; it must begin with redis:// or rediss://")
    options: dict[str, Any] = {
        "decode_responses": True,
        # The time-out of RedisLink comes first, because it tolerates a busy event loop.
        "socket_timeout": max(timeout, MIN_TIMEOUT_SECONDS),
        "socket_connect_timeout": max(timeout, MIN_TIMEOUT_SECONDS),
        "max_connections": MAX_CONNECTIONS,
        # Retry once on a new connection: the old one may have ended when Redis restarted. A time-out is not retried.
        "retry": Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    }
    if not topology:
        # The method is declared to return a Redis.
        client: PipelinedRedis = PipelinedRedis.from_url(url, **options)  # type: ignore[assignment]
        client.reply_seconds = timeout
        return client
    account, _, addresses = parts.netloc.rpartition("@")
    username, _, password = account.partition(":")
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    options |= {"username": unquote(username) or None, "password": unquote(password) or None}
    options |= {name: query[name] for name in _TLS_OPTIONS if name in query}
    hosts = [_host_and_port(address) for address in addresses.split(",")]
    if topology == "cluster":
        nodes = [ClusterNode(host, port) for host, port in hosts]
        cluster = RedisCluster(startup_nodes=nodes, ssl=scheme == "rediss", **options)
        return cast(Redis, cluster)
    if "master" not in query:
        raise ValueError("the Redis URL names Sentinels and no master; end it with ?master=NAME")
    times = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    sentinel = Sentinel(hosts, sentinel_kwargs=times)  # type: ignore[no-untyped-call]  # redis-py has no type for it
    database = int(parts.path.strip("/") or 0)
    primary: PipelinedRedis = sentinel.master_for(
        query["master"], PipelinedRedis, db=database, ssl=scheme == "rediss", **options
    )
    primary.reply_seconds = timeout
    return primary


async def disconnect(redis: Redis) -> None:
    """Close a client's connections, including those to Sentinels."""
    await redis.aclose()
    pool = getattr(redis, "connection_pool", None)
    if isinstance(pool, SentinelConnectionPool):
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


@asynccontextmanager
async def pinned(redis: Redis, name: str) -> AsyncIterator[Redis]:
    """Yield a client with one connection, to the server of the key `name`, for commands whose order matters."""
    if isinstance(redis, RedisCluster):
        await redis.initialize()
        node = redis.get_node_from_key(name)
        assert node is not None  # noqa: S101  # a cluster that answered has every slot
        options = {name: value for name, value in node.connection_kwargs.items() if name in _OWN_OPTIONS}
        secured = issubclass(node.connection_class, SSLConnection)
        async with Redis(host=node.host, port=int(node.port), ssl=secured, **options) as client, client.client() as one:
            yield one
    else:
        async with redis.client() as client:
            yield client


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError(f"{address!r} in the Redis URL is not HOST:PORT")
    return host.strip("[]"), int(port)
