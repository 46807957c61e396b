"""What a user types in `vilix chat`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from services.cli.chat_commands import HELP, ChatCommands, read_message
from services.cli.conversation import Conversation, ImageError, Kind, read_image

PNG = b"\x89PNG\r\n\x1a\n"


def model(name: str, **fields: Any) -> Any:
    listed = {"id": name, "available": True, "capabilities": {"chat": True}, **fields}
    return SimpleNamespace(model_dump=lambda: listed)


def commands() -> ChatCommands:
    models = [model("one"), model("two"), model("away", available=False), model("vectors", capabilities={})]
    client: Any = SimpleNamespace(models=SimpleNamespace(list=lambda: models))
    return ChatCommands(Conversation(client, "one", {}))


def typed(*lines: str) -> str:
    left = iter(lines)
    text = read_message(lambda _: next(left), prompt="", more="")
    assert list(left) == [], "everything was read"
    return text


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (["Hello!"], "Hello!"),
        (['"""', "one", "", "  two", '"""'], "one\n\n  two"),
        (['"""one', 'two"""'], "one\ntwo"),
        (['"""one"""'], "one"),
        (["one \\", "two\\", "three"], "one \ntwo\nthree"),
        (["سلام! \\", "نیم\u200cفاصله چیست؟"], "سلام! \nنیم\u200cفاصله چیست؟"),
    ],
)
def test_a_message_may_have_several_lines(lines: list[str], text: str) -> None:
    assert typed(*lines) == text


def test_model_lists_the_available_models_and_changes_to_one() -> None:
    chat = commands()
    assert chat.run("/model") == "* one\n  two"
    assert chat.run("/model two") == "Continuing with two."
    assert chat.conversation.model == "two"
    assert "available are one, two" in chat.run("/model vectors")
    assert chat.conversation.model == "two"


def test_system_and_clear_change_what_the_model_is_told() -> None:
    chat = commands()
    assert chat.run("/system") == "There is no system prompt."
    chat.run("/system Answer in Persian.")
    chat.conversation.messages += [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    chat.run("/system Answer briefly.")
    assert [message["content"] for message in chat.conversation.messages] == ["Answer briefly.", "a", "b"]
    chat.run("/clear")
    assert [message["content"] for message in chat.conversation.messages] == ["Answer briefly."]
    chat.run("/system none")
    assert chat.conversation.messages == []


def test_an_image_is_sent_with_the_next_message_only(tmp_path: Path) -> None:
    chat = commands()
    (tmp_path / "a photo.png").write_bytes(PNG)
    assert "An image" in chat.run(f"/image '{tmp_path}/a photo.png'")
    (url,) = chat.take_images()
    assert url.startswith("data:image/png;base64,")
    assert chat.take_images() == []
    assert "cannot be read" in chat.run(f"/image {tmp_path}/missing.png")
    assert "no name of an image" in chat.run("/image /etc/passwd")


@pytest.mark.parametrize("name", ["help", "model", "system", "image", "clear", "exit"])
def test_help_names_every_command(name: str) -> None:
    assert f"/{name}" in HELP
    assert commands().run("/help") == HELP


def test_an_unknown_command_is_not_sent_to_the_model() -> None:
    assert "no command /hlep" in commands().run("/hlep")


def test_a_text_file_is_no_image(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no name of an image"):
        read_image(tmp_path / "notes.txt")


def chunks(*texts: str, tokens: int) -> Iterator[Any]:
    for text in texts:
        delta = SimpleNamespace(model_dump=lambda text=text: {"content": text})
        yield SimpleNamespace(usage=None, choices=[SimpleNamespace(delta=delta)])
    yield SimpleNamespace(usage=SimpleNamespace(completion_tokens=tokens), choices=[])


def test_only_a_complete_answer_becomes_part_of_the_conversation() -> None:
    client: Any = SimpleNamespace(
        chat=SimpleNamespace(completions=SimpleNamespace(create=lambda **_: chunks("He", "llo\x1b[2J", tokens=2)))
    )
    conversation = Conversation(client, "one", {})
    stopped = conversation.ask("first")
    assert next(stopped) == (Kind.ANSWER, "He")
    stopped.close()  # type: ignore[attr-defined]  # it is a generator
    assert conversation.messages == []
    assert [piece for _, piece in conversation.ask("second")] == ["He", "llo[2J"]
    assert [message["content"] for message in conversation.messages] == ["second", "Hello\x1b[2J"]
    assert conversation.speed.tokens == 2
