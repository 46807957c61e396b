"""`python -m services.gateway`: the HTTP gateway."""

from __future__ import annotations

import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import uvicorn
from starlette.types import ASGIApp

from services.gateway import metrics
from services.gateway.app import create_app
from services.gateway.background import note_stop
from services.gateway.edge.admin_listener import bind
from services.gateway.edge.http_protocol import protocol_for
from services.gateway.edge.quiet_server import QuietServer
from services.gateway.settings import GatewaySettings
from services.gateway.tenancy.limits import LIMITS
from services.gateway.wiring import check
from services.runtime import settings as settings_module
from services.runtime.allocator import limit_arenas
from services.runtime.metrics_server import serve_metrics
from services.runtime.telemetry import configure_logging
from services.runtime.tracing.opening import opened_tracer


class Server(QuietServer):
    """The server, which exits with code 0 after SIGTERM and SIGINT, because stopping is not a failure."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop gracefully at the first signal, and at once at the second."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: object) -> None:
        """Note a signal."""
        note_stop()
        self.force_exit = self.should_exit
        self.stop()


def _allow_files() -> None:
    """Raise the limit of open files, and so of connections, to the hard limit."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """Run the gateway until it receives SIGTERM or SIGINT."""
    settings = settings_module.load(GatewaySettings, command="services.gateway")
    _allow_files()
    limit_arenas()
    configure_logging("gateway")
    with ExitStack() as stack:
        try:
            check(settings)
            tracer = stack.enter_context(opened_tracer("gateway", slow_seconds=settings.traces_slow_seconds))
            admin = bind(settings)
            serve_metrics("gateway", settings.metrics_host, settings.metrics_port)
        except (OSError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from None
        _serve(settings, create_app(settings, admin=admin, tracer=tracer))


def _serve(settings: GatewaySettings, app: ASGIApp) -> None:
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=protocol_for(settings),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        # No part of the gateway needs the address of a client.
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=settings.drain_seconds,
    )
    metrics.prepare(LIMITS)
    server = Server(config)
    server.run()
    if not server.started:
        print(f"error: the gateway could not start on {settings.host}:{settings.port}; see above", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
