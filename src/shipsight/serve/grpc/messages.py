# SPDX-License-Identifier: Apache-2.0
"""The protocol's messages and services, made from `open_inference.binpb`. Private to the room.

`open_inference.binpb` is what protoc makes of `open_inference.proto`: a description, no code. Its classes live in a pool of
their own: a process that also imports a client of the protocol would otherwise hold two descriptions of the same names
in protobuf's one default pool, which refuses the second.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

__all__ = ["SERVICE", "Message", "message"]

Message = Any
"""A message of protobuf: its class is made at run time."""


def _load() -> DescriptorPool:
    pool = DescriptorPool()
    described = FileDescriptorSet.FromString((files("shipsight.serve.grpc") / "open_inference.binpb").read_bytes())
    for file in described.file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _load()
SERVICE: ServiceDescriptor = _POOL.FindServiceByName("inference.GRPCInferenceService")
"""The service, as the description has it."""


@cache
def message(name: str) -> type[Message]:
    """Returns a message's class by its name, for example `ModelInferRequest`.

    Raises:
        KeyError: there is no such message.
    """
    made: type[Message] = GetMessageClass(_POOL.FindMessageTypeByName(f"{SERVICE.file.package}.{name}"))
    return made
