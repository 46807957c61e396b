"""Opens channels to workers, in plain text or with the current certificates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc

from services.runtime.certificates import Certificates, Identity


@dataclass(frozen=True)
class Connection:
    """The credentials of channels. A worker keeps its channels as long as these are equal."""

    identity: Identity | None
    """The certificates; None for plain text."""
    server_name: str

    def open(self, address: str, options: Sequence[tuple[str, Any]]) -> grpc.aio.Channel:
        """Return a channel to `address`, IP:PORT."""
        if self.identity is None:
            return grpc.aio.insecure_channel(address, options=options)
        # Workers' certificates have a common name, because workers' addresses change.
        options = [*options, ("grpc.ssl_target_name_override", self.server_name)]
        return grpc.aio.secure_channel(address, self.identity.channel_credentials(), options=options)


class Connections:
    """The source of the credentials of new connections."""

    def __init__(self, certificates: Certificates | None, *, server_name: str) -> None:
        """Use `certificates`, or plain text. `server_name` is the name that workers' certificates must have."""
        self._certificates: Final = certificates
        self._server_name: Final = server_name

    def current(self) -> Connection:
        """Return a connection with the current certificates. Reads files."""
        identity = self._certificates.current() if self._certificates else None
        return Connection(identity, self._server_name)
