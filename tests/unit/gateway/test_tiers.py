from __future__ import annotations

from pathlib import Path

import pytest

from services.gateway.tenancy import tiers as module
from services.gateway.tenancy.key import Fingerprint, Key
from services.gateway.tenancy.limits import Limits
from services.gateway.tenancy.tiers import Tiers

KEY = Key(id="key-1", name="name", created=1, tier="free")


def test_the_limits_of_a_key_are_found_once_as_long_as_key_and_file_are_the_same(tmp_path: Path) -> None:
    path = tmp_path / "tiers.yaml"
    path.write_text("tiers: {free: {rpm: 1}}")
    tiers, fingerprint = Tiers(path), Fingerprint("secret", "1")
    first = tiers.subject(KEY, "m", fingerprint)
    assert tiers.subject(KEY, "m", fingerprint) is first
    assert first.limits.rpm == 1

    changed = KEY.model_copy(update={"limits": Limits(rpm=2)})
    assert tiers.subject(changed, "m", Fingerprint("secret", "2")).limits.rpm == 2
    assert tiers.subject(changed, "other", Fingerprint("secret", "2")).model == "other"

    path.write_text("tiers: {free: {rpm: 1000}}")
    tiers._file._read_again()
    assert tiers.subject(KEY, "m", fingerprint).limits.rpm == 1000


def test_the_number_of_kept_limits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SUBJECTS", 2)
    tiers, key = Tiers(None), KEY.model_copy(update={"tier": None})
    for number in range(5):
        assert tiers.subject(key, f"m{number}", Fingerprint("secret", "1")).model == f"m{number}"
        assert len(tiers._subjects) <= 2
