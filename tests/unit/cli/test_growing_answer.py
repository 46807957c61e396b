"""The screen that a reader sees while an answer grows, and at its end."""

from __future__ import annotations

import re

import pytest

from services.cli.growing_answer import GrowingAnswer

_CONTROL = re.compile(r"\x1b\[(?P<count>\d*)(?P<kind>[AJm])|\x1b\[[0-9;]*m")
BOLD, ITALIC, CODE = "\x1b[1m", "\x1b[3m", "\x1b[36m"


class Screen:
    """A terminal that knows what `GrowingAnswer` writes."""

    def __init__(self, columns: int = 40, lines: int = 12) -> None:
        self.columns, self.lines = columns, lines
        self.written = ""
        self._rows, self._row, self._column = [""], 0, 0

    @property
    def text(self) -> str:
        return "\n".join(row.rstrip() for row in self._rows).rstrip()

    def write(self, text: str) -> None:
        self.written += text
        position = 0
        while position < len(text):
            if match := _CONTROL.match(text, position):
                if match["kind"] == "A":
                    self._row -= int(match["count"])
                elif match["kind"] == "J":
                    self._rows[self._row] = self._rows[self._row][: self._column]
                    del self._rows[self._row + 1 :]
                position = match.end()
                continue
            self._put(text[position])
            position += 1

    def _put(self, character: str) -> None:
        if character == "\r":
            self._column = 0
            return
        if character == "\n" or self._column == self.columns:
            self._row, self._column = self._row + 1, 0
            if self._row == len(self._rows):
                self._rows.append("")
            assert self._row < len(self._rows)
        if character != "\n":
            self._rows[self._row] = self._rows[self._row][: self._column] + character
            self._column += 1


def shown(text: str, *, size: int = 1, screen: Screen | None = None) -> Screen:
    """Show a text in pieces of `size` characters."""
    screen = screen or Screen()
    answer = GrowingAnswer(screen.write, lambda: (screen.columns, screen.lines))
    for start in range(0, len(text), size):
        answer.add(text[start : start + size])
    answer.end()
    return screen


MARKDOWN = """# Title

Some **bold**, *slanted* and `code`, 2 * 3 * 4, then **kwargs.

- one
- two with [a link](https://example.com)

```python
print("**not bold**")
```
| a | b |
|---|---|
| 1 | `x` |

The end."""
RENDERED = """Title

Some bold, slanted and code, 2 * 3 * 4,
then **kwargs.

• one
• two with a link (https://example.com)

```python
print("**not bold**")
```
 a b
 ─────
 1 x

The end."""


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_marks_become_styles_whatever_the_pieces_are(size: int) -> None:
    screen = shown(MARKDOWN, size=size)
    assert re.sub(" +", " ", screen.text) == RENDERED
    assert {BOLD, ITALIC, CODE} <= set(re.findall(r"\x1b\[\d+m", screen.written))


def test_open_marks_are_not_seen_while_an_answer_grows() -> None:
    screen = Screen()
    answer = GrowingAnswer(screen.write, lambda: (screen.columns, screen.lines))
    for piece, seen in (
        ("This is *", "This is"),
        ("*bo", "This is bo"),
        ("ld*", "This is bold"),
        ("* now", "This is bold now"),
    ):
        answer.add(piece)
        assert screen.text == seen


def test_a_line_without_marks_is_only_continued() -> None:
    assert shown("Plain words\nand more of them.", size=3).written == "Plain words\nand more of them."


def test_persian_keeps_its_characters() -> None:
    text = "نیم‌فاصله می‌ماند، **پررنگ** هم."
    assert shown(text, screen=Screen(80)).text == text.replace("*", "")


def test_a_line_longer_than_the_screen_is_shown_to_its_end() -> None:
    text = "**bold** " + " ".join(str(number) for number in range(60))
    screen = shown(text, size=7, screen=Screen(20, 4))
    assert "".join(screen.text.split()).endswith("575859")


def test_what_is_no_table_stays_as_it_is() -> None:
    assert shown("| only a bar\nand words").text == "| only a bar\nand words"
