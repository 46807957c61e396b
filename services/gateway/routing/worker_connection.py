"""How workers are connected to: in plain text, or with the certificates of the moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc

from services.runtime.certificates import Certificates, Identity


@dataclass(frozen=True)
class Connection:
    """What a channel is opened with. Two that are equal need not replace one another."""

    identity: Identity | None
    """None: in plain text."""
    server_name: str

    def open(self, address: str, options: Sequence[tuple[str, Any]]) -> grpc.aio.Channel:
        """A channel to IP:PORT."""
        if self.identity is None:
            return grpc.aio.insecure_channel(address, options=options)
        # Certificates of workers name what they are, not the address that they happen to have.
        options = [*options, ("grpc.ssl_target_name_override", self.server_name)]
        return grpc.aio.secure_channel(address, self.identity.channel_credentials(), options=options)


class Connections:
    """What new connections are made with."""

    def __init__(self, certificates: Certificates | None, *, server_name: str) -> None:
        """`server_name` is the name that workers' certificates must carry."""
        self._certificates: Final = certificates
        self._server_name: Final = server_name

    def current(self) -> Connection:
        """With the certificates that there are now; reads files."""
        identity = self._certificates.current() if self._certificates else None
        return Connection(identity, self._server_name)
