# SPDX-License-Identifier: Apache-2.0
"""Where recordings are kept: a folder of sealed files, an index, and a table of keys (`docs/formats/recording-store.md`).

A recording is there when its key, its file and its entry are: they are written in this order, so a process or a disk that fails in between
leaves none that can be opened and is not told. It is gone when its key is. One process writes; any may read and erase meanwhile. Leaves to
others: what is recorded (`recorder`), who may look (`reading`), who may erase (`erasing`). Stable.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from shipsight.errors import CorruptError, EnvironmentLackError, NotFoundError, UsageError
from shipsight.monitor.recording.enforcement import Enforcement
from shipsight.monitor.recording.index import Entry, Index
from shipsight.monitor.recording.keys import KeyTable, Place
from shipsight.monitor.recording.policy import Policy
from shipsight.monitor.recording.record import KEY_BYTES, Recording, open_recording, seal_recording

__all__ = ["NewRecording", "Store"]

_DAYS, _SUFFIX, _NEW = "days", ".sealed", ".new"


@dataclass(frozen=True)
class NewRecording:
    """A recording that is to be kept.

    Attributes:
        recording: it.
        subject: whom it is of, None where nothing says that.
        classes: that were found in it.
    """

    recording: Recording
    subject: str | None = None
    classes: frozenset[str] = frozenset()


class Store:
    """A folder of recordings.

    Args:
        folder: of it.
        key_file: of the key that wraps those of recordings, outside of the folder; made together with the folder.
        policy: that holds from now on; None for the one that does. With one, a folder is made where there is none.
        now: tells the time, UTC.
        is_restored: whether a lost index is made anew, for a backup to fill it.

    Raises:
        UsageError: the policy does not let it lie here, or the key lies inside it.
        EnvironmentLackError: there is no store, part of it is gone, or it cannot be used.
        CorruptError: it is damaged, or the key is another's.
    """

    def __init__(
        self,
        folder: Path,
        *,
        key_file: Path,
        policy: Policy | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        is_restored: bool = False,
    ) -> None:
        self.folder, self.now = folder.absolute(), now
        keys, index = self.folder / "keys.db", self.folder / "index.db"
        if key_file.absolute().resolve().is_relative_to(self.folder.resolve()):
            raise UsageError("the key of recordings lies among them", where=key_file, hint="Keep it elsewhere.")
        if not keys.exists() and not index.exists():
            self._make(policy)
        elif not keys.exists():
            hint = "Without its keys nothing in it opens: begin another."
            raise EnvironmentLackError("part of the store of recordings is gone", where=keys, hint=hint)
        elif not index.exists() and KeyTable(keys, key_file).places():  # else a process ended while it made both
            self._begin_restore(index, policy if is_restored else None)
        self.keys, self.index = KeyTable(keys, key_file), Index(index)
        held = policy or self.index.policy()
        if held is None:
            raise EnvironmentLackError("no policy has held here yet", where=index, hint="Give the policy.")
        self.enforcement = Enforcement(held)
        self.region = self.enforcement.check_place(self.folder)
        self.is_policy_new = policy is not None and self.index.follow(policy, now())
        self.finish_erasures()

    def _make(self, policy: Policy | None) -> None:
        if policy is None:
            raise EnvironmentLackError(
                "there are no recordings here",
                where=self.folder,
                hint="Start a server that records, or name the folder.",
            )
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise EnvironmentLackError(
                "recordings cannot be kept here", where=self.folder, got=error.strerror
            ) from error
        # Before anything is written there.
        Enforcement(policy).check_place(self.folder)

    def _begin_restore(self, index: Path, policy: Policy | None) -> None:
        """Lets a lost index be made anew; until a restore has ended nobody tidies up, which would destroy the keys of what is not listed."""
        if policy is None:
            raise EnvironmentLackError(
                "part of the store of recordings is gone",
                where=index,
                hint="Run: shipsight recordings restore FILE --policy FILE",
            )
        self._restoring.touch(mode=0o600)

    def end_restore(self) -> None:
        """Lets processes write again, where a restore made the index anew."""
        self._restoring.unlink(missing_ok=True)

    @property
    def _restoring(self) -> Path:
        return self.folder / "restoring"

    @property
    def policy(self) -> Policy:
        """That holds."""
        return self.enforcement.policy

    # --- writing

    @contextmanager
    def writer(self, *, tidies: bool = True) -> Iterator[None]:
        """Lets one process write.

        Args:
            tidies: whether it first removes what one before left unfinished; not for who brings back what was lost.

        Raises:
            UsageError: another process writes.
            EnvironmentLackError: the folder cannot be written, or a restore has not ended.
        """
        try:
            lock = os.open(self.folder / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EnvironmentLackError(
                "recordings cannot be kept here", where=self.folder, got=error.strerror
            ) from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError("another process records here", where=self.folder) from error
            if tidies:
                if self._restoring.exists():
                    raise EnvironmentLackError(
                        "a restore has not ended",
                        where=self.folder,
                        hint="Run: shipsight recordings restore FILE",
                    )
                self._tidy()
            yield
        finally:
            os.close(lock)

    def add(self, new: Sequence[NewRecording]) -> int:
        """Keeps recordings, all or none; returns their bytes. For who has `writer`.

        Raises:
            EnvironmentLackError: there is no room, or the disk fails.
        """
        keyed = [
            (one, Place(one.recording.label.id, one.recording.label.day), secrets.token_bytes(KEY_BYTES)) for one in new
        ]
        tags = [None if one.subject is None else self.keys.tag(one.subject) for one in new]
        self.keys.add([(place, tag, key) for (_, place, key), tag in zip(keyed, tags, strict=True)])
        try:
            sealed = [seal_recording(one.recording, key, store=self.keys.store) for one, _, key in keyed]
            self._write([(place, data) for (_, place, _), data in zip(keyed, sealed, strict=True)])
            entries = [Entry(one.recording.label, len(data)) for (one, _, _), data in zip(keyed, sealed, strict=True)]
            found = [(place.day, name) for one, place, _ in keyed for name in ("", *one.classes)]
            self.index.add(entries, found)
        except BaseException:
            self._take_back([place for _, place, _ in keyed])
            raise
        return sum(len(data) for data in sealed)

    def put_back(self, entry: Entry, sealed: bytes) -> None:
        """Keeps a recording whose key is here already, of a backup. For who has `writer`.

        Raises:
            NotFoundError: the key was destroyed.
            CorruptError: it was changed.
            EnvironmentLackError: there is no room, or the disk fails.
        """
        open_recording(sealed, self.keys.get(entry.label.id), entry.label, store=self.keys.store)
        self._write([(Place(entry.label.id, entry.label.day), sealed)])
        self.index.add([entry])

    def _write(self, files: Sequence[tuple[Place, bytes]]) -> None:
        folders = {self.path(place).parent for place, _ in files}
        try:
            for folder in (self.folder / _DAYS, *folders):
                folder.mkdir(exist_ok=True, mode=0o700)
            for place, data in files:
                path = self.path(place)
                new = path.with_suffix(_NEW)
                with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                new.replace(path)
            for folder in (*folders, self.folder / _DAYS):
                _sync_folder(folder)
        except OSError as error:
            raise EnvironmentLackError("recordings cannot be written", where=self.folder, got=error.strerror) from error

    def _take_back(self, places: Sequence[Place]) -> None:
        """Removes what was begun; what a full disk leaves is found when the next process begins to write."""
        with contextlib.suppress(OSError):
            for place in places:
                for path in (self.path(place), self.path(place).with_suffix(_NEW)):
                    path.unlink(missing_ok=True)
        with contextlib.suppress(EnvironmentLackError):
            self.keys.destroy(place.id for place in places)

    def _tidy(self) -> None:
        """Removes recordings that were begun, or erased, when a process ended.

        One whose file alone is gone stays listed: a disk that is not mounted must not cost the keys of what lies on it.
        """
        keyed = set(self.keys.places())
        listed = {Place(one.label.id, one.label.day) for one in self.index.entries()}
        for path in (self.folder / _DAYS).glob("*/*"):
            if path.suffix != _SUFFIX or Place(path.stem, path.parent.name) not in keyed & listed:
                path.unlink(missing_ok=True)
        if keyed - listed:
            self.keys.destroy(place.id for place in keyed - listed)
        if listed - keyed:
            self.index.remove(place.id for place in listed - keyed)

    # --- reading

    def path(self, place: Place) -> Path:
        """Returns where a recording's file is."""
        return self.folder / _DAYS / place.day / f"{place.id}{_SUFFIX}"

    def entries(
        self, *, since: datetime | None = None, until: datetime | None = None, model: str | None = None
    ) -> list[Entry]:
        """Returns what can be opened, oldest first; nothing whose time has passed, swept or not.

        Args:
            since: not before.
            until: before.
            model: of this one.
        """
        keyed = {place.id for place in self.keys.places()}
        return [
            one
            for one in self._lasting(self.index.entries(since=since, until=until, model=model))
            if one.label.id in keyed
        ]

    def expired(self) -> list[Entry]:
        """Returns entries whose time has passed, oldest first."""
        entries = self.index.entries()
        lasting = {one.label.id for one in self._lasting(entries)}
        return [one for one in entries if one.label.id not in lasting]

    def _lasting(self, entries: Sequence[Entry]) -> list[Entry]:
        then, now = {policy.digest: policy for _, policy in self.index.policies()}, self.now()
        return [
            one for one in entries if not self.enforcement.is_expired(one.label.at, now, then.get(one.label.policy))
        ]

    def entry(self, name: str) -> Entry:
        """Returns one.

        Raises:
            NotFoundError: there is none, or its time has passed.
        """
        found = self.index.get(name)
        if found is None or not self._lasting([found]):
            raise NotFoundError("no such recording, or its time has passed", got=name)
        return found

    def open(self, entry: Entry) -> Recording:
        """Opens a recording. Whoever calls this has looked whether it may be.

        Raises:
            NotFoundError: it was erased.
            CorruptError: it was changed.
        """
        key = self.keys.get(entry.label.id)
        return open_recording(self.sealed(entry), key, entry.label, store=self.keys.store)

    def has_file(self, entry: Entry) -> bool:
        """Whether the file of a recording is there."""
        return self.path(Place(entry.label.id, entry.label.day)).exists()

    def sealed(self, entry: Entry) -> bytes:
        """Returns a recording's file.

        Raises:
            NotFoundError: it is gone.
        """
        path = self.path(Place(entry.label.id, entry.label.day))
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise NotFoundError("erased, or its file is gone", where="recording", got=entry.label.id) from error
        except OSError as error:
            raise EnvironmentLackError("a recording cannot be read", where=path, got=error.strerror) from error

    # --- going

    def finish_erasure(self, name: str, places: Iterable[Place]) -> None:
        """Makes recordings go, of an erasure that was noted: first their keys, then files and entries.

        Raises:
            EnvironmentLackError: a part cannot be; the erasure stays pending, and is ended when the store is next opened.
        """
        places = list(places)
        self.keys.destroy(place.id for place in places)
        try:
            for place in places:
                self.path(place).unlink(missing_ok=True)
            for folder in {self.path(place).parent for place in places}:
                if folder.exists() and not any(folder.iterdir()):
                    with contextlib.suppress(OSError):  # another recording of that day has come meanwhile
                        folder.rmdir()
        except OSError as error:
            raise EnvironmentLackError("a recording's file cannot be removed", got=error.strerror) from error
        self.index.end_erasure(name, [place.id for place in places], self.now())

    def finish_erasures(self) -> None:
        """Ends erasures that a process left in the middle."""
        for name, told in self.index.pending():
            try:
                places = [Place(*reversed(one.split("/", 1))) for one in told]
            except TypeError as error:
                raise CorruptError("not an erasure", where=self.index.path, got=name) from error
            self.finish_erasure(name, places)


def _sync_folder(folder: Path) -> None:
    held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(held)
    finally:
        os.close(held)
