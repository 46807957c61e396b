"""Reasoning and answer as two requests to the engine, token by token."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import Any

import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.generation.choice import Choice
from services.inference.generation.choice_requests import ChoiceRequests
from services.inference.model.served_model import ServedModel
from services.inference.request.engine_rejections import restated
from services.inference.request.prompt import Prompt, render
from services.runtime.failure import Failure, Reason, invalid
from services.runtime.messages.message import Message
from services.worker.triton_messages import EngineOutput
from tests.unit.inference.scripted import EngineRequest, ScriptedTriton, outputs

END = 2
WORD, OTHER = 1000, 2000


def ask(*, budget: int | None = None, **fields: Any) -> pb.GenerateRequest:
    message = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="Hello")])
    request = pb.GenerateRequest(messages=[message], **fields)
    if budget is not None:
        request.reasoning.budget_tokens = budget
    return request


def choice_requests(
    triton: ScriptedTriton, model: ServedModel, request: pb.GenerateRequest, prompt: Prompt
) -> ChoiceRequests:
    return ChoiceRequests(
        triton,  # type: ignore[arg-type]  # a stand-in
        model,
        request,
        prompt,
        choice=0,
        request_id="r",
        on_request=lambda: None,
    )


async def reject(failure: Failure, _: EngineRequest) -> AsyncGenerator[EngineOutput, None]:
    raise failure
    yield


async def ran(
    model: ServedModel, request: pb.GenerateRequest, *answers: tuple[Sequence[int], str]
) -> tuple[list[EngineOutput], list[EngineRequest], list[int]]:
    """Return the outputs, the requests to the engine and the prompt. The engine generates `answers` in turn."""
    prompt = await render(request, model)
    triton = ScriptedTriton()
    left = list(answers)

    def script(_: EngineRequest) -> Any:
        ids, finish = left.pop(0)
        return outputs(*([token_id] for token_id in ids), finish=finish)

    triton.script = script
    requests = choice_requests(triton, model, request, prompt)
    received = [output async for output in requests.outputs()]
    assert not left
    assert [output.finish_reason is not None for output in received] == [False] * (len(received) - 1) + [True]
    return received, triton.requests, prompt.token_ids


def ids_of(received: list[EngineOutput]) -> list[int]:
    return [token_id for output in received for token_id in output.token_ids]


async def test_without_budget_or_structured_output_there_is_one_request(reasoning_model: ServedModel) -> None:
    received, engine_requests, prompt = await ran(reasoning_model, ask(), ([WORD, END], "stop"))
    assert ids_of(received) == [WORD, END]
    assert [one.prompt_token_ids for one in engine_requests] == [prompt]
    assert "stop_token_ids" not in engine_requests[0].params


async def test_an_exhausted_budget_closes_the_reasoning(reasoning_model: ServedModel) -> None:
    encode = reasoning_model.tokenizer.encode
    closing = encode("\n</think>\n\n")
    budget = 2 + len(encode("\n</think>"))
    received, engine_requests, prompt = await ran(
        reasoning_model, ask(budget=budget), ([WORD, WORD], "length"), ([OTHER, END], "stop")
    )
    assert ids_of(received) == [WORD, WORD, *closing, OTHER, END]
    assert prompt[-len(encode("<think>\n")) :] == encode("<think>\n")
    assert [one.prompt_token_ids for one in engine_requests] == [prompt, [*prompt, WORD, WORD, *closing]]
    assert engine_requests[0].params["max_tokens"] == 2
    assert engine_requests[0].params["max_tokens"] + len(closing) + engine_requests[1].params[
        "max_tokens"
    ] == 256 - len(prompt)
    assert engine_requests[1].params["priority"] == 1
    usage = received[-1].usage
    assert usage is not None
    assert usage == {"cached_tokens": 3, "timings": {**usage["timings"]}}
    assert usage["timings"]["decode_s"] == 4.0


async def test_reasoning_within_its_budget_is_unchanged(reasoning_model: ServedModel) -> None:
    close = reasoning_model.reasoning_end_id
    assert close is not None
    received, engine_requests, prompt = await ran(
        reasoning_model, ask(budget=50), ([WORD, close], "stop"), ([OTHER, END], "stop")
    )
    assert ids_of(received) == [WORD, close, OTHER, END]
    assert engine_requests[0].params["stop_token_ids"] == [close]
    assert engine_requests[1].prompt_token_ids == [*prompt, WORD, close]
    assert "stop_token_ids" not in engine_requests[1].params


async def test_reasoning_that_takes_all_tokens_ends_the_choice(reasoning_model: ServedModel) -> None:
    request = ask(budget=50, sampling=pb.SamplingParams(max_tokens=2))
    received, engine_requests, _ = await ran(reasoning_model, request, ([WORD, WORD], "length"))
    assert (ids_of(received), received[-1].finish_reason, len(engine_requests)) == ([WORD, WORD], "length", 1)


async def test_the_closing_tag_of_reasoning_counts_as_tokens(reasoning_model: ServedModel) -> None:
    closing = reasoning_model.tokenizer.encode("\n</think>\n\n")
    budget = 2 + len(reasoning_model.tokenizer.encode("\n</think>"))
    request = ask(budget=budget, sampling=pb.SamplingParams(max_tokens=2 + len(closing)))
    received, engine_requests, _ = await ran(reasoning_model, request, ([WORD, WORD], "length"))
    assert (ids_of(received), received[-1].finish_reason, len(engine_requests)) == ([WORD, WORD, *closing], "length", 1)


async def test_a_stop_token_of_the_request_ends_the_choice_in_the_reasoning_too(reasoning_model: ServedModel) -> None:
    request = ask(budget=50, sampling=pb.SamplingParams(stop_token_ids=[WORD]))
    received, engine_requests, _ = await ran(reasoning_model, request, ([OTHER, WORD], "stop"))
    assert (received[-1].finish_reason, len(engine_requests)) == ("stop", 1)


@pytest.mark.parametrize("wanted", [None, 1])
async def test_an_end_token_is_not_part_of_the_reasoning_but_counts(
    reasoning_model: ServedModel, wanted: int | None
) -> None:
    logprobs = None if wanted is None else pb.LogprobsOptions(top=wanted)
    sampling = pb.SamplingParams(max_tokens=20, skip_special_tokens=False)
    request = ask(budget=15, sampling=sampling, logprobs=logprobs)
    closing = reasoning_model.tokenizer.encode("\n</think>\n\n")
    received, engine_requests, prompt = await ran(
        reasoning_model, request, ([WORD, END], "stop"), ([OTHER, END], "stop")
    )
    assert ids_of(received) == [WORD, *closing, OTHER, END]
    assert engine_requests[1].prompt_token_ids == [*prompt, WORD, *closing]
    assert engine_requests[1].params["max_tokens"] == 20 - 2 - len(closing)
    choice = Choice(0, request, reasoning_model, await render(request, reasoning_model))
    counted, reasoning = 0, ""
    for output in received:
        texts = choice.detokenize(output)
        for event in choice.events(output, texts, choice.parse(texts, at_end=output.finish_reason is not None)):
            counted += event.delta.token_count
            reasoning += event.delta.reasoning_content
    assert counted == 2 + len(closing) + 2
    assert reasoning.strip() == reasoning_model.tokenizer.bytes_of(WORD).decode().strip()


async def test_stop_tokens_do_not_end_reasoning_before_min_tokens(reasoning_model: ServedModel) -> None:
    close = reasoning_model.reasoning_end_id
    assert close is not None
    request = ask(budget=50, sampling=pb.SamplingParams(stop_token_ids=[WORD], min_tokens=3))
    parts: list[tuple[Sequence[int], str]] = [([OTHER, WORD, OTHER], "length"), ([OTHER, WORD], "stop")]
    received, engine_requests, prompt = await ran(reasoning_model, request, *parts)
    assert (ids_of(received), received[-1].finish_reason) == ([OTHER, WORD, OTHER, OTHER, WORD], "stop")
    assert [(one.params["stop_token_ids"], one.params.get("min_tokens")) for one in engine_requests] == [
        ([close], None),
        ([WORD, close], None),
    ]
    assert engine_requests[1].prompt_token_ids == [*prompt, OTHER, WORD, OTHER]
    assert (engine_requests[0].params["max_tokens"], engine_requests[1].params["priority"]) == (3, 1)
    assert engine_requests[0].params["max_tokens"] + engine_requests[1].params["max_tokens"] == 50 - len(
        reasoning_model.tokenizer.encode("\n</think>")
    )


async def test_reasoning_shorter_than_min_tokens_is_followed_by_the_answer(
    reasoning_model: ServedModel,
) -> None:
    close = reasoning_model.reasoning_end_id
    assert close is not None
    request = ask(budget=50, sampling=pb.SamplingParams(stop_token_ids=[WORD], min_tokens=9))
    received, engine_requests, _ = await ran(
        reasoning_model, request, ([WORD, WORD, close], "stop"), ([OTHER, WORD], "stop")
    )
    assert ids_of(received) == [WORD, WORD, close, OTHER, WORD]
    assert (engine_requests[1].params["min_tokens"], engine_requests[1].params["stop_token_ids"]) == (6, [WORD])


async def test_an_end_token_that_is_a_stop_token_ends_the_choice_in_the_reasoning(reasoning_model: ServedModel) -> None:
    request = ask(budget=50, sampling=pb.SamplingParams(stop_token_ids=[END]))
    received, engine_requests, _ = await ran(reasoning_model, request, ([OTHER, END], "stop"))
    assert (ids_of(received), received[-1].finish_reason, len(engine_requests)) == ([OTHER, END], "stop", 1)


async def test_a_budget_of_0_disables_reasoning(reasoning_model: ServedModel) -> None:
    received, engine_requests, prompt = await ran(reasoning_model, ask(budget=0), ([WORD, END], "stop"))
    assert ids_of(received) == [WORD, END]
    assert reasoning_model.reasoning_end_id in prompt
    assert len(engine_requests) == 1


async def test_structured_output_applies_to_the_answer_only(reasoning_model: ServedModel) -> None:
    close = reasoning_model.reasoning_end_id
    assert close is not None
    request = ask(
        response_format=pb.ResponseFormat(regex="a+"),
        reasoning=pb.ReasoningOptions(enabled=True),
        logprobs=pb.LogprobsOptions(top=2),
    )
    received, engine_requests, prompt = await ran(
        reasoning_model, request, ([WORD], "length"), ([WORD, close], "stop"), ([OTHER, END], "stop")
    )
    line = reasoning_model.tokenizer.encode("\n\n")
    assert ids_of(received) == [WORD, close, *line, OTHER, END]
    # The first request lets the engine reject an invalid structured output.
    assert [one.params.get("structured_output") for one in engine_requests] == [{"regex": "a+"}, None, {"regex": "a+"}]
    assert engine_requests[0].params["max_tokens"] == 1
    assert engine_requests[2].prompt_token_ids == [*prompt, WORD, close, *line]
    inserted = next(output for output in received if output.token_ids == line)
    assert inserted.logprobs == [0.0] * len(line)
    assert inserted.top_token_ids == [[token_id] for token_id in line]


async def test_only_the_cached_tokens_of_the_first_request_count(reasoning_model: ServedModel) -> None:
    received, _, prompt = await ran(reasoning_model, ask(budget=9), ([WORD], "stop"), ([OTHER, END], "stop"))
    assert received[-1].usage is not None
    assert received[-1].usage["cached_tokens"] == 3 <= len(prompt)


@pytest.mark.parametrize("fields", [{}, {"response_format": pb.ResponseFormat(regex="a+")}])
async def test_the_answer_behind_reasoning_has_the_sampling_of_the_request(
    reasoning_model: ServedModel, fields: dict[str, Any]
) -> None:
    close = reasoning_model.reasoning_end_id
    assert close is not None
    zeros = {"temperature": 0.0, "seed": 0, "top_k": 0, "min_p": 0.0, "presence_penalty": 0.0}
    request = ask(
        budget=50, sampling=pb.SamplingParams(**zeros, max_tokens=90), logprobs=pb.LogprobsOptions(top=0), **fields
    )
    answers: list[tuple[Sequence[int], str]] = [([WORD, close], "stop"), ([OTHER, END], "stop")]
    _, engine_requests, _ = await ran(reasoning_model, request, *([([WORD], "length")] if fields else []), *answers)
    line = reasoning_model.tokenizer.encode("\n\n") if fields else []
    sampled = {name: engine_requests[-1].params.get(name, "missing") for name in (*zeros, "logprobs")}
    assert sampled == {**zeros, "logprobs": 0}
    assert engine_requests[-1].params["max_tokens"] == 88 - len(line)


@pytest.mark.parametrize(("least", "left"), [(2, None), (5, 3)])
async def test_the_reasoning_counts_towards_min_tokens(
    reasoning_model: ServedModel, least: int, left: int | None
) -> None:
    close = reasoning_model.reasoning_end_id
    assert close is not None
    request = ask(budget=50, sampling=pb.SamplingParams(min_tokens=least))
    _, engine_requests, _ = await ran(reasoning_model, request, ([WORD, close], "stop"), ([OTHER, END], "stop"))
    assert engine_requests[1].params.get("min_tokens") == left


async def test_structured_output_is_tried_with_one_token(reasoning_model: ServedModel) -> None:
    close = reasoning_model.reasoning_end_id
    assert close is not None
    request = ask(
        budget=50,
        response_format=pb.ResponseFormat(regex="a+"),
        sampling=pb.SamplingParams(min_tokens=9, max_tokens=90),
    )
    _, engine_requests, _ = await ran(
        reasoning_model, request, ([WORD], "length"), ([WORD, close], "stop"), ([OTHER, END], "stop")
    )
    assert all(one.params.get("min_tokens", 0) <= one.params["max_tokens"] for one in engine_requests)


@pytest.mark.parametrize(
    ("fields", "parameter", "field"),
    [
        ({"response_format": pb.ResponseFormat(regex="((")}, "structured_output", "response_format.regex"),
        (
            {"response_format": pb.ResponseFormat(json_schema=pb.JsonSchemaFormat(schema_json='{"type":"x"}'))},
            "structured_output",
            "response_format.json_schema.schema_json",
        ),
        (
            {"response_format": pb.ResponseFormat(structural_tag_json="{}")},
            "structured_output",
            "response_format.structural_tag_json",
        ),
        ({"response_format": pb.ResponseFormat(grammar="x")}, "structured_output", "response_format.grammar"),
        (
            {
                "tools": [pb.Tool(name="f", parameters_json='{"type":"x"}')],
                "tool_choice": pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED),
            },
            "structured_output",
            "tool_choice",
        ),
        (
            {"response_format": pb.ResponseFormat(regex="a"), "sampling": pb.SamplingParams(min_tokens=2)},
            "min_tokens",
            "sampling.min_tokens",
        ),
    ],
)
async def test_a_rejection_by_the_engine_names_the_field_of_the_request(
    reasoning_model: ServedModel, fields: dict[str, Any], parameter: str, field: str
) -> None:
    request = ask(**fields)
    prompt = await render(request, reasoning_model)
    triton = ScriptedTriton()
    message = Message("structured_output_too_complex", field=parameter)
    triton.script = partial(reject, Failure(Reason.INVALID_ARGUMENT, message))
    requests = choice_requests(triton, reasoning_model, request, prompt)
    with pytest.raises(Failure) as rejection:
        _ = [output async for output in requests.outputs()]
    assert rejection.value.reason is Reason.INVALID_ARGUMENT
    assert rejection.value.message == Message("structured_output_too_complex", field=field)


def test_an_image_that_the_engine_rejects_is_named_by_its_field() -> None:
    image = pb.ContentPart(image=pb.Image(data=b"x"))
    request = pb.GenerateRequest(messages=[pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="a"), image])])
    failure = restated(invalid(Message("image_format_unknown", field="images[0]")), request)
    assert failure.message.field == "messages[0].content[1].image"


async def test_another_failure_of_the_engine_is_passed_on_unchanged(reasoning_model: ServedModel) -> None:
    request = ask(response_format=pb.ResponseFormat(regex="a+"))
    prompt = await render(request, reasoning_model)
    for reason, message in (
        (Reason.INVALID_ARGUMENT, Message("recording_not_found")),
        (Reason.ENGINE_FAILED, Message("engine_failed", reason="structured output")),
    ):
        triton = ScriptedTriton()
        triton.script = partial(reject, Failure(reason, message))
        requests = choice_requests(triton, reasoning_model, request, prompt)
        with pytest.raises(Failure) as rejection:
            _ = [output async for output in requests.outputs()]
        assert (rejection.value.reason, rejection.value.message) == (reason, message)
