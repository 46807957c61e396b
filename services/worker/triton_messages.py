"""Messages of Triton's gRPC protocol: requests with packed inputs, and responses as outputs of the engine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from tritonclient.grpc import service_pb2

from services.runtime.failure import invalid
from services.runtime.messages.message import Message

MAX_MESSAGE_BYTES: Final = 32 * 2**20


@dataclass(slots=True, frozen=True)
class Tensor:
    """A tensor as Triton sends it."""

    shape: tuple[int, ...]
    raw: bytes
    """Little-endian numbers, or byte strings, each after its length in four bytes."""

    def string(self) -> str:
        """Return the text of a tensor that holds one string."""
        return string_of(self.raw)


@dataclass(slots=True, frozen=True)
class PromptLogprobs:
    """The log probabilities of a prompt's tokens. Lists have one entry per token of the prompt."""

    logprobs: list[float]
    top_token_ids: list[list[int]] | None
    top_logprobs: list[list[float]] | None


@dataclass(slots=True, frozen=True)
class EngineOutput:
    """The tokens that the engine has generated since the previous output. Lists have one entry per token id."""

    token_ids: list[int]
    logprobs: list[float] | None
    """Natural logarithms of the tokens' probabilities, if the request asked for them."""
    top_token_ids: list[list[int]] | None
    """For each token, the most probable ones, best first, if the request asked for them."""
    top_logprobs: list[list[float]] | None
    """Aligned with `top_token_ids`."""
    finish_reason: str | None
    """`stop`, `length` or `cancelled`, in the last output."""
    usage: dict[str, Any] | None
    """prompt_tokens, completion_tokens, cached_tokens and timings (in seconds), in the last output."""
    left_out: int = 0
    """The number of further generated tokens, which are not in the lists because they are not part of the text."""
    prompt: PromptLogprobs | None = None
    """With the first tokens, if the request asked for it."""
    cached_tokens: int | None = None
    """The number of the prompt's tokens that came from the prefix cache, in the first output with tokens, if known."""

    def without_tokens(self) -> EngineOutput:
        """Return the output as if the request were for no tokens."""
        reason = "length" if self.finish_reason == "stop" else self.finish_reason
        return replace(self, token_ids=[], logprobs=None, top_token_ids=None, top_logprobs=None, finish_reason=reason)

    @property
    def is_progress(self) -> bool:
        """Whether it only says that the engine is reading the prompt."""
        return not self.token_ids and not self.left_out and self.finish_reason is None


def model_request(model: str, request_id: str, params: Mapping[str, Any]) -> Any:
    """Return a request with the parameters `params` and nothing else."""
    request = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    _add_input(request, "params", "BYTES", 1, packed([json.dumps(params).encode()]))
    return request


def acknowledgement(model: str, own_id: str, request_id: str, responses: int) -> Any:
    """Return the control request that acknowledges `responses` responses of a request."""
    return model_request(model, own_id, {"acknowledge": {"request_id": request_id, "responses": responses}})


def cancellation(model: str, own_id: str, request_id: str) -> Any:
    """Return the control request that cancels a request, or a stream of steps."""
    return model_request(model, own_id, {"cancel": {"request_id": request_id}})


def check_size(request: Any) -> None:
    """Raise Failure for a request that is larger than MAX_MESSAGE_BYTES."""
    size = request.ByteSize()
    if size > MAX_MESSAGE_BYTES:
        raise invalid(Message("request_too_large_for_model", value=size, limit=MAX_MESSAGE_BYTES))


def add_prompt(request: Any, prompt_token_ids: Sequence[int], text_input: str | None, images: Sequence[bytes]) -> None:
    """Add the inputs of a generation to a request."""
    if text_input is None:
        ids = np.asarray(prompt_token_ids, "<i4")
        _add_input(request, "prompt_token_ids", "INT32", len(ids), ids.tobytes())
    else:
        _add_input(request, "text_input", "BYTES", 1, packed([text_input.encode()]))
    if images:
        _add_input(request, "images", "BYTES", len(images), packed(images))


def _add_input(request: Any, name: str, datatype: str, count: int, raw: bytes) -> None:
    request.inputs.add(name=name, datatype=datatype, shape=[count])
    request.raw_input_contents.append(raw)


def packed(strings: Sequence[bytes]) -> bytes:
    """Return strings in Triton's form: each after its length in four bytes."""
    return b"".join(len(s).to_bytes(4, "little") + s for s in strings)


def output_of(answer: Any) -> EngineOutput:
    """Return the output in a response to a request that has a stream of its own."""
    tensors = tensors_of(answer)
    token_ids = tensors.get("token_ids")
    logprobs = tensors.get("logprobs")
    usage = tensors.get("usage")
    reason = tensors.get("finish_reason")
    top_ids, top_logprobs = None, None
    if "top_token_ids" in tensors:
        top_ids, top_logprobs = _top(answer, tensors)
    prompt = None
    if "prompt_logprobs" in tensors:
        has_top = "prompt_top_token_ids" in tensors
        values = np.frombuffer(tensors["prompt_logprobs"], "<f4").tolist()
        prompt = PromptLogprobs(values, *(_top(answer, tensors, prefix="prompt_") if has_top else (None, None)))
    noted = {} if usage is None else json.loads(string_of(usage))
    return EngineOutput(
        token_ids=[] if token_ids is None else memoryview(token_ids).cast("i").tolist(),
        logprobs=None if logprobs is None else np.frombuffer(logprobs, "<f4").tolist(),
        top_token_ids=top_ids,
        top_logprobs=top_logprobs,
        finish_reason=None if reason is None else string_of(reason),
        usage=None if usage is None or reason is None else noted,
        prompt=prompt,
        cached_tokens=noted.get("cached_tokens"),
    )


def tensors_of(answer: Any) -> dict[str, bytes]:
    """Return the raw contents of the tensors of a response, by name."""
    return {tensor.name: raw for tensor, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)}


def strings_of(raw: bytes) -> list[str]:
    """Return the texts of a tensor that holds any number of strings."""
    texts, offset = [], 0
    while offset < len(raw):
        begin = offset + 4
        offset = begin + int.from_bytes(raw[offset:begin], "little")
        texts.append(raw[begin:offset].decode())
    return texts


def string_of(raw: bytes) -> str:
    """Return the text of a tensor that holds one string."""
    return raw[4:].decode()


def _top(answer: Any, tensors: Mapping[str, bytes], *, prefix: str = "") -> tuple[list[list[int]], list[list[float]]]:
    name = f"{prefix}top_token_ids"
    shape = next(list(tensor.shape) for tensor in answer.outputs if tensor.name == name)
    ids = np.frombuffer(tensors[name], "<i4").reshape(shape).tolist()
    values = np.frombuffer(tensors[f"{prefix}top_logprobs"], "<f4").reshape(shape).tolist()
    # A row with fewer tokens than the request asked for is filled up with the id -1.
    counts = [sum(token_id >= 0 for token_id in row) for row in ids]
    return (
        [row[:count] for row, count in zip(ids, counts, strict=True)],
        [row[:count] for row, count in zip(values, counts, strict=True)],
    )
