"""An answer that grows on a terminal: its Markdown is shown as styles, and its last block again with each piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from services.cli import terminal_markdown as markdown


@dataclass
class GrowingAnswer:
    """The answer on the screen.

    The last block is one line, or the rows of a table. It is written again when its marks change how it looks; a block
    that does not fit the screen can no longer be reached, and goes on as it is.
    """

    write: Callable[[str], object]
    size: Callable[[], tuple[int, int]]
    """Returns the columns and the lines of the terminal."""
    _block: list[str] = field(default_factory=lambda: [""])
    """The lines of the last block, as they came."""
    _shown: list[str] = field(default_factory=lambda: [""])
    """The lines of the last block, as they are on the screen."""
    _fence: str = ""
    """The marks that end the block of code in which the answer is."""

    def add(self, piece: str) -> None:
        """Show a further piece."""
        first, *rest = piece.split("\n")
        self._grow(first)
        for text in rest:
            self._end_line()
            self._grow(text)
        self._show(is_complete=False)

    def end(self) -> None:
        """Show the end of the answer, without a line break behind it."""
        self._show(is_complete=True)

    def _grow(self, text: str) -> None:
        self._block[-1] += text
        if len(self._block) > 1 and self._block[-1].strip() and not markdown.is_row(self._block[-1]):
            self._end_table()

    def _end_table(self) -> None:
        """End the rows of a table before the last line, which is none."""
        line = self._block.pop()
        self._show(is_complete=True)
        self._begin(line)

    def _end_line(self) -> None:
        line = self._block[-1]
        if not self._fence and markdown.is_row(line):
            # The next line may be another row.
            self._block.append("")
            return
        if len(self._block) > 1:
            self._end_table()
        self._show(is_complete=True)
        if marks := markdown.fence(line):
            if not self._fence:
                self._fence = marks
            elif marks.startswith(self._fence):
                self._fence = ""
        self._begin("")

    def _begin(self, line: str) -> None:
        self.write("\n")
        self._block, self._shown = [line], [""]

    def _lines(self, columns: int, *, is_complete: bool) -> list[str]:
        last = self._block[-1]
        if self._fence:
            return [last if markdown.fence(last) else markdown.code(last)]
        if len(self._block) > 1 or markdown.is_row(last):
            rows = self._block[: None if last else -1]
            return (markdown.table(rows, columns) if is_complete else None) or rows
        return [markdown.line(last, is_complete=is_complete)]

    def _show(self, *, is_complete: bool) -> None:
        columns, lines = self.size()
        new = self._lines(columns, is_complete=is_complete)
        if new == self._shown:
            return
        old, text = "\n".join(self._shown), "\n".join(new)
        if text.startswith(old) and "\x1b" not in text:
            self.write(text[len(old) :])
        else:
            height = sum(max(1, -(-markdown.width(line) // columns)) for line in self._shown)
            if height >= lines:
                # Its beginning has left the screen.
                raw = "\n".join(self._block)
                self.write(raw[len(old) :] if raw.startswith(old) else f"\n{text}")
            else:
                up = f"\x1b[{height - 1}A" if height > 1 else ""
                self.write(f"\r{up}\x1b[J{text}")
        self._shown = new
