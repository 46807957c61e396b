from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from services.inference.model.catalog import CapabilitiesSpec, ParsersSpec, load_model
from services.inference.model.served_model import EngineDescription, ServedModel
from services.inference.model.tokenizer import BYTES_OF_CHARACTERS, ModelTokenizer
from tests.support.models import qwen3, smollm2
from tests.unit.inference.running_worker import Worker, running_worker
from tests.unit.inference.scripted import MODEL, PARAMETERS


@pytest.fixture(scope="session")
def model_directory() -> Path:
    return smollm2()


@pytest.fixture(scope="session")
def tokenizer(loaded: ServedModel) -> ModelTokenizer:
    return loaded.tokenizer


@pytest.fixture(scope="session")
def reference(model_directory: Path) -> Tokenizer:
    """The tokenizer of the same files, which decodes whole sequences by itself."""
    return Tokenizer.from_file(str(model_directory / "tokenizer.json"))


@pytest.fixture(scope="session")
def bytewise(tmp_path_factory: pytest.TempPathFactory) -> ModelTokenizer:
    """A tokenizer without merges: every byte is a token, so that all boundaries of bytes are boundaries of tokens."""
    directory = tmp_path_factory.mktemp("bytewise")
    tokenizer = Tokenizer(models.BPE(vocab=dict(BYTES_OF_CHARACTERS), merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    return ModelTokenizer(directory)


@pytest.fixture(scope="session")
def loaded(model_directory: Path) -> ServedModel:
    return ServedModel.load(load_model(MODEL), model_directory)


@pytest.fixture
def model(loaded: ServedModel) -> ServedModel:
    """A separate model for each test, whose engine supports all parameters but structured output."""
    engine = EngineDescription("scripted", "1", PARAMETERS, context_length=256, slots=4)
    return dataclasses.replace(loaded, description=engine, open_requests=set())


@pytest.fixture
def caller(model: ServedModel) -> ServedModel:
    """A model with tool calls and structured output."""
    engine = EngineDescription("scripted", "1", PARAMETERS | {"structured_output"}, context_length=4096, slots=4)
    spec = model.spec.model_copy(update={"parsers": ParsersSpec(tool_calls="hermes")})
    return dataclasses.replace(model, spec=spec, description=engine)


@pytest.fixture(scope="session")
def reasoning_directory(tmp_path_factory: pytest.TempPathFactory, model_directory: Path) -> Path:
    """The small model's tokenizer with the tags of reasoning, and a template that can disable it."""
    directory = tmp_path_factory.mktemp("reasoning")
    shutil.copy(model_directory / "generation_config.json", directory)
    content = json.loads((model_directory / "tokenizer.json").read_text())
    size = len(content["model"]["vocab"])
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    content["added_tokens"] += [
        {"id": size + index, "content": tag, **flags} for index, tag in enumerate(("<think>", "</think>"))
    ]
    (directory / "tokenizer.json").write_text(json.dumps(content))
    template = "{{ messages[0].content }}{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    return directory


@pytest.fixture(scope="session")
def loaded_reasoning_model(reasoning_directory: Path) -> ServedModel:
    spec = load_model(MODEL).model_copy(
        update={
            "parsers": ParsersSpec(reasoning="think", tool_calls="hermes"),
            "capabilities": CapabilitiesSpec(reasoning_optional=True),
        }
    )
    return ServedModel.load(spec, reasoning_directory)


@pytest.fixture
def reasoning_model(loaded_reasoning_model: ServedModel) -> ServedModel:
    engine = EngineDescription("scripted", "1", PARAMETERS | {"structured_output"}, context_length=256, slots=4)
    return dataclasses.replace(loaded_reasoning_model, description=engine, open_requests=set())


@pytest.fixture(scope="session")
def loaded_qwen3() -> ServedModel:
    return ServedModel.load(load_model("qwen3-8b"), qwen3())


@pytest.fixture
async def worker(model: ServedModel) -> AsyncIterator[Worker]:
    """A worker that serves `model` over gRPC, with a stand-in for Triton."""
    async with running_worker(model) as worker:
        yield worker
