# SPDX-License-Identifier: Apache-2.0
"""Errors as gRPC has them: a status code, the text, and details that programs can read. Private to the room.

The details are Google's error model (`google.rpc.Status` in `grpc-status-details-bin`): `ErrorInfo` with our stable code, and
`RetryInfo` where asking again later helps. gRPC's own retries obey `grpc-retry-pushback-ms`.
"""

from __future__ import annotations

from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc import StatusCode

from shipsight.errors import (
    AccessError,
    AnswerIsNoError,
    ArtefactError,
    AuditError,
    AuthenticationError,
    CertificateError,
    ConflictError,
    DeadlineError,
    ImageTooLargeError,
    InputError,
    LimitError,
    NotFoundError,
    RateLimitError,
    ServiceError,
    ShipsightError,
)

__all__ = ["details_of", "status_of", "text_of"]

_STATUSES: tuple[tuple[type[ShipsightError], StatusCode], ...] = (
    (AuthenticationError, StatusCode.UNAUTHENTICATED),
    (AccessError, StatusCode.PERMISSION_DENIED),
    (NotFoundError, StatusCode.NOT_FOUND),
    (ConflictError, StatusCode.ABORTED),
    (ImageTooLargeError, StatusCode.RESOURCE_EXHAUSTED),
    (LimitError, StatusCode.RESOURCE_EXHAUSTED),
    (CertificateError, StatusCode.PERMISSION_DENIED),
    (InputError, StatusCode.INVALID_ARGUMENT),
    (ArtefactError, StatusCode.FAILED_PRECONDITION),
    (AnswerIsNoError, StatusCode.FAILED_PRECONDITION),
    (DeadlineError, StatusCode.DEADLINE_EXCEEDED),
    (RateLimitError, StatusCode.RESOURCE_EXHAUSTED),
    (ServiceError, StatusCode.UNAVAILABLE),
    (AuditError, StatusCode.UNAVAILABLE),
)


def status_of(error: ShipsightError) -> StatusCode:
    """Returns the gRPC status of an error; what is nobody's named fault is ours, INTERNAL."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), StatusCode.INTERNAL)


def text_of(error: ShipsightError) -> str:
    """Returns what a client is told; what went wrong inside, with a bundle or with the audit log may name files of this machine."""
    if isinstance(error, AuditError):
        return error.what
    match status_of(error):
        case StatusCode.INTERNAL:
            return "the server failed on this request"
        case StatusCode.FAILED_PRECONDITION:
            return error.what
        case _:
            return str(error)


def details_of(error: ShipsightError) -> tuple[tuple[str, str | bytes], ...]:
    """Returns the trailing metadata of an error."""
    code = status_of(error)
    told = Status(code=code.value[0], message=text_of(error))
    is_inside = code in (StatusCode.INTERNAL, StatusCode.FAILED_PRECONDITION) or isinstance(error, AuditError)
    fields = {} if is_inside else error.to_dict()
    known = {name: text[:200] for name, text in fields.items() if name != "code" and text is not None}
    told.details.add().Pack(ErrorInfo(reason=error.code, domain="shipsight", metadata=known))
    if not isinstance(error, ServiceError):
        return (("grpc-status-details-bin", told.SerializeToString()),)
    retry = RetryInfo()
    retry.retry_delay.FromSeconds(error.retry_after_s)
    told.details.add().Pack(retry)
    return (
        ("grpc-status-details-bin", told.SerializeToString()),
        ("grpc-retry-pushback-ms", str(error.retry_after_s * 1000)),
    )
