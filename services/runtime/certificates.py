"""mTLS between services: certificates from a directory, reloaded when they change there."""

from __future__ import annotations

import logging
import math
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc
from prometheus_client import Gauge

from services.runtime.certificate_expiry import earliest_expiry

EXPIRY: Final = Gauge(
    "vilix_certificate_expiry_timestamp_seconds",
    "When the first certificate of a file expires, in seconds since 1970; NaN if it cannot be read.",
    ["file"],
)
CA, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Identity:
    """The certificate and key of a service, and the CA that it trusts; all as PEM."""

    ca: bytes
    certificate: bytes
    key: bytes

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return the credentials of a client, which presents its certificate and trusts servers of the same CA."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


def check_directory(directory: Path | None) -> Path | None:
    """Return `directory`; a validator of settings. Raises ValueError as Certificates does."""
    if directory is not None:
        Certificates(directory)
    return directory


class Certificates:
    """A directory with `ca.crt`, `tls.crt` and `tls.key`, as cert-manager fills it and Kubernetes mounts it."""

    def __init__(self, directory: Path) -> None:
        """Read the directory. Raises ValueError, naming the file, if it has no usable certificate."""
        self._directory: Final = directory
        self._current = _read(directory)
        self._rejected = ""

    def current(self) -> Identity:
        """Return the identity in the directory, or the previous one while the directory has no usable certificate."""
        try:
            self._current = _read(self._directory)
            self._rejected = ""
        except ValueError as error:
            # Perhaps it is being written. Each fault is logged once, because this is called often.
            if str(error) != self._rejected:
                self._rejected = str(error)
                _log.warning("certificates cannot be used, the earlier ones stay: %s", error)
        return self._current

    def export_expiry(self) -> None:
        """Export when the certificates in the directory expire, as they are when the metrics are read."""
        EXPIRY.labels(CERTIFICATE).set_function(lambda: _expiry(self.current().certificate))
        EXPIRY.labels(CA).set_function(lambda: _expiry(self.current().ca))

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return the credentials of a server, which requires client certificates of the same CA.

        Each new connection gets the certificate that the directory has at that time.
        """
        configured = self._current

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal configured
            identity = self.current()
            if identity == configured:
                return None
            configured = identity
            _log.info("certificates were renewed")
            return _configuration(identity)

        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            _configuration(configured),
            changed,  # type: ignore[arg-type]  # None means unchanged; its types miss it
            require_client_authentication=True,
        )
        return credentials


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.key, identity.certificate)], identity.ca)


def _expiry(pem: bytes) -> float:
    try:
        return earliest_expiry(pem)
    except ValueError:
        return math.nan


def _read(directory: Path) -> Identity:
    # Kubernetes replaces all files of a Secret at once, by pointing `..data` elsewhere.
    data = directory / "..data"
    version = (data if data.is_symlink() else directory).resolve()
    try:
        identity = _read_files(version)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_verify_locations(version / CA)
        context.load_cert_chain(version / CERTIFICATE, version / KEY)
        if _read_files(version) != identity:
            raise ValueError(f"{directory} is being written")
    except ssl.SSLError as error:
        reason = error.reason or error
        raise ValueError(f"{directory}: {CA}, {CERTIFICATE} and {KEY} do not fit together: {reason}") from None
    except OSError as error:
        raise ValueError(f"{error.filename or directory}: {error.strerror}") from None
    return identity


def _read_files(directory: Path) -> Identity:
    ca, certificate, key = ((directory / name).read_bytes() for name in (CA, CERTIFICATE, KEY))
    return Identity(ca, certificate, key)
