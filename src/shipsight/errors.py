# SPDX-License-Identifier: Apache-2.0
"""Every error that shipsight raises on purpose, as one tree by who must act.

    ShipsightError
    |-- InputError            the caller: wrong use or bad input                       exit 2
    |   |-- UsageError            an option or argument that does not fit
    |   |-- ImageError            an image that is not what it should be
    |   |   |-- ImageUnreadableError      damaged or truncated
    |   |   |-- ImageFormatError          a format that is not accepted
    |   |   `-- ImageTooLargeError        more pixels than the limit, told from its header
    |   |-- NotFoundError         nothing of that name is served
    |   |-- ConflictError         what is to be changed is no longer what the caller saw
    |   |-- SealedRequestError    a sealed request that is not accepted; why is told to nobody
    |   |-- SealingUnsupportedError   sealed, where only plain requests are taken
    |   |-- SealingRequiredError  plain, where only sealed requests are taken
    |   |-- TensorError           a tensor of another shape, type or range
    |   |-- CertificateError      a certificate, key or list of authorities that cannot be used
    |   |-- CardError             a card or card file that does not describe a model
    |   `-- DatasetError          a data set that cannot be read as described
    |-- ArtefactError         who made or carried the file                             exit 1 or 2
    |   |-- CorruptError          damaged: cannot be what its maker wrote               exit 2
    |   |-- UnsupportedError      sound, but not something this version handles         exit 2
    |   |-- UntrustedError        carries code or reaches outside itself                exit 2
    |   |-- SealedAnswerError     not the sealed answer to what was asked               exit 2
    |   |-- SealingIdentityError  not the keys of the server that is meant              exit 2
    |   `-- TamperedError         differs from what its manifest promises               exit 1
    |       |-- UnnamedFileError, MissingFileError, LinkError, EscapingPathError, HashMismatchError
    |       `-- AuditProofError     an audit log is not what was signed or proved
    |-- AnswerIsNoError       nobody: the question was answered with no                exit 1
    |   |-- ReplayMismatchError   this machine does not run what was measured
    |   |-- AlertRefusedError     a receiver of alerts refused one
    |   `-- ParityError           a variant differs from the source by more than its gate
    |-- MissingDependencyError, SandboxError, TrainingError, AuditError  (EnvironmentLackError)  exit 3
    |-- LimitError            a resource limit: time, memory, size                     exit 2
    |-- StepError             the operator: a step of theirs failed                    exit 2
    |-- AccessError           who asks, or who gives them rights                       exit 1
    |   |-- AuthenticationError   who asks is not known, or what they showed is not accepted
    |   |   `-- StepUpError           known, but has to prove it again for this
    |   `-- ForbiddenError        who asks may not do this
    |-- ServiceError          nobody: ask again later                                  exit 1
    |   |-- OverloadedError       would be too late, so not begun
    |   |-- DeadlineError         became too late while it waited
    |   |-- RateLimitError        this principal asked too often, or for too much
    |   |-- NotReadyError         the model is loading, failed its replay or is leaving
    |   |-- EngineDiedError       the model's worker process ended before it answered
    |   `-- StreamLostError       a source of video gives no frames any more
    `-- InternalError         us: a bug                                                exit 70

Rules: a class has one stable `code`; messages are built from the typed fields (what, where, expected, got, hint) and
hold no secrets; `exit_code` is the process's exit status. Stable.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AccessError",
    "AlertRefusedError",
    "AnswerIsNoError",
    "ArtefactError",
    "AuditError",
    "AuditProofError",
    "AuthenticationError",
    "CardError",
    "CertificateError",
    "ConflictError",
    "CorruptError",
    "DatasetError",
    "DeadlineError",
    "EngineDiedError",
    "EnvironmentLackError",
    "EscapingPathError",
    "ForbiddenError",
    "HashMismatchError",
    "ImageError",
    "ImageFormatError",
    "ImageTooLargeError",
    "ImageUnreadableError",
    "InputError",
    "InternalError",
    "LimitError",
    "LinkError",
    "MissingDependencyError",
    "MissingFileError",
    "NotFoundError",
    "NotReadyError",
    "OverloadedError",
    "ParityError",
    "RateLimitError",
    "ReplayMismatchError",
    "SandboxError",
    "SealedAnswerError",
    "SealedRequestError",
    "SealingIdentityError",
    "SealingRequiredError",
    "SealingUnsupportedError",
    "ServiceError",
    "ShipsightError",
    "StepError",
    "StepUpError",
    "StreamLostError",
    "TamperedError",
    "TensorError",
    "TrainingError",
    "UnnamedFileError",
    "UnsupportedError",
    "UntrustedError",
    "UsageError",
]


class ShipsightError(Exception):
    """The root of all errors raised on purpose.

    Args:
        what: what is wrong, one sentence without a full stop.
        where: file, tensor, node or option concerned.
        expected: what would have been right.
        got: what was found.
        hint: what to do next, an imperative sentence.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 2

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        got: object = None,
        hint: str | None = None,
    ) -> None:
        self.what = what
        self.where = None if where is None else str(where)
        self.expected = None if expected is None else str(expected)
        self.got = None if got is None else str(got)
        self.hint = hint
        super().__init__(self._message())

    def _message(self) -> str:
        parts = [self.what if self.where is None else f"{self.where}: {self.what}"]
        if self.expected is not None:
            parts.append(f"expected {self.expected}")
        if self.got is not None:
            parts.append(f"got {self.got}")
        message = "; ".join(parts)
        return message if self.hint is None else f"{message}. {self.hint}"

    def to_dict(self) -> dict[str, str | None]:
        """Returns the error for machines: `code, what, where, expected, got, hint`."""
        return {
            "code": self.code,
            "what": self.what,
            "where": self.where,
            "expected": self.expected,
            "got": self.got,
            "hint": self.hint,
        }

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.expected, self.got, self.hint))


def _rebuild(
    kind: type[ShipsightError], what: str, where: str | None, expected: str | None, got: str | None, hint: str | None
) -> ShipsightError:
    return kind(what, where=where, expected=expected, got=got, hint=hint)


class InputError(ShipsightError):
    """The caller gave something that cannot be used."""

    code = "input"


class UsageError(InputError):
    """An option or argument does not fit."""

    code = "usage"


class ImageError(InputError):
    """An image is not what it should be."""

    code = "image"


class ImageUnreadableError(ImageError):
    """An image is damaged or truncated."""

    code = "image-unreadable"


class ImageFormatError(ImageError):
    """An image has a format that is not accepted."""

    code = "image-format"


class ImageTooLargeError(ImageError):
    """An image has more pixels than the limit, told from its header before decoding."""

    code = "image-too-large"


class NotFoundError(InputError):
    """Nothing of that name is served."""

    code = "not-found"


class ConflictError(InputError):
    """What is to be changed is no longer what the caller saw: somebody else changed it meanwhile."""

    code = "conflict"


class SealedRequestError(InputError):
    """A sealed request is not accepted. Which step refused it is not told: it would help who tries."""

    code = "sealed-request-refused"


class SealingUnsupportedError(InputError):
    """A sealed request came where only plain ones are taken."""

    code = "sealing-unsupported"


class SealingRequiredError(InputError):
    """A plain request came for a model that takes sealed ones only."""

    code = "sealing-required"


class TensorError(InputError):
    """A tensor has another shape, type or range than the model takes."""

    code = "tensor"


class CertificateError(InputError):
    """A certificate, a key or a list of authorities cannot be used."""

    code = "certificate"


class CardError(InputError):
    """A card or card file does not describe a model."""

    code = "card"


class DatasetError(InputError):
    """A data set cannot be read as described."""

    code = "dataset"


class ArtefactError(ShipsightError):
    """A model file or bundle is not acceptable."""

    code = "artefact"


class CorruptError(ArtefactError):
    """A file is damaged: it cannot be what its maker wrote."""

    code = "corrupt"


class UnsupportedError(ArtefactError):
    """A file is sound, but not something this version handles."""

    code = "unsupported"


class UntrustedError(ArtefactError):
    """A file carries code or reaches outside itself."""

    code = "untrusted"


class SealedAnswerError(ArtefactError):
    """What came is not the sealed answer to what was asked: it was changed on the way, or is another's."""

    code = "sealed-answer-refused"


class SealingIdentityError(ArtefactError):
    """A list of sealing keys is not that of the server that is meant, or a pin is none."""

    code = "sealing-identity"


class TamperedError(ArtefactError):
    """A bundle differs from what its manifest promises."""

    code = "tampered"
    exit_code = 1


class UnnamedFileError(TamperedError):
    """A bundle holds a file that its manifest does not name."""

    code = "tampered-unnamed-file"


class MissingFileError(TamperedError):
    """A bundle lacks a file that its manifest names."""

    code = "tampered-missing-file"


class LinkError(TamperedError):
    """A bundle holds a link or a special file."""

    code = "tampered-link"


class EscapingPathError(TamperedError):
    """A manifest names a path that leaves the bundle."""

    code = "tampered-escaping-path"


class HashMismatchError(TamperedError):
    """A file's size or digest differs from the manifest."""

    code = "tampered-hash"


class AuditProofError(TamperedError):
    """An audit log, a checkpoint of it or a proof about it is not what was signed."""

    code = "tampered-audit-proof"


class AnswerIsNoError(ShipsightError):
    """The question was asked properly and the answer is no."""

    code = "no"
    exit_code = 1


class ReplayMismatchError(AnswerIsNoError):
    """This machine does not run the thing that was measured."""

    code = "replay-mismatch"


class AlertRefusedError(AnswerIsNoError):
    """A receiver answered that it does not take an alert, and would not if it were asked again."""

    code = "alert-refused"


class ParityError(AnswerIsNoError):
    """A variant differs from the source by more than its gate allows."""

    code = "parity"


class EnvironmentLackError(ShipsightError):
    """The environment lacks something that is needed here."""

    code = "environment"
    exit_code = 3


class MissingDependencyError(EnvironmentLackError):
    """A package, program or device is not installed; the hint says which extra brings it."""

    code = "environment-missing"


class SandboxError(EnvironmentLackError):
    """No way to isolate a process works on this machine."""

    code = "environment-sandbox"


class TrainingError(EnvironmentLackError):
    """A training ended without a result: no memory, no disk, or killed. What was done is kept."""

    code = "training-ended"


class AuditError(EnvironmentLackError):
    """The audit log cannot be written, so that what it would have to tell of is not done."""

    code = "audit-unavailable"


class LimitError(ShipsightError):
    """A limit on time, memory or size was reached."""

    code = "limit"


class StepError(ShipsightError):
    """A step that the operator added (`shipsight.steps`) raised, took too long, ended its process or gave garbage."""

    code = "step"


class AccessError(ShipsightError):
    """Something is not done for whoever asks."""

    code = "access"
    exit_code = 1


class AuthenticationError(AccessError):
    """Who asks is not known, or what they showed is not accepted. Which of it was wrong is not told."""

    code = "unauthenticated"


class StepUpError(AuthenticationError):
    """Who asks is known, but has to prove it again before something this sensitive is done."""

    code = "step-up"


class ForbiddenError(AccessError):
    """Who asks may not do this."""

    code = "forbidden"


class ServiceError(ShipsightError):
    """A server cannot answer now; the same request may succeed later.

    Attributes:
        retry_after_s: whole seconds after which to ask again; 1 where nobody knows better.
    """

    code = "service"
    exit_code = 1
    retry_after_s: int = 1


class OverloadedError(ServiceError):
    """What waits already would make the answer too late, so the request was not begun."""

    code = "overloaded"


class DeadlineError(ServiceError):
    """The answer's time passed before its turn came."""

    code = "deadline"


class RateLimitError(ServiceError):
    """A principal asked too often, or for more than its quota."""

    code = "rate-limit"


class NotReadyError(ServiceError):
    """A model is loading, failed its replay or is leaving."""

    code = "not-ready"


class EngineDiedError(ServiceError):
    """The worker process that runs a model's engine ended before it answered; it is being started again."""

    code = "engine-died"


class StreamLostError(ServiceError):
    """A camera or stream gave no frame for as long as it was waited for."""

    code = "stream-lost"


class InternalError(ShipsightError):
    """A bug in shipsight."""

    code = "internal"
    exit_code = 70
