"""Reads OpenAI's (legacy) text completion request into GenerateRequest: a prompt as it stands, without a template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import ReadOptions
from services.gateway.dialects.json_fields import Fields, wrong_type
from services.gateway.dialects.openai_call import OpenAICall, completed
from services.gateway.dialects.openai_sampling import add_sampling, read_token_id
from services.gateway.errors import bad_request
from services.gateway.quoting import shown

DEFAULT_MAX_TOKENS: Final = 16
"""OpenAI's."""
MAX_LOGPROBS: Final = 20


@dataclass(frozen=True, kw_only=True)
class CompletionCall(OpenAICall):
    """A call for the continuation of a text."""

    echo: str = ""
    """The text that comes before what is generated."""


def read_completion(body: Any, options: ReadOptions) -> CompletionCall:
    """Read a parsed body. Raises ApiError (400) that names the field, what it holds and what it must be."""
    fields = Fields(body)
    generate = pb.GenerateRequest(
        model=fields.required_string("model"),
        n=fields.integer("n", least=1) or 1,
        refuse_ignored_parameters=options.strict,
    )
    # What the model writes is the completion: its reasoning too, as it marks it.
    generate.reasoning.in_content = True
    _add_prompt(fields, generate)
    add_sampling(fields, generate.sampling)
    if not generate.sampling.HasField("max_tokens"):
        generate.sampling.max_tokens = DEFAULT_MAX_TOKENS
    top = fields.integer("logprobs", most=MAX_LOGPROBS)
    if top is not None:
        generate.logprobs.SetInParent()
        generate.logprobs.top = top
    best_of = fields.integer("best_of", least=1)
    if best_of not in (None, generate.n):
        raise bad_request("best_of", f"best_of is {best_of}; it must be n, which is {generate.n}: all are returned")
    if fields.string("suffix"):
        raise bad_request("suffix", "suffix is not available here; leave it out", code="unsupported_parameter")
    fields.string("user")
    echo = _echo(fields, generate)
    call = completed(fields, generate, strict=options.strict)
    return CompletionCall(
        generate=generate,
        stream=call.stream,
        include_usage=call.include_usage,
        continuous_usage=call.continuous_usage,
        ignored=call.ignored,
        dry_run=call.dry_run,
        structured_output_field=call.structured_output_field,
        echo=echo,
    )


def _add_prompt(fields: Fields, generate: pb.GenerateRequest) -> None:
    prompt, path = fields.get("prompt"), "prompt"
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list):
        if len(prompt) > 1:
            raise bad_request("prompt", f"prompt holds {len(prompt)} prompts; send a request for each")
        prompt, path = prompt[0], "prompt[0]"
    if isinstance(prompt, str):
        if not prompt:
            raise bad_request("prompt", f"{path} is empty; it must have at least one character")
        generate.prompt = prompt
    elif isinstance(prompt, list) and prompt:
        generate.prompt_token_ids.extend(read_token_id(f"{path}[{index}]", each) for index, each in enumerate(prompt))
    elif prompt is None or prompt == []:
        raise bad_request("prompt", f"prompt is {shown(prompt)}; it must be a string or a list of token ids")
    else:
        raise wrong_type(path, "a string or a list of token ids", prompt)


def _echo(fields: Fields, generate: pb.GenerateRequest) -> str:
    if not fields.boolean("echo"):
        return ""
    if generate.HasField("logprobs"):
        raise bad_request("echo", "echo is not available together with logprobs; leave one of them out")
    if not generate.prompt:
        raise bad_request("echo", "echo is not available for a prompt of token ids; send its text, or leave echo out")
    return generate.prompt
