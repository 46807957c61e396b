"""Requests that TensorRT-LLM must not run beside one another: in older versions, they end the engine for everybody."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.inference.triton_backend.contract import Request
from services.inference.triton_backend.engines import trtllm_api
from tests.stand_ins import trtllm as stand_in
from tests.support.pictures import encoded
from tests.support.trtllm_engine import Bench, Reader, read, until

IMAGE = encoded("PNG", 56, 56)
TINY = encoded("PNG", 9, 9)
VERSIONS = pytest.mark.parametrize("version", ["1.2.1", "1.3.0rc20", "1.3.0rc29"])
CONTROL_TOKEN_AS_TEXT = [ord(character) for character in "<|im_end|>"]
"""Token ids of ordinary text. What their text is read as is the control token."""


def ask_about(bench: Bench, image: bytes, prompt: tuple[int, ...] = (stand_in.IMAGE_TOKEN,)) -> Reader:
    reader = Reader()
    bench.last.submit(Request(read({"temperature": 0}), list(prompt), images=(image,)), reader)
    return reader


def goes_on(reader: Reader) -> None:
    """Wait for another token of a request that must not have ended."""
    seen = len(reader.token_ids)
    until(lambda: len(reader.token_ids) > seen or reader.has_ended)
    assert not reader.has_ended, reader.error


@pytest.mark.parametrize("version", ["1.2.1", "1.3.0rc25", "1.3.0rc26"])
def test_a_bias_is_supported_only_where_it_harms_nobody(bench: Bench) -> None:
    engine = bench.engine(context_length=100_000)
    other = bench.ask([1])
    other.wait_for_tokens()
    if "logit_bias" in engine.supported_parameters:
        assert bench.ask([1], max_tokens=2, temperature=0, logit_bias={"77": 100}).wait().token_ids == [77, 77]
    goes_on(other)


@pytest.mark.parametrize("version", ["1.3.0rc29"])
def test_a_sampler_with_the_fatal_line_does_not_support_a_bias(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sampler = tmp_path / "sampler.py"
    sampler.write_text("    assert req_bias is not None  # otherwise bias_to_index is empty")
    monkeypatch.setattr(trtllm_api, "_SAMPLERS", (str(sampler),))
    assert "logit_bias" not in bench.engine().supported_parameters


@VERSIONS
def test_a_prompt_of_text_runs_beside_one_with_an_image(bench: Bench) -> None:
    bench.engine(architecture=stand_in.QWEN25_VL, context_length=100_000)
    text = bench.ask([1])
    text.wait_for_tokens()
    assert ask_about(bench, IMAGE).wait().reason == "stop"
    goes_on(text)
    raw = Reader()
    bench.last.submit(Request(read({"max_tokens": 3}), text_input="a"), raw)
    assert raw.wait().reason == "length"
    goes_on(text)


@pytest.mark.parametrize("version", ["1.2.1"])
def test_a_probe_harms_no_prompt_with_an_image(bench: Bench) -> None:
    bench.engine(architecture=stand_in.QWEN25_VL, context_length=100_000)
    other = Reader()
    params = read({"ignore_eos": True})
    bench.last.submit(Request(params, [stand_in.IMAGE_TOKEN], images=(IMAGE,)), other)
    other.wait_for_tokens()
    error = ask_about(bench, TINY).wait().error
    assert error is not None
    assert error.reason == "INVALID_ARGUMENT"
    goes_on(other)


@VERSIONS
def test_text_never_becomes_a_control_token(bench: Bench, version: str) -> None:
    bench.engine(architecture=stand_in.QWEN25_VL)
    answers = [
        bench.ask([1, *CONTROL_TOKEN_AS_TEXT], max_tokens=1).wait(),
        ask_about(bench, IMAGE, (stand_in.IMAGE_TOKEN, *CONTROL_TOKEN_AS_TEXT)).wait(),
    ]
    takes_ids = {"1.2.1": [False, False], "1.3.0rc20": [False, True], "1.3.0rc29": [True, True]}[version]
    assert [answer.error is None for answer in answers] == takes_ids
    refused = [answer.error for answer in answers if answer.error is not None]
    assert all(error.reason == "INVALID_ARGUMENT" and "control token" in str(error) for error in refused)
