"""Thought and answer as two requests to the engine, token by token."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.i18n.language import translated
from services.inference.generation.choice import Choice
from services.inference.generation.choice_requests import ChoiceRequests
from services.inference.model.served_model import ServedModel
from services.inference.request.prompt import render
from services.runtime.failure import Failure, Reason
from services.worker.triton_client import EngineOutput
from tests.unit.inference.scripted import Asked, ScriptedTriton, outputs

END = 2
WORD, OTHER = 1000, 2000


def ask(*, budget: int | None = None, **fields: Any) -> pb.GenerateRequest:
    message = pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="Hello")])
    request = pb.GenerateRequest(messages=[message], **fields)
    if budget is not None:
        request.reasoning.budget_tokens = budget
    return request


async def ran(
    model: ServedModel, request: pb.GenerateRequest, *answers: tuple[Sequence[int], str]
) -> tuple[list[EngineOutput], list[Asked], list[int]]:
    """What came, what the engine was asked, and the prompt. The engine gives `answers` in turn."""
    prompt = await render(request, model)
    triton = ScriptedTriton()
    left = list(answers)

    def script(_: Asked) -> Any:
        ids, finish = left.pop(0)
        return outputs(*([token_id] for token_id in ids), finish=finish)

    triton.script = script
    requests = ChoiceRequests(triton, model, request, prompt, choice=0, request_id="r", on_request=lambda: None)  # type: ignore[arg-type]  # a stand-in
    came = [output async for output in requests.outputs()]
    assert not left
    assert [output.finish_reason is not None for output in came] == [False] * (len(came) - 1) + [True]
    return came, triton.asked, prompt.token_ids


def ids_of(came: list[EngineOutput]) -> list[int]:
    return [token_id for output in came for token_id in output.token_ids]


async def test_without_a_budget_or_a_form_there_is_one_request(thinker: ServedModel) -> None:
    came, asked, prompt = await ran(thinker, ask(), ([WORD, END], "stop"))
    assert ids_of(came) == [WORD, END]
    assert [one.prompt_token_ids for one in asked] == [prompt]
    assert "stop_token_ids" not in asked[0].params


async def test_a_used_up_budget_closes_the_reasoning(thinker: ServedModel) -> None:
    encode = thinker.tokenizer.encode
    closing = encode("\n</think>\n\n")
    budget = 2 + len(encode("\n</think>"))
    came, asked, prompt = await ran(thinker, ask(budget=budget), ([WORD, WORD], "length"), ([OTHER, END], "stop"))
    assert ids_of(came) == [WORD, WORD, *closing, OTHER, END]
    assert prompt[-len(encode("<think>\n")) :] == encode("<think>\n")
    assert [one.prompt_token_ids for one in asked] == [prompt, [*prompt, WORD, WORD, *closing]]
    assert asked[0].params["max_tokens"] == 2
    assert asked[0].params["max_tokens"] + len(closing) + asked[1].params["max_tokens"] == 256 - len(prompt)
    assert asked[1].params["priority"] == 1
    assert came[-1].usage == {"cached_tokens": 3, "timings": {**came[-1].usage["timings"]}}  # type: ignore[index]  # it is there
    assert came[-1].usage["timings"]["decode_s"] == 4.0  # type: ignore[index]  # as above


async def test_a_reasoning_within_its_budget_is_left_alone(thinker: ServedModel) -> None:
    close = thinker.reasoning_end_id
    assert close is not None
    came, asked, prompt = await ran(thinker, ask(budget=50), ([WORD, close], "stop"), ([OTHER, END], "stop"))
    assert ids_of(came) == [WORD, close, OTHER, END]
    assert asked[0].params["stop_token_ids"] == [close]
    assert asked[1].prompt_token_ids == [*prompt, WORD, close]
    assert "stop_token_ids" not in asked[1].params


async def test_a_reasoning_that_takes_all_tokens_ends_the_answer(thinker: ServedModel) -> None:
    request = ask(budget=50, sampling=pb.SamplingParams(max_tokens=2))
    came, asked, _ = await ran(thinker, request, ([WORD, WORD], "length"))
    assert (ids_of(came), came[-1].finish_reason, len(asked)) == ([WORD, WORD], "length", 1)


async def test_what_closes_a_reasoning_counts_as_tokens(thinker: ServedModel) -> None:
    closing = thinker.tokenizer.encode("\n</think>\n\n")
    budget = 2 + len(thinker.tokenizer.encode("\n</think>"))
    request = ask(budget=budget, sampling=pb.SamplingParams(max_tokens=2 + len(closing)))
    came, asked, _ = await ran(thinker, request, ([WORD, WORD], "length"))
    assert (ids_of(came), came[-1].finish_reason, len(asked)) == ([WORD, WORD, *closing], "length", 1)


async def test_a_stop_token_of_the_request_ends_it_in_the_reasoning_too(thinker: ServedModel) -> None:
    request = ask(budget=50, sampling=pb.SamplingParams(stop_token_ids=[WORD]))
    came, asked, _ = await ran(thinker, request, ([OTHER, WORD], "stop"))
    assert (came[-1].finish_reason, len(asked)) == ("stop", 1)


@pytest.mark.parametrize("wanted", [None, 1])
async def test_a_token_that_ends_an_answer_is_no_part_of_a_reasoning_though_it_counts(
    thinker: ServedModel, wanted: int | None
) -> None:
    logprobs = None if wanted is None else pb.LogprobsOptions(top=wanted)
    sampling = pb.SamplingParams(max_tokens=20, skip_special_tokens=False)
    request = ask(budget=15, sampling=sampling, logprobs=logprobs)
    closing = thinker.tokenizer.encode("\n</think>\n\n")
    came, asked, prompt = await ran(thinker, request, ([WORD, END], "stop"), ([OTHER, END], "stop"))
    assert ids_of(came) == [WORD, *closing, OTHER, END]
    assert asked[1].prompt_token_ids == [*prompt, WORD, *closing]
    assert asked[1].params["max_tokens"] == 20 - 2 - len(closing)
    choice = Choice(0, request, thinker, await render(request, thinker))
    counted, reasoning = 0, ""
    for output in came:
        texts = choice.detokenize(output)
        for event in choice.events(output, texts, choice.parse(texts, at_end=output.finish_reason is not None)):
            counted += event.delta.token_count
            reasoning += event.delta.reasoning_content
    assert counted == 2 + len(closing) + 2
    assert reasoning.strip() == thinker.tokenizer.bytes_of(WORD).decode().strip()


async def test_no_stop_token_ends_a_reasoning_before_the_least_number_of_tokens(thinker: ServedModel) -> None:
    close = thinker.reasoning_end_id
    assert close is not None
    request = ask(budget=50, sampling=pb.SamplingParams(stop_token_ids=[WORD], min_tokens=3))
    parts: list[tuple[Sequence[int], str]] = [([OTHER, WORD, OTHER], "length"), ([OTHER, WORD], "stop")]
    came, asked, prompt = await ran(thinker, request, *parts)
    assert (ids_of(came), came[-1].finish_reason) == ([OTHER, WORD, OTHER, OTHER, WORD], "stop")
    assert [(one.params["stop_token_ids"], one.params.get("min_tokens")) for one in asked] == [
        ([close], None),
        ([WORD, close], None),
    ]
    assert asked[1].prompt_token_ids == [*prompt, OTHER, WORD, OTHER]
    assert (asked[0].params["max_tokens"], asked[1].params["priority"]) == (3, 1)
    assert asked[0].params["max_tokens"] + asked[1].params["max_tokens"] == 50 - len(
        thinker.tokenizer.encode("\n</think>")
    )


async def test_a_reasoning_shorter_than_the_least_number_of_tokens_is_followed_by_its_answer(
    thinker: ServedModel,
) -> None:
    close = thinker.reasoning_end_id
    assert close is not None
    request = ask(budget=50, sampling=pb.SamplingParams(stop_token_ids=[WORD], min_tokens=9))
    came, asked, _ = await ran(thinker, request, ([WORD, WORD, close], "stop"), ([OTHER, WORD], "stop"))
    assert ids_of(came) == [WORD, WORD, close, OTHER, WORD]
    assert (asked[1].params["min_tokens"], asked[1].params["stop_token_ids"]) == (6, [WORD])


async def test_an_end_in_the_reasoning_that_the_request_names_ends_the_answer(thinker: ServedModel) -> None:
    request = ask(budget=50, sampling=pb.SamplingParams(stop_token_ids=[END]))
    came, asked, _ = await ran(thinker, request, ([OTHER, END], "stop"))
    assert (ids_of(came), came[-1].finish_reason, len(asked)) == ([OTHER, END], "stop", 1)


async def test_a_budget_of_nothing_turns_thinking_off(thinker: ServedModel) -> None:
    came, asked, prompt = await ran(thinker, ask(budget=0), ([WORD, END], "stop"))
    assert ids_of(came) == [WORD, END]
    assert thinker.reasoning_end_id in prompt
    assert len(asked) == 1


async def test_a_form_holds_for_the_answer_alone(thinker: ServedModel) -> None:
    close = thinker.reasoning_end_id
    assert close is not None
    request = ask(
        response_format=pb.ResponseFormat(regex="a+"),
        reasoning=pb.ReasoningOptions(enabled=True),
        logprobs=pb.LogprobsOptions(top=2),
    )
    came, asked, prompt = await ran(
        thinker, request, ([WORD], "length"), ([WORD, close], "stop"), ([OTHER, END], "stop")
    )
    line = thinker.tokenizer.encode("\n\n")
    assert ids_of(came) == [WORD, close, *line, OTHER, END]
    # The first is there for the engine to refuse a form that is none.
    assert [one.params.get("structured_output") for one in asked] == [{"regex": "a+"}, None, {"regex": "a+"}]
    assert asked[0].params["max_tokens"] == 1
    assert asked[2].prompt_token_ids == [*prompt, WORD, close, *line]
    inserted = next(output for output in came if output.token_ids == line)
    assert inserted.logprobs == [0.0] * len(line)
    assert inserted.top_token_ids == [[token_id] for token_id in line]


async def test_what_the_first_request_found_in_the_cache_is_what_counts(thinker: ServedModel) -> None:
    came, _, prompt = await ran(thinker, ask(budget=9), ([WORD], "stop"), ([OTHER, END], "stop"))
    assert came[-1].usage is not None
    assert came[-1].usage["cached_tokens"] == 3 <= len(prompt)


@pytest.mark.parametrize("fields", [{}, {"response_format": pb.ResponseFormat(regex="a+")}])
async def test_the_answer_behind_a_reasoning_is_sampled_as_the_request_says(
    thinker: ServedModel, fields: dict[str, Any]
) -> None:
    close = thinker.reasoning_end_id
    assert close is not None
    zeros = {"temperature": 0.0, "seed": 0, "top_k": 0, "min_p": 0.0, "presence_penalty": 0.0}
    request = ask(
        budget=50, sampling=pb.SamplingParams(**zeros, max_tokens=90), logprobs=pb.LogprobsOptions(top=0), **fields
    )
    answers: list[tuple[Sequence[int], str]] = [([WORD, close], "stop"), ([OTHER, END], "stop")]
    _, asked, _ = await ran(thinker, request, *([([WORD], "length")] if fields else []), *answers)
    line = thinker.tokenizer.encode("\n\n") if fields else []
    sampled = {name: asked[-1].params.get(name, "missing") for name in (*zeros, "logprobs")}
    assert sampled == {**zeros, "logprobs": 0}
    assert asked[-1].params["max_tokens"] == 88 - len(line)


@pytest.mark.parametrize(("least", "left"), [(2, None), (5, 3)])
async def test_the_reasoning_counts_towards_the_least_number_of_tokens(
    thinker: ServedModel, least: int, left: int | None
) -> None:
    close = thinker.reasoning_end_id
    assert close is not None
    request = ask(budget=50, sampling=pb.SamplingParams(min_tokens=least))
    _, asked, _ = await ran(thinker, request, ([WORD, close], "stop"), ([OTHER, END], "stop"))
    assert asked[1].params.get("min_tokens") == left


async def test_a_form_is_tried_with_no_more_tokens_than_one(thinker: ServedModel) -> None:
    close = thinker.reasoning_end_id
    assert close is not None
    request = ask(
        budget=50,
        response_format=pb.ResponseFormat(regex="a+"),
        sampling=pb.SamplingParams(min_tokens=9, max_tokens=90),
    )
    _, asked, _ = await ran(thinker, request, ([WORD], "length"), ([WORD, close], "stop"), ([OTHER, END], "stop"))
    assert all(one.params.get("min_tokens", 0) <= one.params["max_tokens"] for one in asked)


BAD = "is not valid, or has a part that the engine does not know: a guide"


@pytest.mark.parametrize(
    ("fields", "said", "field", "message"),
    [
        (
            {"response_format": pb.ResponseFormat(regex="((")},
            f"guide.regex {BAD}",
            "response_format.regex",
            "{} " + BAD,
        ),
        (
            {"response_format": pb.ResponseFormat(json_schema=pb.JsonSchemaFormat(schema_json='{"type":"x"}'))},
            f"guide.json {BAD}",
            "response_format.json_schema.schema_json",
            "{} " + BAD,
        ),
        (
            {"response_format": pb.ResponseFormat(structural_tag_json="{}")},
            "guide.structural_tag is not supported by the engine e",
            "response_format.structural_tag_json",
            "{} is not supported by the engine e",
        ),
        (
            {"response_format": pb.ResponseFormat(grammar="x")},
            "the guide turned out to be too complex to be followed; make it simpler",
            "response_format.grammar",
            "{} turned out to be too complex to be followed; make it simpler",
        ),
        (
            {
                "tools": [pb.Tool(name="f", parameters_json='{"type":"x"}')],
                "tool_choice": pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED),
            },
            f"guide.json {BAD}",
            "tool_choice",
            "the schema of a call that {} asks for " + BAD,
        ),
        (
            {"response_format": pb.ResponseFormat(regex="a"), "sampling": pb.SamplingParams(min_tokens=2)},
            "min_tokens and guide exclude one another: a guide says itself when a text is complete",
            "sampling.min_tokens",
            "min_tokens and a form exclude one another: the form says itself when a text is complete",
        ),
    ],
)
async def test_what_an_engine_says_against_a_form_names_the_requests_field(
    thinker: ServedModel, fields: dict[str, Any], said: str, field: str, message: str
) -> None:
    request = ask(**fields)
    prompt = await render(request, thinker)
    triton = ScriptedTriton()
    reason = Reason.UNSUPPORTED_PARAMETER if "supported" in said else Reason.INVALID_ARGUMENT

    async def reject(_: Asked) -> AsyncGenerator[EngineOutput, None]:
        raise Failure(reason, said)
        yield

    triton.script = reject
    requests = ChoiceRequests(triton, thinker, request, prompt, choice=0, request_id="r", on_request=lambda: None)  # type: ignore[arg-type]  # a stand-in
    with pytest.raises(Failure) as rejection:
        _ = [output async for output in requests.outputs()]
    assert rejection.value.reason is reason
    assert rejection.value.message.field == field
    assert str(rejection.value) == message.format(field)
    assert translated(str(rejection.value), "fa")


async def test_an_engine_that_speaks_of_something_else_is_quoted(thinker: ServedModel) -> None:
    request = ask(response_format=pb.ResponseFormat(regex="a+"))
    prompt = await render(request, thinker)
    for reason, said in ((Reason.INVALID_ARGUMENT, "no recording"), (Reason.ENGINE_FAILED, "the guide broke")):
        triton = ScriptedTriton()

        async def reject(_: Asked, failure: Failure = Failure(reason, said)) -> AsyncGenerator[EngineOutput, None]:  # noqa: B008  # bound now
            raise failure
            yield

        triton.script = reject
        requests = ChoiceRequests(triton, thinker, request, prompt, choice=0, request_id="r", on_request=lambda: None)  # type: ignore[arg-type]  # a stand-in
        with pytest.raises(Failure) as rejection:
            _ = [output async for output in requests.outputs()]
        assert (str(rejection.value), rejection.value.message.field) == (said, None)
