"""Downloads of weights: they survive broken connections, are verified, and are not repeated."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.weights.hub import COMMIT, REPO, Hub, running_hub
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
    assert download(hub, tmp_path / "weights", VILIX_REVISION="v2").returncode == 0
    assert hub.requests


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


def test_files_of_another_revision_are_replaced(hub: Hub, tmp_path: Path) -> None:
    assert download(hub, tmp_path / "weights").returncode == 0
    hub.files[WEIGHTS] = bytes(len(FILES[WEIGHTS]))
    assert download(hub, tmp_path / "weights", VILIX_REVISION="v2").returncode == 0
    assert (tmp_path / "weights" / WEIGHTS).read_bytes() == bytes(len(FILES[WEIGHTS]))


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
