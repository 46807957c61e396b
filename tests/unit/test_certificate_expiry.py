"""The expiry of certificates, compared with that which `cryptography` reads."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.runtime.certificate_expiry import earliest_expiry

KEY = ec.generate_private_key(ec.SECP256R1())
TIMES = [
    datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(2026, 2, 28, 1, 2, 3, tzinfo=UTC),
    datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC),
    datetime(2051, 1, 1, 0, 0, 0, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
]


def certificate(expires: datetime, *, name: str = "a") -> bytes:
    names = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(names, names, KEY.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(datetime(1990, 1, 1, tzinfo=UTC)).not_valid_after(expires)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("expires", TIMES, ids=lambda time: str(time.year))
@pytest.mark.parametrize("name", ["a", "n" * 60])
def test_the_time_is_that_of_the_certificate(expires: datetime, name: str) -> None:
    assert earliest_expiry(certificate(expires, name=name)) == expires.timestamp()


def test_the_earliest_of_several_counts() -> None:
    chain = b"# a comment\n".join(certificate(time) for time in TIMES[1:])
    assert earliest_expiry(chain) == TIMES[1].timestamp()


@pytest.mark.parametrize("size", [0, 1, 2, 40, 120, 160])
def test_what_is_no_certificate_is_rejected(size: int) -> None:
    import ssl

    whole = ssl.PEM_cert_to_DER_cert(certificate(TIMES[1]).decode())
    with pytest.raises(ValueError, match=r"."):
        earliest_expiry(ssl.DER_cert_to_PEM_cert(whole[:size]).encode())


def test_a_file_without_certificates_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"."):
        earliest_expiry(b"not PEM")
