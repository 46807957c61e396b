"""The examples of the README run as shown against Qwen2.5-Coder, and its answers make sense.

The smaller model stands for both: the first run downloads its weights into .cache (0.49 GB).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.stack import RunningStack, up
from tests.support.repository import ROOT

DOWNLOAD_SECONDS = 900
MODEL = "qwen2.5-coder-0.5b"
README = (ROOT / "README.md").read_text()

pytestmark = pytest.mark.timeout(DOWNLOAD_SECONDS)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with up(tmp_path_factory.mktemp("qwen"), "--model", MODEL) as running:
        yield running
        assert running.stop() == 0


@pytest.fixture(scope="module")
def qwen_client(qwen: RunningStack) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=qwen.url, api_key=qwen.api_key, max_retries=0) as client:
        yield client


@pytest.fixture
def beside(qwen: RunningStack, tmp_path: Path) -> Path:
    """A directory in which `.run` is the stack's, as where `make run` was started."""
    (tmp_path / ".run").symlink_to(qwen.directory)
    return tmp_path


def run_block(stack: RunningStack, directory: Path, kind: str, mark: str) -> str:
    """Run the block of the README that contains `mark`, and return what it prints."""
    code = next(block for block in re.findall(rf"```{kind}\n(.*?)```", README, re.DOTALL) if mark in block)
    program = ["bash", "-c"] if kind == "sh" else [sys.executable, "-W", "ignore", "-c"]
    result = subprocess.run(
        [*program, code.replace("http://127.0.0.1:8000/api", stack.url)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_sdks_example_names_the_capital_and_adds(qwen: RunningStack, beside: Path) -> None:
    printed = run_block(qwen, beside, "python", "from openai")
    assert "Paris" in printed
    assert re.search(r"def \w+\(.+ \+ ", printed, re.DOTALL), printed


def test_the_curl_example_writes_code(qwen: RunningStack, beside: Path) -> None:
    printed = run_block(qwen, beside, "sh", "reverses a string")
    lines = [line for line in printed.splitlines() if line.startswith("data: {")]
    deltas = [json.loads(line.removeprefix("data: "))["choices"] for line in lines]
    assert_reverses("".join(choices[0]["delta"].get("content") or "" for choices in deltas if choices))


def test_the_example_for_internal_services_writes_code(qwen: RunningStack, beside: Path) -> None:
    assert_reverses(run_block(qwen, beside, "python", "import grpc\nfrom vilix.inference"))


def assert_reverses(answer: str) -> None:
    assert re.search(r"def \w*revers\w*\(", answer), answer


def test_the_middle_of_code_is_filled_in(qwen: RunningStack, beside: Path) -> None:
    answer = json.loads(run_block(qwen, beside, "sh", "suffix"))
    assert answer["choices"][0]["text"].strip() == "a + b"


def test_a_required_tool_is_called(qwen_client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    tool: Any = {"type": "function", "function": {"name": "get_weather", "parameters": schema}}
    response = qwen_client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is the weather in Shiraz?"}],
        tools=[tool],
        tool_choice="required",
        max_tokens=60,
        temperature=0,
    )
    (call,) = response.choices[0].message.tool_calls or ()
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert "Shiraz" in json.loads(call.function.arguments)["city"]


def test_the_model_is_listed_with_its_checkpoint_and_abilities(qwen_client: openai.OpenAI) -> None:
    model = qwen_client.models.retrieve(MODEL).model_dump()
    assert model["checkpoint"] == "Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF"
    assert model["capabilities"]["tools"] is True
    assert model["capabilities"]["reasoning"] is False
