"""A real Qwen in the real vLLM: Qwen2.5-Coder-0.5B, whose GGUF file is saved as a checkpoint. It takes some minutes."""

from __future__ import annotations

import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.inference.model.tokenizer import ModelTokenizer
from services.worker.triton_client import TritonClient
from tests.support import gguf_checkpoint, vllm_models
from tests.support.environments import python_of
from tests.support.repository import ROOT
from tests.support.requirement import unmet
from tests.support.triton_servers import response

pytestmark = vllm_models.MARKS
MODEL = "qwen2.5-coder-0.5b"
IMPORTED = ROOT / ".cache" / "models" / MODEL
SECONDS = 600


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (IMPORTED / "model.gguf").exists():
        unmet(f"{MODEL} is missing; make run downloads it")
    directory = tmp_path_factory.mktemp("qwen")
    command = [
        python_of(vllm_models.ENVIRONMENT),
        gguf_checkpoint.__file__,
        IMPORTED / "model.gguf",
        IMPORTED,
        directory,
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=SECONDS)
    return directory


@pytest.fixture(scope="module")
async def client(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TritonClient]:
    arguments = {"dtype": "bfloat16", "model": str(checkpoint), "context_length": 512}
    async with vllm_models.serving(tmp_path_factory.mktemp("triton"), {MODEL: arguments}) as (_, connected):
        yield connected


async def answer(client: TritonClient, question: str, **params: Any) -> str:
    tokenizer = ModelTokenizer(IMPORTED)
    prompt = tokenizer.encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
    result = await response(client, MODEL, prompt, temperature=0, max_tokens=40, **params)
    assert result.finish_reason == "stop"
    return b"".join(map(tokenizer.bytes_of, result.token_ids[:-1])).decode()


async def test_it_answers(client: TritonClient) -> None:
    assert "Paris" in await answer(client, "What is the capital of France?")


async def test_its_json_follows_a_schema(client: TritonClient) -> None:
    schema = {"type": "object", "properties": {"capital": {"enum": ["Paris", "Tehran"]}}, "required": ["capital"]}
    schema["additionalProperties"] = False
    text = await answer(client, "پایتخت ایران کجاست؟", structured_output={"json": schema})
    value = json.loads(text)
    assert value.keys() == {"capital"}
    assert value["capital"] in ("Paris", "Tehran")
