"""Messages to callers: the catalogues agree with each other and with the code, and texts are rendered correctly.

Ids are collected from the code as the literal arguments of the calls in MAKERS, with the parameters that the calls
name.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import pytest
from google.protobuf.descriptor import Descriptor
from vilix.embeddings.v1 import embeddings_service_pb2
from vilix.inference.v1 import inference_service_pb2

from services.gateway import openapi
from services.runtime.messages.catalogue import COUNT, ENGLISH, LANGUAGES, PERSIAN, Entry, catalogue, render
from services.runtime.messages.message import FIELD, Message
from tests.support.repository import ROOT

MAKERS = {"Message": 0, "RequestError": 1, "super().__init__": 1, "GbnfError": 0, "UnreadableImageError": 0}
"""Calls that make a message, and the position of its id among their arguments."""
WITHOUT_FIELD = ("GbnfError", "UnreadableImageError")
"""Calls to whose message another module adds the field."""
PLAIN_WORDS = {
    *("call", "calls", "chat", "content", "dimensions", "engine", "id", "ids", "image", "messages", "model", "models"),
    *("name", "outputs", "prompt", "reason", "reasoning", "request", "stop", "text", "texts", "token", "tools"),
    *("version", "worker"),
}
"""Words of English texts that are names of fields, too."""
ID = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


@dataclass(frozen=True)
class Use:
    """A call that makes a message."""

    at: str
    ids: tuple[str, ...]
    """Several for a conditional expression."""
    parameters: frozenset[str]
    is_complete: bool
    """Whether the call names all parameters; otherwise it passes others as a dictionary."""


@functools.cache
def uses() -> tuple[Use, ...]:
    paths = sorted(path for path in (ROOT / "services").glob("**/*.py") if "node_modules" not in path.parts)
    return tuple(use for path in paths for use in uses_in(path))


def uses_in(path: Path) -> Iterator[Use]:
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Call(func=function, args=args, keywords=keywords) if len(args) > MAKERS.get(
                maker := ast.unparse(function), len(args)
            ):
                ids = literals(args[MAKERS[maker]])
                names = frozenset(keyword.arg for keyword in keywords if keyword.arg is not None)
                names |= {FIELD} if maker in WITHOUT_FIELD else set()
                at = f"{path.relative_to(ROOT)}:{node.lineno}"
                # Most classes have a base that is not an error with a message.
                if ids or maker != "super().__init__":
                    yield Use(at, ids, names, is_complete=all(keyword.arg is not None for keyword in keywords))


def literals(node: ast.expr) -> tuple[str, ...]:
    match node:
        case ast.Constant(value=str(text)):
            return (text,)
        case ast.IfExp(body=body, orelse=orelse):
            return literals(body) + literals(orelse)
    return ()


def test_every_id_has_a_text_in_every_language() -> None:
    for language in LANGUAGES:
        assert catalogue(language).keys() == catalogue(ENGLISH).keys()


def test_ids_are_short_snake_case() -> None:
    assert all(ID.fullmatch(message_id) and len(message_id) <= 48 for message_id in catalogue(ENGLISH))


def test_all_languages_insert_the_same_parameters() -> None:
    for message_id, english in catalogue(ENGLISH).items():
        for language in LANGUAGES:
            entry = catalogue(language)[message_id]
            assert placeholders(entry.other) == placeholders(english.other), (language, message_id)
            assert placeholders(entry.one) - {COUNT} == placeholders(entry.other) - {COUNT}, (language, message_id)


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"\{(\w+)\}", text))


def test_texts_name_no_field_because_apis_have_different_names_for_it() -> None:
    assert words_of(ENGLISH) & fields_of_protos() <= PLAIN_WORDS
    # Persian texts mark Latin words, so a field's name cannot be a plain word there. `vilix` is also our command.
    # `prompt` and `tokens` are in the words of Anthropic by which its clients know a message.
    assert words_of(PERSIAN) & (fields_of_protos() | fields_of_requests()) <= {"vilix", "prompt", "tokens"}


def words_of(language: str) -> set[str]:
    """Return the words of the texts of a language, without placeholders."""
    texts = [text for entry in catalogue(language).values() for text in entry.texts]
    return {word for text in texts for word in re.findall(r"[\w/:<>\[\]-]+", re.sub(r"\{\w+\}", "", text))}


def fields_of_requests() -> set[str]:
    """Return the names of all fields of the requests that the dialects read."""
    document = orjson.loads(openapi.PATH.read_bytes())
    schemas = document["components"]["schemas"]
    return {name for schema in schemas.values() for name in schema.get("properties", ())}


def fields_of_protos() -> set[str]:
    services = (inference_service_pb2, embeddings_service_pb2)
    messages: list[Descriptor] = [
        message for service in services for message in service.DESCRIPTOR.message_types_by_name.values()
    ]
    return {field.name for message in messages for field in message.fields}


def test_a_text_in_english_that_depends_on_a_number_has_two_forms() -> None:
    for message_id, entry in catalogue(ENGLISH).items():
        assert COUNT not in placeholders(entry.other) or len(entry.texts) == 2, message_id


def test_texts_are_sentences() -> None:
    for language in LANGUAGES:
        for message_id, entry in catalogue(language).items():
            if (language, message_id) != (ENGLISH, "prompt_too_long"):  # Anthropic's words, which clients compare
                assert all(re.search(r"[.)]$", text) for text in entry.texts), (language, message_id)


def test_persian_texts_mark_latin_words() -> None:
    for message_id, entry in catalogue(PERSIAN).items():
        for text in entry.texts:
            outside = re.sub(r"`[^`]*`|\{\w+\}", "", text)
            assert set(re.findall("[A-Za-z]+", outside)) <= {"API"}, message_id


def test_only_messages_that_were_received_have_an_id_that_is_not_in_the_code() -> None:
    # They pass on the message of another program, or of a grammar or an image of which they know the field.
    assert {use.at.partition(":")[0] for use in uses() if not use.ids} == {
        "services/inference/request/images.py",
        "services/inference/request/structured_output/grammar_limits.py",
        "services/inference/triton_backend/engines/llama_structured_output.py",
        "services/inference/triton_backend/engines/vllm_structured_output.py",
        "services/inference/triton_backend/held_calls.py",
        "services/inference/triton_backend/trial.py",
        "services/runtime/messages/message.py",
    }


def test_every_message_in_the_code_is_in_the_catalogues_with_its_parameters() -> None:
    assert not [(use, message_id) for use in uses() for message_id in use.ids if not fits(use, message_id)]


def fits(use: Use, message_id: str) -> bool:
    entries = [catalogue(ENGLISH)[possible] for possible in use.ids if possible in catalogue(ENGLISH)]
    if len(entries) < len(use.ids):
        return False
    # A message may be about a field that its text does not mention.
    known = frozenset({FIELD}).union(*(entry.parameters for entry in entries))
    missing = catalogue(ENGLISH)[message_id].parameters - use.parameters
    return use.parameters <= known and not (use.is_complete and missing)


def test_every_message_of_the_catalogues_is_used() -> None:
    assert not catalogue(ENGLISH).keys() - {message_id for use in uses() for message_id in use.ids}


@pytest.mark.parametrize(
    ("language", "count", "form"),
    [("en", 1, "one"), ("en", 0, "other"), ("en", 2, "other"), ("fa", 0, "one"), ("fa", 1, "one"), ("fa", 2, "other")],
)
def test_a_count_chooses_the_form_of_its_noun(
    monkeypatch: pytest.MonkeyPatch, language: str, count: int, form: str
) -> None:
    entry = Entry("{count} thing", "{count} things")
    monkeypatch.setattr("services.runtime.messages.catalogue.catalogue", lambda _: {"things": entry})
    shown = f"\u2066{count}\u2069" if language == PERSIAN else str(count)
    assert render("things", {"count": str(count)}, language) == getattr(entry, form).format(count=shown)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("message_id", catalogue(ENGLISH))
def test_every_text_shows_the_values_of_its_parameters(message_id: str, language: str) -> None:
    parameters = {name: f"<{name}>" for name in catalogue(ENGLISH)[message_id].parameters}
    text = render(message_id, parameters, language)
    assert all(value in text for name, value in parameters.items() if name != COUNT)
    assert "`" not in text.replace("`<header>`", "").replace("`vilix keys list`", "")


def test_inserted_values_are_laid_out_from_left_to_right() -> None:
    text = Message("out_of_range", field="top_k", value=7, least=0, most="2").text("fa")
    assert "\u2066top_k\u2069" in text


@pytest.mark.parametrize("controls", ["\u2069\u202e", "\u202a\u202b\u202c\u202d", "\u2066\u2067\u2068"])
def test_inserted_values_cannot_change_the_direction_of_the_text_around_them(controls: str) -> None:
    text = Message("out_of_range", field=f"{controls} x", value=7, least=0, most=2).text("fa")
    assert text.startswith("\u2066 x\u2069 ")


def test_paths_of_fields_are_replaced_by_the_callers() -> None:
    message = Message("out_of_range", field="sampling.n", value="sampling.n", least=0, most=2)
    assert message.with_fields(lambda path: path.removeprefix("sampling.")).parameters["field"] == "n"
    assert message.with_fields(lambda _: "").parameters == message.parameters
