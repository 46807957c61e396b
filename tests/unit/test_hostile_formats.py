"""The generator of hostile structured outputs is deterministic for a seed, and produces every kind."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from pathlib import Path
from typing import Any

from tests.support.hostile_structured_output.cases import KINDS, cases, is_longer, load_suite

SUITE = [{"type": "object", "properties": {"a": {"minItems": 1}}}, True, {"$ref": "#/$defs/a"}]


def test_the_same_seed_gives_the_same_cases() -> None:
    first, second = ([*itertools.islice(cases(3, SUITE), 60)] for _ in range(2))
    assert first == second
    assert first != [*itertools.islice(cases(4, SUITE), 60)]


def test_every_kind_takes_its_turn_and_can_be_sent_as_json() -> None:
    made = [*itertools.islice(cases(1, SUITE), 3 * len(KINDS))]
    assert len({case.label.partition(":")[0] for case in made}) >= len(KINDS)
    for case in made:
        # Longer cases are not sent, and take long to serialize.
        if not is_longer(case.fields, 2**20):
            json.dumps(case.fields)


def test_the_suite_is_read_from_its_archive(tmp_path: Path) -> None:
    content = json.dumps([{"schema": {"type": "null"}, "tests": []}, {"schema": False}]).encode()
    archive = tmp_path / "suite.tar.gz"
    with tarfile.open(archive, "w:gz") as files:
        for name in ("x-1/json/tests/draft7/type.json", "x-1/other/type.json"):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            files.addfile(member, io.BytesIO(content))
    assert load_suite(archive) == [{"type": "null"}, False]


def test_a_case_that_would_be_too_large_is_detected_before_it_is_serialized() -> None:
    schema: Any = {"type": "string"}
    for _ in range(60):
        schema = {"anyOf": [schema, schema]}
    assert is_longer(schema, 2**20)
    assert not is_longer({"a": ["b" * 1000, 1, None]}, 1020)
    assert is_longer({"a": "b" * 1000}, 1000)
