"""Images in the engine llamacpp, compared with llama.cpp's own helpers."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from bench.trtllm.subject import Reader
from services.inference.triton_backend.contract import Params, Request
from services.inference.triton_backend.engines.llama_api import LlamaApi
from services.inference.triton_backend.engines.llamacpp import LlamaCppEngine
from services.inference.triton_backend.params_parser import parse
from services.worker.triton_kit.request_error import RequestError
from tests.support import models, qwen3_gguf

IMAGE = 151655
TOP = 20
SIZES = [(256, 256), (96, 320)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("vision")
    qwen3_gguf.write(directory / "model.gguf", models.qwen3(), supports_vision=True)
    qwen3_gguf.write_mmproj(directory / "mmproj.gguf")
    return directory


@pytest.fixture(scope="module")
def engine(files: Path) -> Iterator[LlamaCppEngine]:
    engine = LlamaCppEngine(
        model=str(files / "model.gguf"), mmproj=str(files / "mmproj.gguf"), context_length=1024, slots=3
    )
    yield engine
    engine.close()


def pixels(seed: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def png(image: npt.NDArray[np.uint8]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return data.getvalue()


def start(engine: LlamaCppEngine, prompt: list[int], *images: bytes, **more: Any) -> Reader:
    params = parse(json.dumps({"temperature": 0, "ignore_eos": True, "max_tokens": 1, "logprobs": TOP, **more}))
    assert isinstance(params, Params)
    reader = Reader()
    engine.submit(Request(params, prompt, images=images), reader)
    return reader


def likeliest(reader: Reader) -> dict[int, float]:
    (top,) = reader.wait().top
    return dict(top)


def reference(
    api: LlamaApi, files: Path, text: str, images: list[npt.NDArray[np.uint8]]
) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Return the prompt's ids, one for each image, and the log probabilities after it, by llama.cpp's own helpers."""
    lib, ffi = api.lib, api.ffi
    model = lib.llama_model_load_from_file(str(files / "model.gguf").encode(), lib.llama_model_default_params())
    params = lib.mtmd_context_params_default()
    params.use_gpu = params.print_timings = params.warmup = False
    params.n_threads = 1
    eyes = lib.mtmd_init_from_file(str(files / "mmproj.gguf").encode(), model, params)
    context = lib.llama_init_from_model(model, lib.llama_context_default_params())
    given = ffi.new("mtmd_input_text *")
    whole = ffi.new("char[]", text.encode())
    given.text, given.text_len, given.parse_special = whole, len(text.encode()), True
    bitmaps = [lib.mtmd_bitmap_init(i.shape[1], i.shape[0], ffi.from_buffer("unsigned char[]", i)) for i in images]
    chunks = lib.mtmd_input_chunks_init()
    assert lib.mtmd_tokenize(eyes, chunks, given, ffi.new("mtmd_bitmap * []", bitmaps), len(bitmaps)) == 0
    ids: list[int] = []
    for i in range(lib.mtmd_input_chunks_size(chunks)):
        chunk, count = lib.mtmd_input_chunks_get(chunks, i), ffi.new("size_t *")
        is_text = lib.mtmd_input_chunk_get_type(chunk) == 0
        ids += list(lib.mtmd_input_chunk_get_tokens_text(chunk, count)[0 : count[0]]) if is_text else [IMAGE]
    assert lib.mtmd_helper_eval_chunks(eyes, context, chunks, 0, 0, 512, True, ffi.new("int32_t *")) == 0
    size = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    logits = np.frombuffer(ffi.buffer(lib.llama_get_logits_ith(context, -1), size * 4), np.float32).astype(np.float64)
    probabilities = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    lib.mtmd_input_chunks_free(chunks)
    for bitmap in bitmaps:
        lib.mtmd_bitmap_free(bitmap)
    lib.llama_free(context)
    lib.mtmd_free(eyes)
    lib.llama_model_free(model)
    return ids, probabilities


@pytest.mark.parametrize("beside", [False, True])
def test_images_are_read_as_llama_cpp_itself_reads_them(engine: LlamaCppEngine, files: Path, beside: bool) -> None:
    images = [pixels(seed, *size) for seed, size in enumerate(SIZES)]
    ids, expected = reference(engine._api, files, "one <__media__> two <__media__> three words", images)
    # Beside other requests, images are read in parts.
    others = [start(engine, [5, 6, 7], max_tokens=200) for _ in range(2 if beside else 0)]
    found = likeliest(start(engine, ids, *map(png, images), image_sizes=[list(size) for size in SIZES]))
    for other in others:
        other.wait()
    assert len(found) == TOP
    for token_id, logprob in found.items():
        assert logprob == pytest.approx(expected[token_id], abs=1e-3)


def test_text_behind_an_image_is_read(engine: LlamaCppEngine) -> None:
    image, size = png(pixels(1, 256, 256)), [[256, 256]]
    whole = start(engine, [1, IMAGE, 2, 3], image, image_sizes=size, max_tokens=6).wait()
    assert whole.usage.prompt_tokens == 3 + 64
    # Each generated token has the position that the next token of a prompt would have.
    for count in range(1, 6):
        prompt = [1, IMAGE, 2, 3, *whole.token_ids[:count]]
        assert start(engine, prompt, image, image_sizes=size).wait().token_ids == [whole.token_ids[count]]


def test_a_slot_keeps_text_before_an_image_and_not_the_image(engine: LlamaCppEngine) -> None:
    text, size = list(range(1000, 1080)), [[256, 256]]
    warm = {"temperature": 1e-3, "image_sizes": size, "cache_salt": "own"}
    first, second = (start(engine, [*text, IMAGE, 7], png(pixels(seed, 256, 256)), **warm) for seed in (1, 1))
    assert first.wait().usage.cached_tokens == 0
    assert second.wait().usage.cached_tokens <= len(text)
    third = start(engine, [*text, IMAGE, 7], png(pixels(2, 256, 256)), **warm).wait()
    assert third.usage.cached_tokens == len(text)
    fresh = start(engine, [*text, IMAGE, 7], png(pixels(2, 256, 256)), image_sizes=size)
    assert likeliest(fresh) == pytest.approx(likeliest(third), abs=1e-3)


@pytest.mark.parametrize(
    ("prompt", "image", "message_id"),
    [
        ([1, 2], b"", "image_placeholders_mismatch"),
        ([1, IMAGE, 2], b"no image", "image_format_unknown"),
        ([1, IMAGE], b"", "image_at_end_of_prompt"),
        ([1] * 1000 + [IMAGE, 2], b"", "engine_context_full"),
    ],
)
def test_an_invalid_image_is_rejected(engine: LlamaCppEngine, prompt: list[int], image: bytes, message_id: str) -> None:
    with pytest.raises(RequestError) as rejection:
        start(engine, prompt, image or png(pixels(1, 256, 256)), image_sizes=[[256, 256]]).wait()
    assert rejection.value.message_id == message_id
    assert start(engine, [1, 2, 3]).wait().token_ids


def test_an_unsupported_vision_projector_is_rejected(files: Path, tmp_path: Path) -> None:
    for eyes, problem in (("none.gguf", "there is no mmproj file"), ("model.gguf", "cannot be loaded")):
        with pytest.raises((ValueError, OSError), match=problem):
            LlamaCppEngine(model=str(files / "model.gguf"), mmproj=str(files / eyes), context_length=64)


def test_a_model_without_vision_projector_rejects_images(files: Path) -> None:
    blind = LlamaCppEngine(model=str(files / "model.gguf"), context_length=64, slots=1)
    try:
        with pytest.raises(RequestError) as rejection:
            start(blind, [1, IMAGE, 2], png(pixels(1, 64, 64)))
        assert rejection.value.message_id == "images_not_supported"
    finally:
        blind.close()
