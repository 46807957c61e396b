"""What is made of a directory with certificates while it is being written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from services.runtime.certificates import Certificates
from tests.support.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def test_a_new_certificate_is_taken(tmp_path: Path, authority: Authority) -> None:
    authority.issue(tmp_path / "tls", name="a")
    certificates = Certificates(tmp_path / "tls")
    before = certificates.current()
    assert certificates.current() == before
    authority.issue(tmp_path / "tls", name="b")
    assert certificates.current() != before


def test_files_that_do_not_fit_together_are_not_taken(tmp_path: Path, authority: Authority) -> None:
    for name in ("old", "new"):
        authority.issue(tmp_path / name, name=name)
    plain = tmp_path / "plain"
    shutil.copytree(tmp_path / "old" / "..data", plain)
    certificates = Certificates(plain)
    old = certificates.current()
    shutil.copy(tmp_path / "new" / "tls.crt", plain)
    assert certificates.current() == old
    shutil.copy(tmp_path / "new" / "tls.key", plain)
    assert certificates.current() == Certificates(tmp_path / "new").current()
    (plain / "tls.key").unlink()
    assert certificates.current() == Certificates(tmp_path / "new").current()


@pytest.mark.parametrize("file", ["ca.crt", "tls.crt", "tls.key"])
def test_what_is_missing_or_wrong_is_named(tmp_path: Path, authority: Authority, file: str) -> None:
    authority.issue(tmp_path / "tls", name="a")
    plain = tmp_path / "plain"
    shutil.copytree(tmp_path / "tls" / "..data", plain)
    (plain / file).write_text("not PEM")
    with pytest.raises(ValueError, match="do not fit together"):
        Certificates(plain)
    (plain / file).unlink()
    with pytest.raises(ValueError, match=f"{file}: No such file"):
        Certificates(plain)


def test_a_key_is_not_shown(tmp_path: Path, authority: Authority) -> None:
    authority.issue(tmp_path / "tls", name="a")
    assert "PRIVATE" not in repr(Certificates(tmp_path / "tls").current())
