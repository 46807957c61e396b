"""A watch of the health service reports the end of the service."""

from __future__ import annotations

from typing import Any

from grpc_health.v1 import health_pb2

from services.worker.grpc_server import WorkerServer

SERVICE = "vilix.test.v1.TestService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_watch_reports_an_end_that_comes_while_an_earlier_status_is_sent() -> None:
    server = WorkerServer(SERVICE)
    server.set_serving(True)
    context: Any = None
    watch = server._health.Watch(health_pb2.HealthCheckRequest(service=SERVICE), context)
    assert (await anext(watch)).status == SERVING
    # The first response has not been sent yet.
    server._health.end()
    assert [response.status async for response in watch] == [NOT_SERVING]
    await server.grpc.stop(None)
