"""Translates OpenAI's (legacy) text completion request into GenerateRequest: its prompt has no chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import ReadOptions
from services.gateway.dialects.json_model import read_model
from services.gateway.dialects.openai_call import OpenAICall, finish_call
from services.gateway.dialects.openai_completions.prompts import add_prompts
from services.gateway.dialects.openai_completions.request_model import DEFAULT_MAX_TOKENS, CompletionRequest
from services.gateway.dialects.openai_sampling import add_sampling
from services.gateway.errors import bad_request
from services.runtime.messages.message import Message


@dataclass(frozen=True, kw_only=True)
class CompletionCall(OpenAICall):
    """A call for the continuations of texts."""

    echoes: bool = False
    """Whether the prompts come before what is generated."""
    prompts: Sequence[str | None] = ("",)
    """The prompts to repeat, in order. None: its text comes with the log probabilities of its tokens."""
    n: int = 1
    """The number of continuations of each prompt that are returned."""
    generated: int = 1
    """The number of continuations of each prompt that are generated; the most probable ones are returned."""
    only_echoes: bool = False
    """True to return the prompts alone, or nothing without `echoes`. Engines generate one token, which is left out."""
    returns_logprobs: bool = False
    """Whether log probabilities are returned. They are generated also where only the best continuations are."""

    def echo(self, choice: int) -> str | None:
        """Return the text that comes before what is generated for a choice, as in `prompts`."""
        return self.prompts[choice // self.generated] if self.echoes else ""


def read_completion(body: Any, options: ReadOptions) -> CompletionCall:
    """Read a parsed body.

    Raises:
        ApiError: A 400 that names the field, what it holds and what it must be.
    """
    request = read_model(CompletionRequest, body)
    generate = pb.GenerateRequest(model=request.model, n=request.n or 1, refuse_ignored_parameters=options.strict)
    # The completion is everything that the model generates: its reasoning too, in the model's own notation.
    generate.reasoning.in_content = True
    suffix = request.suffix or ""
    prompts = add_prompts(request.prompt, generate, may_be_empty=bool(suffix))
    generate.suffix = suffix
    overruled_fields: list[str] = []
    add_sampling(request, generate.sampling, overruled_fields)
    if not generate.sampling.HasField("max_tokens"):
        generate.sampling.max_tokens = DEFAULT_MAX_TOKENS
    only_echoes = generate.sampling.max_tokens == 0
    if only_echoes:
        generate.sampling.max_tokens = 1
    if request.logprobs is not None:
        generate.logprobs.SetInParent()
        generate.logprobs.top = request.logprobs
        generate.logprobs.prompt = request.echo or False
    n, generated = generate.n, _choices_to_generate(request, generate.n, overruled_fields)
    if generated > n:
        # They are compared by their log probabilities.
        generate.n = generated
        generate.logprobs.SetInParent()
    if request.echo and request.logprobs is None and None in prompts:
        raise bad_request(Message("echo_of_token_ids", field="echo", other_field="logprobs"))
    if request.dry_run and len(prompts) > 1:
        raise bad_request(Message("several_prompts_in_one_field", field="prompt", value=len(prompts)))
    return finish_call(
        CompletionCall,
        request,
        body,
        generate,
        overruled_fields,
        strict=options.strict,
        echoes=request.echo or False,
        prompts=prompts if request.echo else [""] * len(prompts),
        n=n,
        generated=generated,
        only_echoes=only_echoes,
        returns_logprobs=request.logprobs is not None,
    )


def _choices_to_generate(request: CompletionRequest, n: int, overruled_fields: list[str]) -> int:
    best_of = request.best_of or n
    if best_of < n:
        overruled_fields.append("best_of")
        return n
    if best_of > n and request.stream:
        raise bad_request(Message("best_of_in_stream", field="best_of", other_field="stream"))
    return best_of
