"""The server stops when it is told to, and renews the header `date`."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
import uvicorn

from services.gateway.edge import quiet_server
from services.gateway.edge.quiet_server import QuietServer
from tests.support.waits import until


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Serve nothing: no test connects."""


async def test_a_server_stops_at_once_and_not_at_its_next_look_at_a_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet_server, "DATE_SECONDS", 3600)
    server = QuietServer(uvicorn.Config(app, lifespan="off", log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started, what="the server has started")
        await asyncio.sleep(0)
        server.stop()
        async with asyncio.timeout(20):
            await serving


async def test_a_server_that_is_stopped_before_it_runs_ends() -> None:
    server = QuietServer(uvicorn.Config(app, lifespan="off", log_config=None))
    server.stop()
    async with asyncio.timeout(20):
        await server.main_loop()


async def test_the_date_of_responses_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet_server, "DATE_SECONDS", 0.01)
    server = QuietServer(uvicorn.Config(app, lifespan="off", log_config=None))
    running = asyncio.create_task(server.main_loop())
    for _ in range(3):
        await until(lambda: bool(server.server_state.default_headers), what="the headers are renewed")
        server.server_state.default_headers = []
    server.stop()
    async with asyncio.timeout(20):
        await running
