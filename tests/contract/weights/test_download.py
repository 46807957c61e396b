"""Downloads of weights: they survive broken connections, are verified, and are not repeated."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.inference.weights import directory_lock
from tests.contract.weights.hub import COMMIT, REPO, Hub, running_hub
from tests.support.certificates import Authority
from tests.support.repository import ROOT

WEIGHTS = "model-00001.safetensors"
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{} ",
    WEIGHTS: random.Random(7).randbytes(30_000_000),
    "pytorch_model.bin": b"the same, in a format that runs code",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub(dict(FILES)) as hub:
        yield hub


def command(hub: Hub, directory: Path, **settings: str) -> tuple[list[str], dict[str, str]]:
    variables = {
        "VILIX_REPO": REPO,
        "VILIX_ENDPOINT": hub.url,
        "VILIX_DIRECTORY": str(directory),
        "VILIX_ATTEMPTS": "3",
        "VILIX_RETRY_SECONDS": "0",
        "VILIX_PROGRESS_SECONDS": "0.01",
        "HOME": str(directory.parent),
        **settings,
    }
    return [sys.executable, "-m", "services.inference.weights.weights_download"], {**os.environ, **variables}


def download(hub: Hub, directory: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    argv, environment = command(hub, directory, **settings)
    return subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


def assert_complete(directory: Path) -> None:
    names = {path.name for path in directory.iterdir() if not path.name.startswith(".")}
    assert names == FILES.keys() - {"pytorch_model.bin"}
    for name in names:
        assert (directory / name).read_bytes() == FILES[name]


def test_files_are_downloaded_and_verified_and_progress_is_logged(hub: Hub, tmp_path: Path) -> None:
    result = download(hub, tmp_path / "weights")
    assert result.returncode == 0, result.stderr
    assert_complete(tmp_path / "weights")
    assert "complete and verified" in result.stderr
    assert "0.03 GB (" in result.stderr
    assert " MB/s" in result.stderr


def test_a_complete_download_is_not_repeated(hub: Hub, tmp_path: Path) -> None:
    assert download(hub, tmp_path / "weights").returncode == 0
    hub.requests.clear()
    for revision in ("main", COMMIT):
        assert download(hub, tmp_path / "weights", VILIX_REVISION=revision).returncode == 0
    assert not hub.requests


def test_a_download_continues_after_its_connection_breaks(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = [15_000_000]
    result = download(hub, tmp_path / "weights")
    assert result.returncode == 0, result.stderr
    assert_complete(tmp_path / "weights")
    assert [int(value.removeprefix("bytes=").rstrip("-")) >= 10_000_000 for value in hub.ranges] == [True]


def test_a_download_continues_after_the_program_has_failed(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = [20_000_000]
    first = download(hub, tmp_path / "weights", VILIX_ATTEMPTS="1")
    assert first.returncode == 1
    assert "error: us/our-model" in first.stderr
    result = download(hub, tmp_path / "weights")
    assert result.returncode == 0, result.stderr
    assert_complete(tmp_path / "weights")
    assert int(hub.ranges[0].removeprefix("bytes=").rstrip("-")) >= 10_000_000


def test_damaged_files_are_downloaded_again(hub: Hub, tmp_path: Path) -> None:
    hub.damage = 1
    result = download(hub, tmp_path / "weights")
    assert result.returncode == 0, result.stderr
    assert f"{WEIGHTS} is damaged" in result.stderr
    assert_complete(tmp_path / "weights")


def test_a_file_that_is_damaged_each_time_is_an_error(hub: Hub, tmp_path: Path) -> None:
    hub.damage = 99
    result = download(hub, tmp_path / "weights")
    assert result.returncode == 1
    assert f"{WEIGHTS} is damaged" in result.stderr
    assert not (tmp_path / "weights" / ".vilix-complete").exists()


def test_another_name_of_the_same_commit_downloads_nothing_again(hub: Hub, tmp_path: Path) -> None:
    assert download(hub, tmp_path / "weights").returncode == 0
    hub.requests.clear()
    assert download(hub, tmp_path / "weights", VILIX_REVISION="v2").returncode == 0
    assert not [path for path in hub.requests if "/resolve/" in path]


def test_the_files_of_another_revision_are_never_changed(hub: Hub, tmp_path: Path) -> None:
    """A server may read them, or start again and read them."""
    assert download(hub, tmp_path / "weights").returncode == 0
    hub.files[WEIGHTS], hub.commit = bytes(len(FILES[WEIGHTS])), "2" * 40
    result = download(hub, tmp_path / "weights", VILIX_REVISION="v2")
    assert result.returncode == 1
    assert "needs another directory" in result.stderr
    assert_complete(tmp_path / "weights")


def test_a_download_that_is_continued_keeps_its_commit(hub: Hub, tmp_path: Path) -> None:
    hub.cut_after = [20_000_000]
    assert download(hub, tmp_path / "weights", VILIX_ATTEMPTS="1").returncode == 1
    hub.commit = "2" * 40
    hub.requests.clear()
    assert download(hub, tmp_path / "weights").returncode == 0
    assert COMMIT in (tmp_path / "weights" / ".vilix-complete").read_text()
    assert not [path for path in hub.requests if hub.commit in path]


def test_old_revisions_are_removed_and_the_last_one_stays(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"config.json": b"{}"}
    (tmp_path / "m" / "of-somebody-else").mkdir(parents=True)
    for revision in ("one", "two", "three"):
        hub.commit = str(len(revision)) * 40
        assert download(hub, tmp_path / "m" / revision, VILIX_REVISION=revision, VILIX_KEEP="2").returncode == 0
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"two", "three", "of-somebody-else"}
    # A rollback uses what it returns to: the next revision removes the other one.
    assert download(hub, tmp_path / "m" / "two", VILIX_REVISION="two", VILIX_KEEP="2").returncode == 0
    assert download(hub, tmp_path / "m" / "four", VILIX_REVISION="four", VILIX_KEEP="2").returncode == 0
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"two", "four", "of-somebody-else"}


def test_a_revision_that_pods_may_read_stays_before_one_that_was_downloaded_ahead(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"config.json": b"{}"}
    for revision, keep in (("served", "2"), ("ahead", "0"), ("further", "0")):
        assert download(hub, tmp_path / "m" / revision, VILIX_REVISION=revision, VILIX_KEEP=keep).returncode == 0
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"served", "ahead", "further"}
    assert download(hub, tmp_path / "m" / "further", VILIX_REVISION="further", VILIX_KEEP="2").returncode == 0
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"served", "further"}


def test_a_download_that_runs_is_not_removed_by_another_one(hub: Hub, tmp_path: Path) -> None:
    """The present and the next revision are downloaded at the same time."""
    hub.cut_after = [20_000_000]
    interrupted = tmp_path / "m" / "interrupted"
    settings = {"VILIX_KEEP": "2", "VILIX_ATTEMPTS": "1"}
    assert download(hub, interrupted, VILIX_REVISION="interrupted", **settings).returncode == 1
    with directory_lock.held(interrupted, on_wait=lambda: pytest.fail("nobody has the lock")):
        assert download(hub, tmp_path / "m" / "one", VILIX_REVISION="one", **settings).returncode == 0
        assert (interrupted / f"{WEIGHTS}.partial").stat().st_size > 0
    assert download(hub, tmp_path / "m" / "two", VILIX_REVISION="two", **settings).returncode == 0
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"one", "two"}


def test_a_gated_repository_ends_at_once_with_the_reason(hub: Hub, tmp_path: Path) -> None:
    hub.denied = 403
    result = download(hub, tmp_path / "weights")
    assert result.returncode == 1
    assert "HTTP 403" in result.stderr
    assert "accept the terms" in result.stderr
    assert "attempt" not in result.stderr
    assert "Traceback" not in result.stderr


def test_a_volume_that_is_too_small_is_reported_before_the_download(hub: Hub, tmp_path: Path) -> None:
    hub.size_reported = 10**18
    result = download(hub, tmp_path / "weights")
    assert result.returncode == 1
    assert "of free space" in result.stderr
    assert "attempt" not in result.stderr


def test_a_directory_that_cannot_be_written_is_reported_with_the_user(hub: Hub, tmp_path: Path) -> None:
    (tmp_path / "volume").write_text("")
    result = download(hub, tmp_path / "volume" / "weights")
    assert result.returncode == 1
    assert f"for user {os.getuid()}" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_download_uses_a_proxy(hub: Hub, tmp_path: Path) -> None:
    settings = {"VILIX_ENDPOINT": "http://hub.invalid", "http_proxy": hub.url}
    result = download(hub, tmp_path / "weights", **settings)
    assert result.returncode == 0, result.stderr
    assert_complete(tmp_path / "weights")


def test_the_download_trusts_a_private_authority_only_if_told_to(tmp_path: Path) -> None:
    """The variable is the one that the chart sets for `caConfigMap`."""
    authority = Authority(tmp_path / "authority")
    authority.issue(tmp_path / "hub", name="localhost")
    with running_hub(dict(FILES), tls=tmp_path / "hub") as hub:
        rejected = download(hub, tmp_path / "weights", VILIX_ATTEMPTS="1")
        assert rejected.returncode == 1
        assert "certificate" in rejected.stderr.lower()
        result = download(hub, tmp_path / "weights", SSL_CERT_FILE=str(authority.certificate))
        assert result.returncode == 0, result.stderr
    assert_complete(tmp_path / "weights")


def test_a_file_system_without_locks_is_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def without_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", without_locks)
    with directory_lock.held(tmp_path, on_wait=lambda: pytest.fail("nobody has the lock")):
        pass
    assert directory_lock.is_held(tmp_path), "it could be"


def test_servers_wait_until_the_download_is_complete(tmp_path: Path) -> None:
    process = waiting(tmp_path / "weights", VILIX_DOWNLOADED_BY="job/the-download", VILIX_POLL_SECONDS="0.01")
    assert process.stderr is not None
    try:
        assert "waiting until job/the-download has downloaded weights" in process.stderr.readline()
        assert process.poll() is None
        (tmp_path / "weights").mkdir()
        (tmp_path / "weights" / ".vilix-complete").write_text("{}")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_directory_that_a_volume_lacks_is_named(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    process = waiting(tmp_path / "weights")
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "no directory weights; it has other" in errors
    (tmp_path / "weights").mkdir()
    process = waiting(tmp_path / "weights")
    process.communicate(timeout=30)
    assert process.returncode == 0


def waiting(directory: Path, **settings: str) -> subprocess.Popen[str]:
    """Start the program that waits for the weights in `directory`."""
    argv = [sys.executable, "-m", "services.inference.weights.weights_wait"]
    environment = {**os.environ, "VILIX_DIRECTORY": str(directory), **settings}
    return subprocess.Popen(
        argv, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def test_a_file_outside_the_directory_is_rejected(hub: Hub, tmp_path: Path) -> None:
    hub.files["../outside.json"] = b"{}"
    result = download(hub, tmp_path / "weights", VILIX_ATTEMPTS="1")
    assert result.returncode == 1
    assert "outside the repository" in result.stderr
    assert not (tmp_path / "outside.json").exists()


def test_a_private_repository_needs_a_token_which_is_not_logged(hub: Hub, tmp_path: Path) -> None:
    hub.token = "hf_very_secret"
    rejected = download(hub, tmp_path / "weights")
    assert rejected.returncode == 1
    assert "or not for this token" in rejected.stderr
    assert "Traceback" not in rejected.stderr
    result = download(hub, tmp_path / "weights", VILIX_TOKEN=hub.token)
    assert result.returncode == 0, result.stderr
    assert hub.token not in result.stderr + result.stdout


def test_pods_that_share_a_volume_download_once(hub: Hub, tmp_path: Path) -> None:
    argv, environment = command(hub, tmp_path / "weights")
    pods = [
        subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    try:
        assert [pod.wait(60) for pod in pods] == [0, 0]
    finally:
        for pod in pods:
            if pod.poll() is None:
                pod.kill()
                pod.wait()
    assert_complete(tmp_path / "weights")
    assert len([path for path in hub.requests if path.endswith("/revision/main")]) == 1
