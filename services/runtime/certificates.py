"""mTLS between services: certificates from a directory, taken anew when they change there."""

from __future__ import annotations

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

CA, CERTIFICATE, KEY = "ca.crt", "tls.crt", "tls.key"
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, repr=False)
class Identity:
    """Who a service is, and whom it trusts; all as PEM."""

    ca: bytes
    certificate: bytes
    key: bytes

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For a client, which shows its certificate and trusts servers of the same CA."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


def checked(directory: Path | None) -> Path | None:
    """The directory, for settings. Raises ValueError as Certificates does."""
    if directory is not None:
        Certificates(directory)
    return directory


class Certificates:
    """A directory with `ca.crt`, `tls.crt` and `tls.key`, as cert-manager fills it and Kubernetes mounts it."""

    def __init__(self, directory: Path) -> None:
        """Reads the directory. Raises ValueError, naming the file, when it has no certificate that could be used."""
        self._directory: Final = directory
        self._current = _read(directory)
        self._rejected = ""

    def current(self) -> Identity:
        """What the directory has now; what it had before while it has nothing that could be used."""
        try:
            self._current = _read(self._directory)
            self._rejected = ""
        except ValueError as error:
            # Perhaps it is being written. Once for each fault is enough in the log: this is asked for often.
            if str(error) != self._rejected:
                self._rejected = str(error)
                _log.warning("certificates cannot be used, the earlier ones stay: %s", error)
        return self._current

    def server_credentials(self) -> grpc.ServerCredentials:
        """For a server: every new connection sees the certificate of its time, and must show one of the same CA."""
        told = self._current

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal told
            identity = self.current()
            if identity == told:
                return None
            told = identity
            _log.info("certificates were renewed")
            return _configuration(identity)

        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            _configuration(told),
            changed,  # type: ignore[arg-type]  # None means unchanged; its types miss it
            require_client_authentication=True,
        )
        return credentials


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(identity.key, identity.certificate)], identity.ca)


def _read(directory: Path) -> Identity:
    # Kubernetes replaces all files of a Secret at once, by pointing `..data` elsewhere.
    data = directory / "..data"
    place = (data if data.is_symlink() else directory).resolve()
    try:
        identity = _read_files(place)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_verify_locations(place / CA)
        context.load_cert_chain(place / CERTIFICATE, place / KEY)
        if _read_files(place) != identity:
            raise ValueError(f"{directory} is being written")
    except ssl.SSLError as error:
        reason = error.reason or error
        raise ValueError(f"{directory}: {CA}, {CERTIFICATE} and {KEY} do not fit together: {reason}") from None
    except OSError as error:
        raise ValueError(f"{error.filename or directory}: {error.strerror}") from None
    return identity


def _read_files(place: Path) -> Identity:
    ca, certificate, key = ((place / name).read_bytes() for name in (CA, CERTIFICATE, KEY))
    return Identity(ca, certificate, key)
