"""lm-eval's tasks that compare log probabilities run against the API, and find what the model itself computes."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from tests.e2e.llama_likelihoods import LlamaLikelihoods
from tests.e2e.stack import RunningStack, up
from tests.support.environments import INSTALL_SECONDS, installed, python_of
from tests.support.models import smollm2
from tests.support.repository import ROOT

RUN_SECONDS: Final = 300
pytestmark = [pytest.mark.environment, pytest.mark.timeout(INSTALL_SECONDS + RUN_SECONDS)]
OWN: Final = """\
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
QWEN: Final = "qwen2.5-coder-0.5b"
# The form of lm-eval's task `mmlu`: the likeliest of four letters.
MMLU: Final = """\
task: mmlu_short
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}\\nA. {{choices[0]}}\\nB. {{choices[1]}}\\nC. {{choices[2]}}\\nD. {{choices[3]}}\\nAnswer:"
doc_to_choice: [A, B, C, D]
doc_to_target: answer
metric_list: [{metric: acc}]
"""
MMLU_QUESTIONS: Final = 6
TOLERANCE: Final = 0.3
"""The most that log probabilities of this file may differ: llama.cpp's results depend on how a prompt is split."""
MMLU_QUESTION: Final = re.compile(
    r"^Q: (?P<question>.+?)\n\(A\) (.+?) \(B\) (.+?) \(C\) (.+?) \(D\) (.+?)\n"
    r"A: .*?The answer is \((?P<answer>[ABCD])\)",
    re.DOTALL | re.MULTILINE,
)
# The form of lm-eval's task `lambada_openai`: a passage whose last word follows from what it tells.
LAST_WORDS: Final = """\
task: last_words
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{passage.rpartition(' ')[0]}}"
doc_to_target: " {{passage.rpartition(' ')[2]}}"
metric_list: [{metric: perplexity}, {metric: acc}]
"""
# Written for this test.
PASSAGES: Final = [
    "The lighthouse keeper climbed the stairs every evening to light the lamp. Tonight the wind shook the lighthouse",
    "Mina had lost her keys again. She looked under the sofa and in the kitchen, but she could not find her keys",
    "The baker took the bread out of the oven and put it on the shelf. The whole street could smell the fresh bread",
    "We waited two hours for the train. When it came at last it was full, so we had to wait for the next train",
    "The doctor listened to his heart. 'How long', she asked, 'have you had these pains in your chest",
    "Every summer we drove to the sea. My brother loved to swim, but I preferred to build castles in the sand",
    "He opened the umbrella, but it was already too late. His coat and his shoes were completely wet",
    "The two brothers had not spoken for ten years. At the funeral of their mother, the older one held out his hand",
]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    with up(tmp_path_factory.mktemp("qwen"), "--model", QWEN) as running:
        yield running
        assert running.stop() == 0


def test_lm_eval_finds_the_likelier_answers(stack: RunningStack, tmp_path: Path) -> None:
    write_task(tmp_path, "own", OWN, QUESTIONS)
    results, _ = run_lm_eval(tmp_path, stack, "smollm2-135m", smollm2(), "own")
    assert results["own"]["acc,none"] == 1.0


def test_lm_eval_finds_what_the_model_itself_computes(qwen: RunningStack, tmp_path: Path) -> None:
    write_task(tmp_path, "mmlu_short", MMLU, mmlu_questions())
    write_task(tmp_path, "last_words", LAST_WORDS, [{"passage": passage} for passage in PASSAGES])
    directory = ROOT / ".cache/models" / QWEN
    results, samples = run_lm_eval(tmp_path, qwen, QWEN, directory, "mmlu_short", "last_words")
    model = LlamaLikelihoods(directory / "model.gguf", threads=2)

    leads = []
    for sample in samples["mmlu_short"]:
        choices = [model.read(*pair).log_probability for pair in sample.pairs]
        assert np.allclose(sample.log_probabilities, choices, rtol=0, atol=TOLERANCE)
        right = choices.pop(sample.document["answer"])
        leads.append(right - max(choices))
    assert_accuracy(results["mmlu_short"]["acc,none"], leads)

    words = [model.read(*pair) for sample in samples["last_words"] for pair in sample.pairs]
    log_probabilities = [word.log_probability for word in words]
    found = [value for sample in samples["last_words"] for value in sample.log_probabilities]
    assert np.allclose(found, log_probabilities, rtol=0, atol=TOLERANCE)
    assert_accuracy(results["last_words"]["acc,none"], [word.lead for word in words])
    perplexity = math.log(results["last_words"]["perplexity,none"])
    assert perplexity == pytest.approx(-np.mean(log_probabilities), abs=TOLERANCE)


def assert_accuracy(accuracy: float, leads: list[float]) -> None:
    """Check the share of right answers, whose log probabilities have `leads` over those of wrong ones."""
    least, most = (np.mean([lead > limit for lead in leads]) for limit in (TOLERANCE, -TOLERANCE))
    assert least <= accuracy <= most


def mmlu_questions() -> list[dict[str, Any]]:
    """Return the shortest questions of MMLU (MIT licence), of those that lm-eval's package has for its examples."""
    (package,) = installed("lm-eval").glob("lib/python3.*/site-packages/lm_eval")
    subjects = json.loads((package / "tasks/mmlu/flan_cot_fewshot/_cot_prompts.json").read_text())
    found = [match for text in subjects.values() for match in MMLU_QUESTION.finditer(text)]
    return [
        {"question": match["question"], "choices": match.groups()[1:5], "answer": "ABCD".index(match["answer"])}
        for match in sorted(found, key=lambda match: sum(map(len, match.groups())))[:MMLU_QUESTIONS]
    ]


def write_task(directory: Path, name: str, task: str, documents: Sequence[Mapping[str, Any]]) -> None:
    data = directory / f"{name}.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in documents))
    (directory / f"{name}.yaml").write_text(task.replace("DATA", str(data)))


@dataclass(frozen=True)
class Sample:
    """The questions of lm-eval about one document, and the answers."""

    document: dict[str, Any]
    pairs: list[tuple[str, str]]
    """Contexts and their continuations."""
    log_probabilities: list[float]


def run_lm_eval(
    directory: Path, stack: RunningStack, model: str, tokenizer: Path, *tasks: str
) -> tuple[dict[str, Any], dict[str, list[Sample]]]:
    """Run tasks that are described in `directory`, and return their results and samples by name."""
    options = {
        "model": model,
        "base_url": f"{stack.url}/completions",
        "tokenizer_backend": "huggingface",
        "tokenizer": tokenizer,
        "tokenized_requests": False,
        "max_retries": 1,
    }
    program = python_of("lm-eval").with_name("lm_eval")
    ran = subprocess.run(
        [
            *(program, "--model", "local-completions", "--tasks", ",".join(tasks), "--include_path", directory),
            *("--model_args", ",".join(f"{name}={value}" for name, value in options.items())),
            *("--output_path", directory / "results", "--log_samples"),
        ],
        env={
            **os.environ,
            "HOME": str(directory),
            "HF_HUB_OFFLINE": "1",
            "OPENAI_API_KEY": stack.api_key,
        },
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    (file,) = (directory / "results").rglob("results_*.json")
    return json.loads(file.read_text())["results"], {name: read_samples(file.parent, name) for name in tasks}


def read_samples(directory: Path, task: str) -> list[Sample]:
    (file,) = directory.glob(f"samples_{task}_*.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [
        Sample(
            document=line["doc"],
            pairs=[(arguments["arg_0"], arguments["arg_1"]) for arguments in line["arguments"].values()],
            log_probabilities=[float(value) for value, _ in line["filtered_resps"]],
        )
        for line in sorted(lines, key=lambda line: line["doc_id"])
    ]
