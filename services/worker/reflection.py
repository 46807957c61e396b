"""gRPC's server reflection, in version v1 and in v1alpha: newer clients ask for the one, older ones for the other.

The library has v1alpha alone. Both versions have the same messages under other names, so that one servicer serves both.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection, reflection_pb2

ALPHA: Final = "grpc.reflection.v1alpha"
STABLE: Final = "grpc.reflection.v1"
VERSIONS: Final = (STABLE, ALPHA)
_FILE: Final = "grpc/reflection/v1/reflection.proto"


def add_reflection(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Let clients of `server` ask for the descriptions of `services`, which are full names."""
    names = {version: f"{version}.ServerReflection" for version in VERSIONS}
    servicer = reflection.aio.ReflectionServicer((*services, *names.values()), pool=_pool_with_v1())
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}) for name in names.values())
    )


def _pool_with_v1() -> descriptor_pool.DescriptorPool:
    """Return the pool of all descriptors, v1 among them, because clients may ask for the description of v1 itself."""
    pool: descriptor_pool.DescriptorPool = descriptor_pool.Default()  # type: ignore[no-untyped-call]
    try:
        pool.FindFileByName(_FILE)  # type: ignore[no-untyped-call]
    except KeyError:
        pool.Add(_v1())  # type: ignore[no-untyped-call]
    return pool


def _v1() -> descriptor_pb2.FileDescriptorProto:
    """Return the description of v1: that of v1alpha with another package."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)  # type: ignore[no-untyped-call]
    file.name, file.package = _FILE, STABLE
    file.ClearField("options")
    for message in file.message_type:
        for field in (field for field in message.field if field.HasField("type_name")):
            field.type_name = _renamed(field.type_name)
    for method in file.service[0].method:
        method.input_type, method.output_type = _renamed(method.input_type), _renamed(method.output_type)
    return file


def _renamed(name: str) -> str:
    return name.replace(f".{ALPHA}.", f".{STABLE}.")
