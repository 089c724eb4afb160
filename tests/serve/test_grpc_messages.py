# SPDX-License-Identifier: Apache-2.0
"""The description of what gRPC speaks, against the published protocol and against what HTTP tells of errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc import StatusCode
from tests.conftest import REPOSITORY
from tests.test_errors import CLASSES
from tritonclient.grpc import model_config_pb2, service_pb2

from shipsight.errors import AuditError, ShipsightError
from shipsight.serve.grpc.messages import SERVICE, message
from shipsight.serve.grpc.statuses import details_of, status_of, text_of
from shipsight.serve.http.answers import status_of as http_status_of

ROOM = REPOSITORY / "src/shipsight/serve/grpc"
OURS = SERVICE.file
KSERVES = {
    "RepositoryModelLoadResponse": {"model_name", "isLoaded"},
    "RepositoryModelUnloadResponse": {"model_name", "isUnloaded"},
}
HTTP = {
    400: StatusCode.INVALID_ARGUMENT,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.NOT_FOUND,
    409: StatusCode.ABORTED,
    413: StatusCode.RESOURCE_EXHAUSTED,
    415: StatusCode.INVALID_ARGUMENT,
    422: StatusCode.FAILED_PRECONDITION,
    429: StatusCode.RESOURCE_EXHAUSTED,
    500: StatusCode.INTERNAL,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.DEADLINE_EXCEEDED,
}


def published(name: str) -> Descriptor | EnumDescriptor:
    for file in (service_pb2.DESCRIPTOR, model_config_pb2.DESCRIPTOR):
        found = file.message_types_by_name.get(name) or file.enum_types_by_name.get(name)
        if found is not None:
            return found
    raise AssertionError(f"the published protocol has no {name}")


def test_the_description_is_what_protoc_makes_of_its_source(tmp_path: Path) -> None:
    made = tmp_path / "made.binpb"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOM}", f"--descriptor_set_out={made}"]
    subprocess.run([*command, "open_inference.proto"], check=True, timeout=120)
    kept, fresh = (FileDescriptorSet.FromString(one.read_bytes()) for one in (ROOM / "open_inference.binpb", made))
    assert kept == fresh, "run: make protos"


def test_field_numbers_and_types_are_the_published_ones() -> None:
    compared = 0

    def compare(ours: Descriptor, theirs: Descriptor) -> None:
        nonlocal compared
        for field in ours.fields:
            if field.name in KSERVES.get(ours.name, ()):
                continue
            other = theirs.fields_by_name[field.name]
            kinds = [(one.number, one.type, one.is_repeated) for one in (field, other)]
            assert kinds[0] == kinds[1], field.full_name
            if field.message_type is not None:
                assert field.message_type.full_name == other.message_type.full_name
            compared += 1
        for nested in ours.nested_types:
            compare(nested, theirs.nested_types_by_name[nested.name])

    for name, ours in OURS.message_types_by_name.items():
        theirs = published(name)
        assert isinstance(theirs, Descriptor)
        compare(ours, theirs)
    for name, enum in OURS.enum_types_by_name.items():
        assert {one.name: one.number for one in enum.values} == {one.name: one.number for one in published(name).values}
    assert compared > 100


def test_methods_are_the_published_ones() -> None:
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    assert SERVICE.full_name == theirs.full_name
    for method in SERVICE.methods:
        other = theirs.methods_by_name[method.name]
        for ours, published_ in ((method.input_type, other.input_type), (method.output_type, other.output_type)):
            assert ours.full_name == published_.full_name
        assert (method.client_streaming, method.server_streaming) == (other.client_streaming, other.server_streaming)


def test_our_messages_and_a_clients_live_in_one_process() -> None:
    ours, theirs = message("ModelInferRequest"), service_pb2.ModelInferRequest
    assert ours is not theirs
    assert theirs.FromString(ours(model_name="a", raw_input_contents=[b"b"]).SerializeToString()).model_name == "a"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_the_status_that_http_gives_it(kind: type[ShipsightError]) -> None:
    error = kind("it is wrong", where="/home/somebody/file", hint="Look.")
    assert status_of(error) is HTTP[http_status_of(error)]
    if status_of(error) in (StatusCode.INTERNAL, StatusCode.FAILED_PRECONDITION) or kind is AuditError:
        assert "somebody" not in text_of(error)
        assert b"somebody" not in b"".join(
            one if isinstance(one, bytes) else one.encode() for _, one in details_of(error)
        )
    else:
        assert text_of(error) == str(error)
