"""Certificates are reloaded from their directory, also while the directory is being written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography import x509
from prometheus_client import REGISTRY

from services.runtime.certificates import Certificates
from tests.support.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


def test_a_new_certificate_is_loaded(tmp_path: Path, authority: Authority) -> None:
    authority.issue(tmp_path / "tls", name="a")
    certificates = Certificates(tmp_path / "tls")
    before = certificates.current()
    assert certificates.current() == before
    authority.issue(tmp_path / "tls", name="b")
    assert certificates.current() != before


def test_files_that_do_not_fit_together_are_not_loaded(tmp_path: Path, authority: Authority) -> None:
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
def test_a_missing_or_invalid_file_is_an_error(tmp_path: Path, authority: Authority, file: str) -> None:
    authority.issue(tmp_path / "tls", name="a")
    plain = tmp_path / "plain"
    shutil.copytree(tmp_path / "tls" / "..data", plain)
    (plain / file).write_text("not PEM")
    with pytest.raises(ValueError, match="do not fit together"):
        Certificates(plain)
    (plain / file).unlink()
    with pytest.raises(ValueError, match=f"{file}: No such file"):
        Certificates(plain)


def test_the_expiry_of_the_certificates_on_disk_is_a_metric(tmp_path: Path, authority: Authority) -> None:
    def exported(file: str) -> float | None:
        return REGISTRY.get_sample_value("vilix_certificate_expiry_timestamp_seconds", {"file": file})

    authority.issue(tmp_path / "tls", name="a", days=3)
    Certificates(tmp_path / "tls").export_expiry()
    assert exported("tls.crt") == not_after(tmp_path / "tls" / "tls.crt")
    assert exported("ca.crt") == not_after(tmp_path / "tls" / "ca.crt")
    before = exported("tls.crt")
    authority.issue(tmp_path / "tls", name="a", days=9)
    assert exported("tls.crt") == not_after(tmp_path / "tls" / "tls.crt") != before


def not_after(file: Path) -> float:
    return x509.load_pem_x509_certificate(file.read_bytes()).not_valid_after_utc.timestamp()


def test_a_private_key_is_not_in_the_representation(tmp_path: Path, authority: Authority) -> None:
    authority.issue(tmp_path / "tls", name="a")
    assert "PRIVATE" not in repr(Certificates(tmp_path / "tls").current())
