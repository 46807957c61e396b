"""Reasoning and tool calls, from tokens to events."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.generation.choice import Choice
from services.inference.model.catalog import CapabilitiesSpec, ParsersSpec
from services.inference.model.served_model import ServedModel
from services.inference.model.tokenizer import ModelTokenizer
from services.inference.parsing.tool_calls import MOST_HELD
from services.inference.request.prompt import Prompt, render
from services.inference.request.request_checks import RequestLimits, check, ignored_parameters
from services.runtime.failure import Failure
from services.runtime.messages.message import Message
from tests.unit.inference.scripted import output

END = 2
WEATHER = pb.Tool(name="weather", description="هوا", parameters_json='{"type": "object"}')
REASONING = "<think>\nاول فکر\n</think>\n\n"
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "تهران"}}\n</tool_call>'
WEATHER_CALL = ("weather", '{"city": "تهران"}')
CALLED = pb.FINISH_REASON_TOOL_CALLS
BROKEN = CALL.replace('"}}', '"}')
LONG_CALL = CALL.replace("تهران", "تهران " * MOST_HELD)
LIMITS = RequestLimits()
TOGETHER = pytest.mark.parametrize("together", [False, True])


@pytest.fixture
def reasoning_model(model: ServedModel) -> ServedModel:
    spec = model.spec.model_copy(
        update={
            "parsers": ParsersSpec(reasoning="think", tool_calls="hermes"),
            "capabilities": CapabilitiesSpec(reasoning_optional=True),
        }
    )
    return replace(model, spec=spec)


def ask(**fields: object) -> pb.GenerateRequest:
    messages = [pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="سلام")])]
    return pb.GenerateRequest(messages=messages, **fields)  # type: ignore[arg-type]  # any fields


def events_of(
    model: ServedModel,
    request: pb.GenerateRequest,
    text: str,
    *,
    finish: str = "stop",
    opened: bool = False,
    together: bool = False,
) -> tuple[list[pb.Event], Choice]:
    """Return the events of a generation with a token per output, or all tokens `together`."""
    choice = Choice(0, request, model, Prompt("", [1], 100, opens_reasoning=opened))
    token_ids = [*model.tokenizer.encode(text), *([END] if finish == "stop" else [])]
    events: list[pb.Event] = []
    outputs = [token_ids] if together else [[token_id] for token_id in token_ids]
    for place, one_ids in enumerate(outputs):
        last = place == len(outputs) - 1
        one = output(one_ids, finish=finish if last else None, logprobs=[-0.5] * len(one_ids))
        texts = choice.detokenize(one)
        events += choice.events(one, texts, choice.parse(texts, at_end=one.finish_reason is not None))
        if choice.stopped:
            break
    return events, choice


def answered(
    model: ServedModel, request: pb.GenerateRequest, text: str, **how: Any
) -> tuple[str, str, list[tuple[str, str]], pb.FinishReason.ValueType, int]:
    """Return reasoning, answer, calls, the finish reason and the number of reasoning tokens."""
    events, choice = events_of(model, request, text, **how)
    deltas = [event.delta for event in events if event.HasField("delta")]
    fragments = [delta.tool_call for delta in deltas if delta.HasField("tool_call")]
    names = [fragment for fragment in fragments if fragment.name]
    assert all(fragment.id.startswith("call_") for fragment in names)
    assert len({fragment.id for fragment in names}) == len(names)
    calls = [(n.name, "".join(f.arguments_json for f in fragments if f.index == n.index)) for n in names]
    return (
        "".join(delta.reasoning_content for delta in deltas),
        "".join(delta.content for delta in deltas),
        calls,
        events[-1].finish.reason,
        choice.reasoning_tokens,
    )


def test_reasoning_and_answer_are_split(reasoning_model: ServedModel) -> None:
    reasoning, answer, calls, finish, reasoning_tokens = answered(reasoning_model, ask(), REASONING + "سلام!")
    assert (reasoning, answer, calls, finish) == ("اول فکر", "سلام!", [], pb.FINISH_REASON_STOP)
    assert 0 < reasoning_tokens <= len(reasoning_model.tokenizer.encode(REASONING))


def test_reasoning_that_the_prompt_opened_is_split_off(reasoning_model: ServedModel) -> None:
    assert answered(reasoning_model, ask(), "فکر\n</think>\n\nپاسخ", opened=True)[:2] == ("فکر", "پاسخ")


def test_truncated_reasoning_is_not_part_of_the_answer(reasoning_model: ServedModel) -> None:
    reasoning, answer, _, finish, _ = answered(reasoning_model, ask(), "<think>\nنیمه", finish="length")
    assert (reasoning, answer, finish) == ("نیمه", "", pb.FINISH_REASON_LENGTH)


def test_excluded_reasoning_still_counts(reasoning_model: ServedModel) -> None:
    request = ask(reasoning=pb.ReasoningOptions(exclude=True))
    reasoning, answer, _, _, reasoning_tokens = answered(reasoning_model, request, REASONING + "سلام!")
    assert (reasoning, answer) == ("", "سلام!")
    assert reasoning_tokens > 0


def test_reasoning_can_stay_in_the_content(reasoning_model: ServedModel) -> None:
    reasoning, answer, *_ = answered(
        reasoning_model, ask(reasoning=pb.ReasoningOptions(in_content=True)), REASONING + "پاسخ"
    )
    assert (reasoning, answer) == ("", REASONING + "پاسخ")


@TOGETHER
@pytest.mark.parametrize(
    ("stop", "text", "opened", "reasoning", "answer", "ended_by"),
    [
        (["\n\n"], f"{REASONING}سلام\n\nدوم", False, "اول فکر", "سلام", "\n\n"),
        (["\n\n", "</think>"], "یک\n\nدو\n</think>\n\nسلام", True, "یک\n\nدو", "سلام", ""),
        (["\n"], "فکر\n</think>\n\nسلام\nدوم", True, "فکر", "سلام", "\n"),
        (["سلام"], f"<think>\nسلام\n</think>\n\n{'a' * 9}سلام", False, "سلام", "a" * 9, "سلام"),
        (["<think>", "فکر"], f"{REASONING}پاسخ", False, "اول فکر", "پاسخ", ""),
        (["<think>"], "پاسخ <think>", False, "", "پاسخ ", "<think>"),
    ],
)
def test_stop_strings_apply_to_the_answer_and_not_to_the_reasoning(
    reasoning_model: ServedModel,
    *,
    stop: list[str],
    text: str,
    opened: bool,
    reasoning: str,
    answer: str,
    ended_by: str,
    together: bool,
) -> None:
    request = ask(sampling=pb.SamplingParams(stop=stop))
    assert answered(reasoning_model, request, text, opened=opened, together=together)[:2] == (reasoning, answer)
    events, _ = events_of(reasoning_model, request, text, opened=opened, together=together)
    assert events[-1].finish == pb.Finish(reason=pb.FINISH_REASON_STOP, stop_string=ended_by)


def spelled(events: list[pb.Event]) -> bytes:
    """Return the joined bytes of the tokens whose log probabilities are reported."""
    return b"".join(entry.token_bytes for event in events for entry in event.delta.logprobs)


@TOGETHER
@pytest.mark.parametrize("exclude", [False, True])
def test_log_probabilities_of_reasoning_are_not_reported(
    reasoning_model: ServedModel, *, exclude: bool, together: bool
) -> None:
    request = ask(reasoning=pb.ReasoningOptions(exclude=exclude), tools=[WEATHER])
    events, _ = events_of(reasoning_model, request, f"{REASONING}سلام{CALL}", together=together)
    assert spelled(events).decode() == "سلام"
    shown = [event.delta for event in events if event.delta.logprobs]
    assert {delta.WhichOneof("fragment") for delta in shown} == {"content"}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(
        st.sampled_from(
            [
                REASONING,
                "<think>",
                "</think>",
                CALL,
                BROKEN,
                LONG_CALL,
                "<tool_call>",
                "سلام",
                "👨‍👩‍👧",
                "\n",
                " ",
                "ایست",
                "ای",
            ]
        ),
        min_size=1,
        max_size=7,
    ),
    exclude=st.booleans(),
    opened=st.booleans(),
    together=st.booleans(),
    min_tokens=st.sampled_from([0, 0, 40]),
)
def test_log_probabilities_spell_exactly_the_answer(
    reasoning_model: ServedModel,
    bytewise: ModelTokenizer,
    *,
    parts: list[str],
    exclude: bool,
    opened: bool,
    together: bool,
    min_tokens: int,
) -> None:
    request = ask(
        reasoning=pb.ReasoningOptions(exclude=exclude),
        tools=[WEATHER],
        sampling=pb.SamplingParams(stop=["ایست"], min_tokens=min_tokens),
    )
    letters = replace(reasoning_model, tokenizer=bytewise)
    how: Any = {"finish": "length", "opened": opened}
    events, _ = events_of(letters, request, "".join(parts), together=together, **how)
    assert spelled(events).decode() == "".join(event.delta.content for event in events)
    assert (
        answered(letters, request, "".join(parts), together=not together, **how)[:4]
        == answered(letters, request, "".join(parts), together=together, **how)[:4]
    )


def test_a_token_without_text_has_no_log_probability(reasoning_model: ServedModel) -> None:
    events, _ = events_of(reasoning_model, ask(), "سلام<|im_start|>!")
    assert spelled(events).decode() == "سلام!"


def test_a_call_behind_reasoning_is_parsed(reasoning_model: ServedModel) -> None:
    reasoning, answer, calls, finish, _ = answered(
        reasoning_model, ask(tools=[WEATHER]), f"{REASONING}می‌پرسم\n{CALL}\n{CALL}"
    )
    assert (reasoning, answer, finish) == ("اول فکر", "می‌پرسم", CALLED)
    assert [(name, json.loads(arguments)) for name, arguments in calls] == [("weather", {"city": "تهران"})] * 2


def test_without_parallel_calls_the_first_call_ends_the_generation(reasoning_model: ServedModel) -> None:
    request = ask(tools=[WEATHER], parallel_tool_calls=False)
    _, answer, calls, finish, _ = answered(reasoning_model, request, f"{CALL}\n{CALL} and more")
    assert (answer, len(calls), finish) == ("", 1, CALLED)


@TOGETHER
@pytest.mark.parametrize("rest", ["", " and", " and more"])
def test_the_only_allowed_call_decides_the_finish_reason(
    reasoning_model: ServedModel, *, rest: str, together: bool
) -> None:
    request = ask(tools=[WEATHER], parallel_tool_calls=False, sampling=pb.SamplingParams(stop=["more"]))
    how: Any = {"finish": "length", "together": together}
    assert answered(reasoning_model, request, f"{CALL}\n{CALL}{rest}", **how)[1:4] == ("", [WEATHER_CALL], CALLED)
    events, _ = events_of(reasoning_model, request, f"{CALL}\n{CALL}{rest}", **how)
    assert events[-1].finish == pb.Finish(reason=CALLED)


@TOGETHER
@pytest.mark.parametrize(
    ("text", "finish", "answer", "calls", "reason"),
    [
        (f"{CALL}\nObservation: 3", "stop", "", 1, CALLED),
        (f"{CALL}\nObservation: 3", "length", "", 1, CALLED),
        (f"سلام\nObservation: {CALL}", "stop", "سلام", 0, pb.FINISH_REASON_STOP),
        (f"{CALL}\n{BROKEN}", "stop", BROKEN, 1, CALLED),
        (f"{BROKEN}\n{CALL}", "stop", BROKEN, 1, CALLED),
        (BROKEN, "stop", BROKEN, 0, pb.FINISH_REASON_STOP),
        (CALL[:60], "stop", CALL[:60], 0, pb.FINISH_REASON_STOP),
        (f"{CALL}\n{CALL[:60]}", "stop", CALL[:60], 1, CALLED),
        (f"{CALL}\n{CALL[:60]}", "length", CALL[:60], 1, pb.FINISH_REASON_LENGTH),
        (CALL, "length", "", 1, pb.FINISH_REASON_LENGTH),
        (f"{LONG_CALL[:-20]}\n{CALL}", "stop", None, 2, pb.FINISH_REASON_STOP),
        (LONG_CALL[:-20], "length", "", 1, pb.FINISH_REASON_LENGTH),
        (f"{CALL}\n{LONG_CALL}", "stop", "", 2, CALLED),
    ],
)
def test_the_finish_reason_is_tool_calls_only_if_all_calls_are_complete(
    reasoning_model: ServedModel,
    *,
    text: str,
    finish: str,
    answer: str | None,
    calls: int,
    reason: pb.FinishReason.ValueType,
    together: bool,
) -> None:
    request = ask(tools=[WEATHER], sampling=pb.SamplingParams(stop=["\nObservation"]))
    found = answered(reasoning_model, request, text, finish=finish, together=together)
    assert (len(found[2]), found[3]) == (calls, reason)
    assert answer is None or found[1] == answer
    if reason == CALLED:
        assert all(isinstance(json.loads(arguments), dict) for _, arguments in found[2])


@pytest.mark.parametrize("mode", [pb.TOOL_CHOICE_MODE_NONE, pb.TOOL_CHOICE_MODE_UNSPECIFIED])
def test_a_call_that_is_not_allowed_is_text(reasoning_model: ServedModel, mode: pb.ToolChoiceMode.ValueType) -> None:
    tools = [WEATHER] if mode == pb.TOOL_CHOICE_MODE_NONE else []
    request = ask(tools=tools, tool_choice=pb.ToolChoice(mode=mode))
    assert answered(reasoning_model, request, CALL)[1:4] == (CALL, [], pb.FINISH_REASON_STOP)


def test_a_truncated_call_is_text_and_ends_with_length(reasoning_model: ServedModel) -> None:
    _, answer, calls, finish, _ = answered(reasoning_model, ask(tools=[WEATHER]), CALL[:60], finish="length")
    assert (answer, calls, finish) == (CALL[:60], [], pb.FINISH_REASON_LENGTH)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tools": [pb.Tool(name="no good")]}, "tools[0].name"),
        ({"tools": [pb.Tool(name="f", parameters_json="{")]}, "tools[0].parameters_json"),
        ({"tools": [pb.Tool(name="f", parameters_json="[]")]}, "tools[0].parameters_json"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].name"),
        ({"tools": [pb.Tool(name=f"f{i}") for i in range(129)]}, "tools"),
        ({"tools": [WEATHER], "tool_choice": pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_REQUIRED)}, "tool_choice"),
        ({"reasoning": pb.ReasoningOptions(budget_tokens=5)}, "reasoning.budget_tokens"),
    ],
)
def test_an_unsupported_option_is_rejected_with_its_field(
    reasoning_model: ServedModel, fields: dict[str, object], field: str
) -> None:
    with pytest.raises(Failure) as rejected:
        check(ask(**fields), reasoning_model, LIMITS)
    assert rejected.value.message.field == field


def test_a_degree_of_effort_is_reported_as_ignored(reasoning_model: ServedModel) -> None:
    request = ask(reasoning=pb.ReasoningOptions(effort=pb.REASONING_EFFORT_HIGH))
    check(request, reasoning_model, LIMITS)
    assert ignored_parameters(request, reasoning_model) == ["reasoning.effort"]


def test_a_model_that_always_reasons_rejects_disabling_it(reasoning_model: ServedModel) -> None:
    always = replace(reasoning_model, spec=reasoning_model.spec.model_copy(update={"capabilities": CapabilitiesSpec()}))
    with pytest.raises(Failure) as caught:
        check(ask(reasoning=pb.ReasoningOptions(enabled=False)), always, LIMITS)
    assert caught.value.message == Message("reasoning_not_optional", field="reasoning.enabled", model="smollm2-135m")


async def test_results_of_calls_reach_the_template(reasoning_model: ServedModel) -> None:
    request = ask(tools=[WEATHER])
    request.messages.add(role=pb.ROLE_ASSISTANT, tool_calls=[pb.ToolCall(id="c", name="weather", arguments_json="{}")])
    request.messages.add(role=pb.ROLE_TOOL, tool_call_id="c", content=[pb.ContentPart(text="آفتابی")])
    check(request, reasoning_model, LIMITS)
    assert "آفتابی" in (await render(request, reasoning_model)).text
