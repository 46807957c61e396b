"""One HTTP request with the way back to its client: what the steps of the pipeline need of HTTP, and nothing else."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from services.gateway.disconnect import Disconnect
from services.gateway.edge.body import RequestBody
from services.gateway.edge.direct_writer import DIRECT_WRITER
from services.gateway.edge.response import ResponseChannel
from services.gateway.record import RequestRecord


class Exchange:
    """A request that the middleware Access is around. `cleanup` is to be closed at its end."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take what ASGI gives."""
        self.headers: Final = Headers(scope=scope)
        self.record: Final[RequestRecord] = scope["state"]["record"]
        self.body: Final = RequestBody(self.headers, receive)
        self.disconnect: Final = Disconnect(receive)
        self.response: Final = ResponseChannel(send, scope.get("extensions", {}).get(DIRECT_WRITER))
        self.cleanup: Final = ExitStack()
        """Whatever lasts no longer than the request registers its end here."""
        self.cleanup.callback(self.body.release)
        self.cleanup.callback(self.disconnect.close)

    @property
    def is_strict(self) -> bool:
        """Whether fields that would have no influence are to be rejected."""
        return self.headers.get("x-strict-params") == "true"
