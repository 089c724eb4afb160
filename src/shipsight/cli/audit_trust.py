# SPDX-License-Identifier: Apache-2.0
"""What `audit verify` trusts: keys, and checkpoints that lay elsewhere. Private to `cli`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shipsight.access.audit.checkpoint import Signer, VerifierKey
from shipsight.access.audit.copies import read_checkpoints
from shipsight.access.audit.following import NewestFile
from shipsight.access.audit.reading import AuditReader
from shipsight.access.audit.witness_client import WitnessPlace, fetch_checkpoint
from shipsight.cli.audit_log import find_place
from shipsight.cli.audit_place import audit_key_path
from shipsight.cli.output import warn
from shipsight.errors import AuditError, EnvironmentLackError, UsageError

__all__ = ["elsewhere", "newest_here", "signer_key", "trusted_keys"]


def signer_key(audit: str | None, path: Path | None) -> VerifierKey:
    """Returns what verifies what the key file signs.

    Raises:
        AuditError: the log, or the file, is not there.
        EnvironmentLackError: the file cannot be used.
    """
    found = audit_key_path(path, find_place(audit))
    if not found.exists():
        raise AuditError(
            "the key that signs is not here", where=found, hint="Give --key, as `shipsight audit key` printed it."
        )
    return Signer.load(found).key


def trusted_keys(
    given: Sequence[str] | None, witnesses: Sequence[str] | None, audit: str | None, path: Path | None
) -> list[VerifierKey]:
    """Returns the keys that options trust; that of the key file where they name none of a log.

    Raises:
        UsageError: one is none.
        AuditError, EnvironmentLackError: as of `signer_key`.
    """
    keys = [VerifierKey.parse(one) for one in given or ()] or [signer_key(audit, path)]
    return keys + [WitnessPlace.parse(one).key for one in witnesses or ()]


def newest_here(given: Sequence[str] | None, audit: str | None, path: Path | None) -> list[str]:
    """Returns the newest checkpoint that this machine keeps beside the key, if that is what verifies; else none.

    Raises:
        EnvironmentLackError: it cannot be read.
    """
    text = None if given else NewestFile(audit_key_path(path, find_place(audit))).text()
    return [] if text is None else [text]


def elsewhere(files: Sequence[Path] | None, witnesses: Sequence[str] | None, reader: AuditReader | None) -> list[str]:
    """Returns checkpoints that lay elsewhere.

    Raises:
        UsageError: a file cannot be read, or holds none.
        EnvironmentLackError: a witness does not answer, or knows nothing of the log.
    """
    found: list[str] = []
    for path in files or ():
        try:
            texts = list(
                read_checkpoints(path, torn=lambda piece: warn("torn", f"a piece of no checkpoint: {piece[:80]!r}"))
            )
        except OSError as error:
            raise UsageError("not a file that can be read", where=path, got=error.strerror) from error
        if not texts:
            raise UsageError("holds no checkpoint", where=path)
        found += texts
    if witnesses and reader is None:
        raise UsageError("a witness is asked about a log", where="--archives-only", got="--witness")
    for text in witnesses or ():
        assert reader is not None
        place = WitnessPlace.parse(text)
        try:
            newest = fetch_checkpoint(place, reader.head().origin, [])
        except OSError as error:
            raise EnvironmentLackError("a witness does not answer", where=place.url, got=error) from error
        if newest is None:
            raise EnvironmentLackError("a witness knows nothing of this log", where=place.url, got=reader.head().origin)
        found.append(newest.text)
    return found
