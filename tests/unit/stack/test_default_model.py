from __future__ import annotations

import os
from pathlib import Path

import pytest

from services.stack import default_model


def machine(root: Path, *, cores: int, available_gb: float, threads_per_core: int = 2) -> Path:
    for cpu in range(cores * threads_per_core):
        topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        topology.mkdir(parents=True)
        (topology / "thread_siblings_list").write_text(f"core {cpu // threads_per_core}\n")
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text(
        f"MemTotal: 99999999 kB\nMemFree: 1 kB\nMemAvailable: {available_gb * 1e9 / 1024:.0f} kB\n"
    )
    return root


@pytest.fixture(autouse=True)
def sixteen_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


@pytest.mark.parametrize(
    ("cores", "available_gb", "model"),
    [(8, 16, "1.5b"), (8, 8.01, "1.5b"), (8, 7.9, "0.5b"), (8, 1, "0.5b")],
)
def test_the_larger_model_needs_eight_gigabytes(tmp_path: Path, cores: int, available_gb: float, model: str) -> None:
    name, reason = default_model.choose(machine(tmp_path, cores=cores, available_gb=available_gb))
    assert name == f"qwen2.5-coder-{model}"
    assert f"{cores} physical cores" in reason
    assert f"{available_gb:.1f} GB of free memory" in reason
    assert "qwen2.5-coder-1.5b needs 4 and 8 GB" in reason


@pytest.mark.parametrize(("processors", "model"), [(8, "1.5b"), (6, "0.5b"), (2, "0.5b")])
def test_the_larger_model_needs_four_cores_and_not_threads_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processors: int, model: str
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    name, _ = default_model.choose(machine(tmp_path, cores=8, available_gb=32))
    assert name == f"qwen2.5-coder-{model}"


def test_the_limits_of_a_container_count(tmp_path: Path) -> None:
    root = machine(tmp_path, cores=8, available_gb=32)
    group = root / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("250000 100000\n")
    assert default_model.choose(root)[0] == "qwen2.5-coder-0.5b"
    (group / "cpu.max").write_text("max 100000\n")
    (group / "memory.max").write_text("4000000000\n")
    (group / "memory.current").write_text("1000000000\n")
    assert default_model.free_memory(root) == 3_000_000_000
    assert default_model.choose(root)[0] == "qwen2.5-coder-0.5b"
    (group / "memory.max").write_text("max\n")
    assert default_model.choose(root)[0] == "qwen2.5-coder-1.5b"


def test_files_that_a_container_has_read_do_not_take_its_memory(tmp_path: Path) -> None:
    root = machine(tmp_path, cores=8, available_gb=32)
    group = root / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("12000000000\n")
    (group / "memory.current").write_text("11000000000\n")
    (group / "memory.stat").write_text("anon 2000000000\nactive_file 4000000000\ninactive_file 5000000000\n")
    assert default_model.free_memory(root) == 10_000_000_000
    assert default_model.choose(root)[0] == "qwen2.5-coder-1.5b"


def test_a_machine_that_does_not_describe_itself_gets_the_smaller_model(tmp_path: Path) -> None:
    assert default_model.choose(tmp_path)[0] == "qwen2.5-coder-0.5b"
