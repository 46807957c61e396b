"""lm-eval's tasks that compare log probabilities run against the API, with a task and a model of our own."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.stack import RunningStack
from tests.support.environments import INSTALL_SECONDS, python_of
from tests.support.models import smollm2

RUN_SECONDS: Final = 300
pytestmark = [pytest.mark.environment, pytest.mark.timeout(INSTALL_SECONDS + RUN_SECONDS)]
TASK: Final = """\
task: own
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}]
"""
QUESTIONS: Final = [
    # Continuations that even the smallest model finds likely.
    {"question": "One, two, three, four,", "choices": ["banana", "five"], "answer": 1},
    {"question": "Monday, Tuesday,", "choices": ["Wednesday", "seven"], "answer": 0},
    {"question": "The capital of France is", "choices": ["Paris", "a table"], "answer": 0},
]


def test_lm_eval_finds_the_likelier_answers(stack: RunningStack, tmp_path: Path) -> None:
    data = tmp_path / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    (tmp_path / "own.yaml").write_text(TASK.replace("DATA", str(data)))
    options = {
        "model": "smollm2-135m",
        "base_url": f"{stack.url}/completions",
        "tokenizer_backend": "huggingface",
        "tokenizer": smollm2(),
        "tokenized_requests": False,
        "max_retries": 1,
    }
    program = python_of("lm-eval").with_name("lm_eval")
    ran = subprocess.run(
        [
            *(program, "--model", "local-completions", "--tasks", "own", "--include_path", tmp_path),
            *("--model_args", ",".join(f"{name}={value}" for name, value in options.items())),
            *("--output_path", tmp_path / "results"),
        ],
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "1",
            "OPENAI_API_KEY": stack.api_key,
        },
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    (file,) = (tmp_path / "results").rglob("results_*.json")
    results: dict[str, Any] = json.loads(file.read_text())["results"]["own"]
    assert results["acc,none"] == 1.0
