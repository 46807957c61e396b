"""One HTTP request and its response, as the steps of the pipeline use them."""

from __future__ import annotations

from typing import Final

from starlette.types import Receive, Scope, Send

from services.gateway.cleanup import Cleanup
from services.gateway.disconnect import Disconnect
from services.gateway.edge.body import RequestBody
from services.gateway.edge.direct_writer import DIRECT_WRITER
from services.gateway.edge.request_headers import RequestHeaders
from services.gateway.edge.response import ResponseChannel
from services.gateway.edge.served_request import SERVED_REQUEST
from services.gateway.record import RequestRecord


class Exchange:
    """A request inside the middleware Access. `cleanup` must be closed at its end."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wrap the three arguments of an ASGI application."""
        self.headers: Final = RequestHeaders(scope["headers"])
        self.record: Final[RequestRecord] = scope["state"]["record"]
        # They refer to the server's state of the request, which refers to the scope: break the cycle, so that no
        # garbage collection is needed.
        extensions = scope.pop("extensions", {})
        served = extensions.get(SERVED_REQUEST)
        self.body: Final = RequestBody(self.headers, receive, served)
        self.disconnect: Final = Disconnect(receive, served)
        self.response: Final = ResponseChannel(send, extensions.get(DIRECT_WRITER))
        self.cleanup: Final = Cleanup()
        """Callbacks that run at the end of the request."""
        self.cleanup.callback(self.body.release)
        self.cleanup.callback(self.disconnect.close)

    @property
    def is_strict(self) -> bool:
        """Whether fields that would have no effect are rejected."""
        return self.headers.get("x-strict-params") == "true"
