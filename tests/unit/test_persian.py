"""The Persian texts use the words of the table in docs/style.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.repository import ROOT

SITE = ROOT / "services/gateway/site"
ROW = re.compile(r"^\| [^|]+ \| (?P<avoided>[^|]+) \| (?P<where>everywhere|messages) \|", re.MULTILINE)
TABLE = [
    (word, row["where"])
    for row in ROW.finditer((ROOT / "docs/style.md").read_text())
    for word in row["avoided"].strip().split("، ")
]
MESSAGES = "services/runtime/messages/fa.toml"
LETTER = re.compile("[\u0600-\u06ff]")


def texts() -> Iterator[tuple[str, str]]:
    """Yield the name and the content of each source of Persian texts."""
    sources: list[Path] = [*(SITE / "content").glob("*fa.md"), ROOT / "services/runtime/messages/fa.toml"]
    # The search knows the other words, too.
    sources += [path for path in (SITE / "src").rglob("*.ts*") if path.name != "synonyms.ts"]
    sources += (SITE / "build").glob("*.ts")
    sources += [path for folder in ("inference/model", "embeddings") for path in catalog(folder)]
    for path in sources:
        yield path.relative_to(ROOT).as_posix(), path.read_text()
    yield "the OpenAPI document", json.dumps(json.loads((SITE / "openapi.json").read_text()), ensure_ascii=False)


def catalog(folder: str) -> list[Path]:
    return sorted((ROOT / "services" / folder / "models").glob("*.yaml"))


@pytest.mark.parametrize(("word", "where"), TABLE)
def test_no_text_has_a_word_that_developers_do_not_use(word: str, where: str) -> None:
    assert [name for name, text in texts() if word in text and where in ("everywhere", name_of_kind(name))] == []


def name_of_kind(name: str) -> str:
    return "messages" if name == MESSAGES else "others"


def test_the_table_has_words() -> None:
    assert len(TABLE) >= 15


def test_no_text_has_arabic_letters_or_digits() -> None:
    # The search folds these letters, so its module and its tests name them.
    for name, text in texts():
        if "passages.ts" not in name and "digits.ts" not in name:
            assert not re.findall("[يك٠-٩]", text), name


def test_no_alef_carries_a_hamza_for_the_ezafe() -> None:
    # After an alef the ezafe is a yeh. A hamza belongs above a final heh alone.
    assert [name for name, text in texts() if "ا\u0654" in text] == []


def test_the_page_groups_digits_as_persian_does() -> None:
    assert re.findall("[0-9],[0-9]{3}", (SITE / "content/fa.md").read_text()) == []


def test_every_description_of_a_model_is_in_persian() -> None:
    for path in [*catalog("inference/model"), *catalog("embeddings")]:
        assert LETTER.search(path.read_text()), path.name
