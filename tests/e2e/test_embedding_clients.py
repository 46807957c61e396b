"""The embedding clients of LangChain and LlamaIndex, by the examples of the documentation."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.stack import RunningStack
from tests.support.environments import INSTALL_SECONDS, python_of
from tests.support.repository import ROOT

pytestmark = pytest.mark.timeout(INSTALL_SECONDS + 120)


def run_example(stack: RunningStack, directory: Path, python: str | Path, *, imports: str) -> str:
    page = (ROOT / "docs/embeddings.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if f"from {imports}" in block)
    (directory / ".run").symlink_to(stack.directory)
    result = subprocess.run(
        [python, "-W", "ignore", "-c", code.replace("http://127.0.0.1:8000/api", stack.url)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def python() -> Path:
    return python_of("clients")


@pytest.mark.clients
@pytest.mark.parametrize("imports", ["langchain_openai", "llama_index.embeddings.openai"])
def test_the_documentations_example_returns_a_vector(
    stack: RunningStack, python: Path, tmp_path: Path, imports: str
) -> None:
    assert run_example(stack, tmp_path, python, imports=imports).strip() == "384"


def test_the_documentations_search_finds_the_right_passage(stack: RunningStack, tmp_path: Path) -> None:
    lines = run_example(stack, tmp_path, sys.executable, imports="openai").strip().splitlines()
    (capital, _), (stew, _) = (line.split(" ", 1) for line in lines)
    assert float(capital) > float(stew)
