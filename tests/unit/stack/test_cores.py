"""The threads of engines on machines with and without hyperthreads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.stack import cores


def describe(root: Path, siblings: list[str]) -> None:
    """Write the topology of a machine: for each processor, the processors of its core."""
    for number, text in enumerate(siblings):
        topology = root / f"sys/devices/system/cpu/cpu{number}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(text + "\n")


@pytest.mark.parametrize(
    ("siblings", "expected"),
    [
        (["0"], 1),
        (["0", "1"], 2),
        (["0,2", "1,3", "0,2", "1,3"], 2),
        (["0-1", "0-1", "2-3", "2-3"], 2),
    ],
)
def test_hyperthreads_of_a_core_count_once(tmp_path: Path, siblings: list[str], expected: int) -> None:
    describe(tmp_path, siblings)
    assert cores.physical_cores(range(len(siblings)), tmp_path) == expected


def test_processors_without_information_are_cores(tmp_path: Path) -> None:
    assert cores.physical_cores(range(3), tmp_path) == 3


@pytest.mark.parametrize(
    ("processors", "physical", "expected"), [(1, 1, 1), (2, 2, 1), (4, 2, 2), (4, 4, 3), (8, 4, 4), (16, 16, 15)]
)
def test_a_processor_is_left_for_the_rest_of_the_system(
    monkeypatch: pytest.MonkeyPatch, processors: int, physical: int, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    monkeypatch.setattr(cores, "usable_cores", lambda _: physical)
    assert cores.engine_threads() == expected


@pytest.mark.parametrize(
    ("quota", "expected"),
    [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), ("1600000 100000", 8), ("", 8), ("damaged", 8)],
)
def test_an_engine_has_no_more_threads_than_its_container_has_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))
    describe(tmp_path, [f"{number % 8},{number % 8 + 8}" for number in range(16)])
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/cpu.max").write_text(f"{quota}\n")
    assert cores.usable_cores(tmp_path) == expected
    assert cores.engine_threads(tmp_path) == expected
