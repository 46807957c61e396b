"""What gateways seal and sign for clients can be opened by every gateway with the keys, and by nobody else."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway import key_ring
from services.gateway.key_ring import KeyRing, new_key
from services.stack import private_files

VALID = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="


def ring(path: Path, *keys: str) -> KeyRing:
    path.write_text("\n".join(keys) + "\n")
    return KeyRing(path)


@given(message=st.binary(max_size=300), context=st.binary(max_size=40))
def test_what_was_sealed_can_be_opened(message: bytes, context: bytes) -> None:
    keys = KeyRing()
    sealed = keys.seal(message, purpose="reasoning", context=context)
    assert keys.open(sealed, purpose="reasoning", context=context) == message
    assert message not in sealed or len(message) < 4
    assert sealed != keys.seal(message, purpose="reasoning", context=context)


def test_nothing_else_can_be_opened() -> None:
    keys = KeyRing()
    sealed = keys.seal(b"secret", purpose="reasoning", context=b"tenant")
    assert keys.open(sealed, purpose="other", context=b"tenant") is None
    assert keys.open(sealed, purpose="reasoning", context=b"another tenant") is None
    assert KeyRing().open(sealed, purpose="reasoning", context=b"tenant") is None
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        assert keys.open(bytes(changed), purpose="reasoning", context=b"tenant") is None
        assert keys.open(sealed[:position], purpose="reasoning", context=b"tenant") is None


def test_a_signature_is_of_one_message_and_one_purpose() -> None:
    keys = KeyRing()
    signature = keys.sign(b"message", purpose="cursor")
    assert keys.verify(signature, b"message", purpose="cursor")
    assert not keys.verify(signature, b"massage", purpose="cursor")
    assert not keys.verify(signature, b"message", purpose="token")
    assert not KeyRing().verify(signature, b"message", purpose="cursor")
    assert not keys.verify(b"", b"message", purpose="cursor")


def test_gateways_with_the_same_file_open_what_another_has_sealed(tmp_path: Path) -> None:
    first = ring(tmp_path / "keys", new_key())
    second = KeyRing(tmp_path / "keys")
    assert second.open(first.seal(b"x", purpose="p"), purpose="p") == b"x"
    assert second.verify(first.sign(b"x", purpose="p"), b"x", purpose="p")


def test_a_replaced_key_opens_until_it_is_removed(tmp_path: Path) -> None:
    old, new = new_key(), new_key()
    sealed = ring(tmp_path / "keys", old).seal(b"x", purpose="p")
    both = ring(tmp_path / "keys", new, old)
    assert both.open(sealed, purpose="p") == b"x"
    newer = both.seal(b"y", purpose="p")
    alone = ring(tmp_path / "keys", new)
    assert alone.open(newer, purpose="p") == b"y"
    assert alone.open(sealed, purpose="p") is None


def test_a_changed_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_ring, "CHECK_SECONDS", 0.0)
    old, new = new_key(), new_key()
    keys = ring(tmp_path / "keys", old)
    sealed = ring(tmp_path / "others", new).seal(b"x", purpose="p")
    assert keys.open(sealed, purpose="p") is None
    (tmp_path / "keys").write_text(f"{old}\n{new}\n")
    assert keys.open(sealed, purpose="p") == b"x"


def test_a_file_that_becomes_invalid_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(key_ring, "CHECK_SECONDS", 0.0)
    keys = ring(tmp_path / "keys", new_key())
    sealed = keys.seal(b"x", purpose="p")
    (tmp_path / "keys").write_text("no-key\n")
    with caplog.at_level(logging.WARNING):
        assert keys.open(sealed, purpose="p") == b"x"
    assert "no-key" not in caplog.text
    (tmp_path / "keys").unlink()
    assert keys.open(sealed, purpose="p") == b"x"


@pytest.mark.parametrize("text", ["", "\n\n", "YWJj\n", "not base64!\n", f"{VALID}\nshort\n"])
def test_an_invalid_file_is_reported_without_its_keys(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ValueError, match="32 bytes in base64") as error:
        KeyRing(path)
    assert not any(line and line in str(error.value) for line in text.split())


def test_a_private_file_is_private_from_the_start(tmp_path: Path) -> None:
    private_files.write(tmp_path / "keys", new_key())
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600
