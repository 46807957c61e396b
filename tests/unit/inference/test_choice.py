from __future__ import annotations

import itertools
import math

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.generation.choice import Choice
from services.inference.model.served_model import ServedModel
from services.inference.request.prompt import Prompt
from services.worker.triton_messages import EngineOutput
from tests.unit.inference.scripted import TEXTS, output

END = 2
PROMPT = Prompt("", [1], 100)

ONE_MODEL = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def ask(**sampling: object) -> pb.GenerateRequest:
    return pb.GenerateRequest(sampling=pb.SamplingParams(**sampling))  # type: ignore[arg-type]  # any fields


def events_of(model: ServedModel, request: pb.GenerateRequest, *outputs: EngineOutput) -> list[pb.Event]:
    choice = Choice(0, request, model, PROMPT)
    events: list[pb.Event] = []
    for one in outputs:
        texts = choice.detokenize(one)
        segments = choice.parse(texts, at_end=one.finish_reason is not None)
        events += choice.events(one, texts, segments)
        if choice.stopped:
            break
    return events


def content(events: list[pb.Event]) -> str:
    return "".join(event.delta.content for event in events)


def tokens(events: list[pb.Event]) -> int:
    return sum(event.delta.token_count for event in events)


def cut(token_ids: list[int], cuts: list[int], *, finish: str, logprobs: bool = False) -> list[EngineOutput]:
    edges = [0, *sorted(cuts), len(token_ids)]
    segments = [token_ids[a:b] for a, b in itertools.pairwise(edges)]
    return [
        output(
            segment,
            finish=finish if number == len(segments) else None,
            logprobs=[-float(i) for i in segment] if logprobs else None,
        )
        for number, segment in enumerate(segments, 1)
    ]


@ONE_MODEL
@given(text=TEXTS, stop=TEXTS.map(lambda t: t[:4]).filter(bool), data=st.data())
def test_the_events_do_not_depend_on_how_tokens_are_grouped_into_outputs(
    model: ServedModel, text: str, stop: str, data: st.DataObject
) -> None:
    token_ids = [*model.tokenizer.encode(model.tokenizer.guard(text)), END]
    cuts = data.draw(st.lists(st.integers(0, len(token_ids) - 1), max_size=5))
    for request in (ask(), ask(stop=[stop]), ask(stop=[stop], min_tokens=3)):
        whole = events_of(model, request, *cut(token_ids, [], finish="stop"))
        parts = events_of(model, request, *cut(token_ids, cuts, finish="stop"))
        assert content(parts) == content(whole)
        assert parts[-1] == whole[-1]
        assert len([e for e in parts if e.HasField("finish")]) == 1
    assert content(events_of(model, ask(), *cut(token_ids, cuts, finish="stop"))) == text
    assert tokens(events_of(model, ask(), *cut(token_ids, cuts, finish="stop"))) == len(token_ids)


@ONE_MODEL
@given(text=TEXTS, stop=TEXTS.map(lambda t: t[:4]).filter(bool), data=st.data())
def test_log_probabilities_spell_the_content_and_never_a_stop_string(
    model: ServedModel, text: str, stop: str, data: st.DataObject
) -> None:
    token_ids = [*model.tokenizer.encode(model.tokenizer.guard(text)), END]
    cuts = data.draw(st.lists(st.integers(0, len(token_ids) - 1), max_size=5))
    free = events_of(model, ask(), *cut(token_ids, cuts, finish="stop", logprobs=True))
    assert b"".join(entry.token_bytes for e in free for entry in e.delta.logprobs) == text.encode()
    stopped = events_of(model, ask(stop=[stop]), *cut(token_ids, cuts, finish="stop", logprobs=True))
    spelled = b"".join(entry.token_bytes for e in stopped for entry in e.delta.logprobs)
    # The last token may also hold the first byte of the stop string, which is no character yet.
    assert content(stopped).startswith(spelled.decode(errors="ignore"))
    assert all(event.delta.WhichOneof("fragment") for event in stopped if event.delta.logprobs)


def test_invalid_bytes_are_counted_as_damaged_characters(model: ServedModel) -> None:
    def damaged() -> float:
        return REGISTRY.get_sample_value("vilix_worker_damaged_characters_total", {"model": model.id}) or 0.0

    before = damaged()
    first, *_ = model.tokenizer.encode("👨")
    whole = model.tokenizer.encode("سلام")
    assert content(events_of(model, ask(), output([*whole, END], finish="stop"))) == "سلام"
    assert damaged() == before
    # A token is lost between the two: the first character's bytes end in the middle.
    assert content(events_of(model, ask(), output([first, *whole, END], finish="stop"))) == "\ufffdسلام"
    assert damaged() == before + 1


def test_the_tokens_of_half_a_character_are_counted_without_text(model: ServedModel) -> None:
    first, *rest = model.tokenizer.encode("👨")
    events = events_of(model, ask(), output([first]), output(rest, finish="length"))
    assert events[0].delta.WhichOneof("fragment") is None
    assert events[0].delta.token_count == 1
    assert (content(events), tokens(events)) == ("👨", 1 + len(rest))


def test_the_tokens_of_a_truncated_character_are_counted_without_text(model: ServedModel) -> None:
    first, *_ = model.tokenizer.encode("👨")
    events = events_of(model, ask(), output([first], finish="length"))
    assert (content(events), tokens(events)) == ("", 1)


def test_the_end_token_is_counted_without_text(model: ServedModel) -> None:
    hi = model.tokenizer.encode("Hi")
    events = events_of(model, ask(skip_special_tokens=False), output([*hi, END], finish="stop"))
    assert (content(events), tokens(events)) == ("Hi", len(hi) + 1)
    assert events[-1].finish.reason == pb.FINISH_REASON_STOP
    assert not events[-1].finish.HasField("stop_token_id")


def test_a_stop_token_of_the_request_is_reported(model: ServedModel) -> None:
    hi, bang = model.tokenizer.encode("Hi"), model.tokenizer.encode("!")
    events = events_of(model, ask(stop_token_ids=bang), output([*hi, *bang], finish="stop"))
    assert content(events) == "Hi"
    assert events[-1].finish.stop_token_id == bang[0]


def test_a_stop_string_ends_the_choice_and_is_reported(model: ServedModel) -> None:
    ids = model.tokenizer.encode("one two three four")
    events = events_of(model, ask(stop=["three"]), *(output([i]) for i in ids))
    assert content(events) == "one two "
    assert (events[-1].finish.reason, events[-1].finish.stop_string) == (pb.FINISH_REASON_STOP, "three")


def test_stop_strings_do_not_count_before_min_tokens(model: ServedModel) -> None:
    ids = model.tokenizer.encode("one two one two")
    events = events_of(model, ask(stop=["two"], min_tokens=2), *(output([i]) for i in ids))
    assert content(events) == "one two one "


def test_log_probabilities_are_exact_bytes(model: ServedModel) -> None:
    first, *rest = model.tokenizer.encode("👨")
    top = [[(first, -0.5), (END, -2.0)], *([[]] * len(rest))]
    events = events_of(
        model, ask(), output([first, *rest], finish="length", logprobs=[-0.5] * (1 + len(rest)), top=top)
    )
    entries = list(events[0].delta.logprobs)
    assert b"".join(entry.token_bytes for entry in entries) == "👨".encode()
    assert entries[0].token == "\ufffd"
    assert [(t.token_id, t.token_bytes) for t in entries[0].top] == [
        (first, entries[0].token_bytes),
        (END, b"<|im_end|>"),
    ]
    assert math.isclose(entries[0].top[1].logprob, -2.0)
