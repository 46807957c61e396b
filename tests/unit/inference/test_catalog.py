from __future__ import annotations

from pathlib import Path

import pytest

from services.inference.catalog import DIRECTORY, load_model

ENTRY = """\
id: mine
created: 2026-01-02
owned_by: me
checkpoint: me/mine
licence: MIT
context_length: 128
engine: {name: replay}
descriptions: {en: Mine.}
"""


@pytest.mark.parametrize("path", sorted(DIRECTORY.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_entry_of_the_catalog_is_valid_and_described_in_both_languages(path: Path) -> None:
    spec = load_model(path.stem)
    assert set(spec.descriptions) == {"en", "fa"}


def test_whoever_tries_the_small_model_is_told_about_its_persian() -> None:
    spec = load_model("smollm2-135m")
    assert "noise" in spec.descriptions["en"]
    assert "بی‌معنی" in spec.descriptions["fa"]
    assert spec.licence == "Apache-2.0"


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (ENTRY + "temperature: 1\n", "line 9: temperature: Extra inputs"),
        (ENTRY + "sampling: {temprature: 1}\n", r"sampling\.temprature: Extra inputs"),
        (ENTRY + "sampling: {temperature: 3}\n", r"sampling\.temperature: .* 2 \(it is 3\)"),
        (ENTRY.replace("replay", "vllm"), r"line 7: engine\.name"),
        (ENTRY.replace("licence: MIT\n", ""), "licence: Field required"),
        (ENTRY.replace("id: mine", "id: other"), "id: it must be the file's name, and is 'other'"),
        ("a: [", "is not YAML"),
        ("- a", "dictionary"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(tmp_path: Path, entry: str, problem: str) -> None:
    (tmp_path / "mine.yaml").write_text(entry)
    with pytest.raises(ValueError, match=rf"^mine\.yaml.*{problem}"):
        load_model("mine", directory=tmp_path)


def test_a_valid_entry_is_read(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(ENTRY)
    assert load_model("mine", directory=tmp_path).context_length == 128


def test_a_model_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(ENTRY)
    with pytest.raises(ValueError, match=r"'yours'.*there are mine"):
        load_model("yours", directory=tmp_path)
