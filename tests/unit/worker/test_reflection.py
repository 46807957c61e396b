"""Clients of both versions of gRPC's reflection learn the same of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb
from vilix.inference.v1 import inference_service_pb2 as inference_pb

from services.worker.grpc_server import WorkerServer

SERVICE = inference_pb.DESCRIPTOR.services_by_name["InferenceService"].full_name
V1, V1ALPHA = "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    server = WorkerServer(SERVICE)
    port = server.grpc.add_insecure_port("127.0.0.1:0")
    await server.grpc.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.grpc.stop(None)


async def ask(
    channel: grpc.aio.Channel, service: str, request: pb.ServerReflectionRequest
) -> pb.ServerReflectionResponse:
    call = channel.stream_stream(
        f"/{service}/ServerReflectionInfo",
        request_serializer=pb.ServerReflectionRequest.SerializeToString,
        response_deserializer=pb.ServerReflectionResponse.FromString,
    )
    (response,) = [response async for response in call(iter([request]))]
    return response


@pytest.mark.parametrize("version", [V1, V1ALPHA])
async def test_both_versions_list_all_services(channel: grpc.aio.Channel, version: str) -> None:
    response = await ask(channel, version, pb.ServerReflectionRequest(list_services="*"))
    names = {service.name for service in response.list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", V1, V1ALPHA}


@pytest.mark.parametrize("version", [V1, V1ALPHA])
@pytest.mark.parametrize("symbol", [SERVICE, V1, V1ALPHA])
async def test_both_versions_describe_every_service(channel: grpc.aio.Channel, version: str, symbol: str) -> None:
    response = await ask(channel, version, pb.ServerReflectionRequest(file_containing_symbol=symbol))
    file = descriptor_pb2.FileDescriptorProto.FromString(response.file_descriptor_response.file_descriptor_proto[0])
    assert f"{file.package}.{file.service[0].name}" == symbol
    assert file.service[0].method[0].input_type.startswith(f".{file.package}.")
