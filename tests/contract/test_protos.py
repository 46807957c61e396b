from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import ROOT

BUF = Path(sys.executable).with_name("buf")


def _buf(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([BUF, *arguments], cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


def _generate(output: Path) -> None:
    subprocess.run([sys.executable, ROOT / "proto/generate.py", output], check=True, timeout=60)


def test_protos_follow_bufs_standard_and_every_element_is_documented() -> None:
    result = _buf("lint")
    assert result.returncode == 0, result.stdout


def test_protos_do_not_break_callers_of_the_released_ones() -> None:
    result = _buf("breaking", "--against", "proto/baseline.binpb")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("string content = 2;", "bytes content = 2;"),
        ("    string content = 2;\n", ""),
        ("rpc Generate(", "rpc Answer("),
    ],
    ids=["type changed", "field removed", "method renamed"],
)
def test_a_breaking_change_is_noticed(tmp_path: Path, old: str, new: str) -> None:
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    shutil.copytree(ROOT / "proto", tmp_path / "proto", ignore=shutil.ignore_patterns("gen"))
    changed = tmp_path / "proto/vilix/inference/v1/inference_service.proto"
    text = changed.read_text()
    assert old in text
    changed.write_text(text.replace(old, new, 1))
    result = _buf("breaking", "--against", "proto/baseline.binpb", cwd=tmp_path)
    assert result.returncode == 100, result.stdout + result.stderr


def test_committed_stubs_are_what_the_protos_generate(tmp_path: Path) -> None:
    _generate(tmp_path)
    committed = ROOT / "proto/gen"
    expected = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    present = sorted(p.relative_to(committed) for p in committed.rglob("*") if p.is_file() and p.suffix != ".pyc")
    assert present == expected, "run `make proto`"
    _, different, errors = filecmp.cmpfiles(tmp_path, committed, [str(path) for path in expected], shallow=False)
    assert (different, errors) == ([], []), "run `make proto`"
