"""Translates OpenAI's (legacy) text completion request into GenerateRequest: its prompt has no chat template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import ReadOptions
from services.gateway.dialects.json_model import read_model, wrong_type
from services.gateway.dialects.openai_call import OpenAICall, finish_call
from services.gateway.dialects.openai_completions.request_model import DEFAULT_MAX_TOKENS, CompletionRequest
from services.gateway.dialects.openai_sampling import add_sampling
from services.gateway.errors import bad_request
from services.runtime.messages.message import Message


@dataclass(frozen=True, kw_only=True)
class CompletionCall(OpenAICall):
    """A call for the continuation of a text."""

    echo: str = ""
    """The text that comes before what is generated."""


def read_completion(body: Any, options: ReadOptions) -> CompletionCall:
    """Read a parsed body.

    Raises:
        ApiError: A 400 that names the field, what it holds and what it must be.
    """
    request = read_model(CompletionRequest, body)
    generate = pb.GenerateRequest(model=request.model, n=request.n or 1, refuse_ignored_parameters=options.strict)
    # The completion is everything that the model generates: its reasoning too, in the model's own notation.
    generate.reasoning.in_content = True
    _add_prompt(request.prompt, generate)
    overruled_fields: list[str] = []
    add_sampling(request, generate.sampling, overruled_fields)
    if not generate.sampling.HasField("max_tokens"):
        generate.sampling.max_tokens = DEFAULT_MAX_TOKENS
    if request.logprobs is not None:
        generate.logprobs.SetInParent()
        generate.logprobs.top = request.logprobs
    if request.best_of not in (None, generate.n):
        value = request.best_of or 0
        raise bad_request(Message("best_of_is_not_n", field="best_of", other_field="n", value=value, n=generate.n))
    if request.suffix:
        raise bad_request(Message("field_not_supported", field="suffix"), code="unsupported_parameter")
    echo = _echo(request, generate)
    call = finish_call(request, body, generate, overruled_fields, strict=options.strict)
    return CompletionCall(**{**vars(call), "echo": echo})


def _add_prompt(prompt: str | list[Any], generate: pb.GenerateRequest) -> None:
    path = "prompt"
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        if len(prompt) > 1:
            raise bad_request(Message("several_prompts_in_one_field", field="prompt", value=len(prompt)))
        prompt, path = prompt[0], "prompt[0]"
    if isinstance(prompt, str):
        if not prompt:
            raise bad_request(Message("text_empty", field=path))
        generate.prompt = prompt
        return
    if not prompt:
        raise bad_request(Message("list_empty", field=path))
    for index, token_id in enumerate(prompt):
        if not isinstance(token_id, int):
            raise wrong_type(f"{path}[{index}]", "integer", token_id)
    generate.prompt_token_ids.extend(prompt)


def _echo(request: CompletionRequest, generate: pb.GenerateRequest) -> str:
    """Return the text that is repeated before the continuation."""
    if not request.echo:
        return ""
    if generate.HasField("logprobs"):
        raise bad_request(Message("mutually_exclusive", field="echo", other_field="logprobs"))
    if not generate.prompt:
        raise bad_request(Message("echo_of_token_ids", field="echo"))
    return generate.prompt
