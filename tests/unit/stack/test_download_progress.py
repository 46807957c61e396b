from __future__ import annotations

import pytest

from services.stack.download_progress import DownloadProgress, DownloadStoppedError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_size_speed_and_time_left_are_shown_at_intervals() -> None:
    clock, shown = Clock(), list[str]()
    progress = DownloadProgress(shown.append, shown.append, every_seconds=5, clock=clock)
    # 400 MB were there from an earlier attempt, and do not count for the speed.
    for clock.now, done in ((0.0, 400), (1.0, 410), (5.0, 450), (9.0, 490), (10.0, 500), (11.0, 1000)):
        progress.progress(done * 1_000_000, 1_000_000_000)
    assert shown == [
        "400 of 1,000 MB (40 %)",
        "450 of 1,000 MB (45 %), 10.0 MB/s, 55 s left",
        "500 of 1,000 MB (50 %), 10.0 MB/s, 50 s left",
        "1,000 of 1,000 MB (100 %)",
    ]


def test_minutes_are_shown_for_slow_downloads() -> None:
    clock, shown = Clock(), list[str]()
    progress = DownloadProgress(shown.append, shown.append, every_seconds=0, clock=clock)
    progress.progress(0, 1_000_000_000)
    clock.now = 1.0
    progress.progress(5_000_000, 1_000_000_000)
    assert shown[-1].endswith("5.0 MB/s, 3 min 19 s left")


def test_a_stopped_download_ends_at_its_next_progress() -> None:
    progress = DownloadProgress(print, print, every_seconds=1)
    progress.stop()
    with pytest.raises(DownloadStoppedError):
        progress.progress(1, 2)


def test_the_end_is_shown_once_while_the_file_is_verified() -> None:
    clock, shown = Clock(), list[str]()
    progress = DownloadProgress(shown.append, shown.append, every_seconds=5, clock=clock)
    for clock.now, done in ((0.0, 0), (1.0, 100), (2.0, 100), (9.0, 100), (20.0, 100)):
        progress.progress(done * 1_000_000, 100_000_000)
    assert shown == ["0 of 100 MB (0 %)", "100 of 100 MB (100 %)"]
