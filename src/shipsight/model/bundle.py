# SPDX-License-Identifier: Apache-2.0
"""The bundle: the folder (or zip file) that a model ships in, opened and read without trusting it.

Leaves to others: writing it (`model._writer`, offered here), what stands in `proof/` (`shipsight.proof`), signatures.
Invariants: opening compares the whole listing with the manifest; every byte handed out was hashed first, the very
bytes, so that nothing can be swapped between the check and the use; nothing is unpacked, unpickled or executed.
Stable; described in `docs/formats/bundle.md`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shipsight.errors import (
    CorruptError,
    EscapingPathError,
    HashMismatchError,
    MissingFileError,
    UnnamedFileError,
    UsageError,
)
from shipsight.model._stores import FolderStore, Store, open_store, read_manifest_bytes
from shipsight.model._writer import write_folder, write_zip
from shipsight.model.card import Card
from shipsight.model.manifest import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    FileEntry,
    GoldenInfo,
    Manifest,
    digest_of,
    parse_manifest,
)
from shipsight.model.variant import Variant

__all__ = ["Bundle", "open_bundle", "parse_json", "write_bundle", "zip_bundle"]

_LIMIT_SIGNATURE_BYTES = 2**20


@dataclass(frozen=True, eq=False)
class Bundle:
    """An opened bundle.

    Attributes:
        path: of the folder or zip file.
        manifest: what it holds.
        digest: its identity, the SHA-256 of `bundle.yaml`, lower-case hexadecimal.
    """

    path: Path
    manifest: Manifest
    digest: str
    _store: Store = field(repr=False)
    _entries: dict[str, FileEntry] = field(repr=False)

    @property
    def card(self) -> Card:
        """What the model is."""
        return self.manifest.card

    @property
    def variants(self) -> tuple[Variant, ...]:
        """The exported forms of the model."""
        return self.manifest.variants

    @property
    def default_variant(self) -> Variant:
        """The variant that is opened where none is named."""
        return self.variant(self.manifest.default_variant)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all files but the manifest and the signature, sorted."""
        return tuple(self._entries)

    def variant(self, name: str) -> Variant:
        """Returns a variant by name.

        Raises:
            UsageError: there is none of that name.
        """
        for variant in self.manifest.variants:
            if variant.name == name:
                return variant
        known = [variant.name for variant in self.manifest.variants]
        raise UsageError("no such variant", where=self.path, expected=f"one of {known}", got=repr(name))

    def read(self, name: str) -> bytes:
        """Returns a file's bytes, after they were found to be those that the manifest promises.

        Args:
            name: as in the manifest, for example `proof/reference.json`.

        Raises:
            MissingFileError: the manifest names no such file, or it is gone.
            LinkError: it is a link or a special file.
            HashMismatchError: its size or digest differs.
        """
        entry = self.entry(name)
        data = self._store.read(name, entry.size)
        if len(data) != entry.size:
            got = "more" if len(data) > entry.size else f"{len(data)} bytes"
            raise HashMismatchError("size differs", where=self.path / name, expected=f"{entry.size} bytes", got=got)
        digest = digest_of(data)
        if digest != entry.sha256:
            raise HashMismatchError("content differs", where=self.path / name, expected=entry.sha256, got=digest)
        return data

    def entry(self, name: str) -> FileEntry:
        """Returns what the manifest says of a file.

        Raises:
            MissingFileError: it names no such file.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise MissingFileError("the manifest names no such file", where=self.path, got=repr(name))
        return entry

    def pieces(self, name: str) -> Iterator[bytes]:
        """Yields a file's bytes in pieces of at most 1 MiB, the last one only once all were found to be those that are promised.

        What comes before it is not known to be right: whoever passes it on says beforehand how many bytes there will be, so that
        a file that was changed never looks whole.

        Args:
            name: as in the manifest.

        Raises:
            MissingFileError, LinkError, HashMismatchError: as `read`.
        """
        entry = self.entry(name)
        digest, size, last = hashlib.sha256(), 0, b""
        for piece in self._store.pieces(name, entry.size):
            if last:
                yield last
            digest.update(piece)
            size, last = size + len(piece), piece
            if size > entry.size:
                break
        found = digest.hexdigest()
        if (size, found) != (entry.size, entry.sha256):
            raise HashMismatchError("content differs", where=self.path / name, expected=entry.sha256, got=found)
        yield last

    def read_json(self, name: str) -> Any:  # noqa: ANN401 - JSON holds any value
        """Returns a JSON file's value, read as `read` does.

        Raises:
            CorruptError: it is not JSON, holds NaN or infinity, or a key twice.
        """
        return parse_json(self.read(name), where=name)

    def variant_files(self, name: str) -> dict[str, bytes]:
        """Returns the files of a variant by their names inside its folder, in the variant's order, all checked.

        Raises:
            UsageError: there is no variant of that name.
            TamperedError: as `read`.
        """
        return {file: self.read(f"variants/{name}/{file}") for file in self.variant(name).files}

    def read_signature(self) -> bytes | None:
        """Returns the bytes of `signature.json`, the one file that the manifest does not cover, or None."""
        if SIGNATURE_NAME not in self._store.sizes():
            return None
        data = self._store.read(SIGNATURE_NAME, _LIMIT_SIGNATURE_BYTES)
        if len(data) > _LIMIT_SIGNATURE_BYTES:
            raise CorruptError("file is too large", where=SIGNATURE_NAME, expected=f"at most {_LIMIT_SIGNATURE_BYTES}")
        return data

    def read_manifest(self) -> bytes:
        """Returns the bytes of `bundle.yaml`, after they were found to be those that were opened.

        Raises:
            HashMismatchError: it has changed since.
        """
        data = read_manifest_bytes(self._store)
        found = digest_of(data)
        if found != self.digest:
            where = self.path / MANIFEST_NAME
            raise HashMismatchError("changed since it was opened", where=where, expected=self.digest, got=found)
        return data

    def verify_files(self, *, progress: Callable[[int, int], None] | None = None) -> None:
        """Compares the listing again and hashes every file.

        Args:
            progress: called with bytes hashed so far and bytes in all.

        Raises:
            TamperedError: one of its kinds, naming the file.
        """
        self.read_manifest()
        _check_listing(self._store, self.manifest)
        total, done = sum(entry.size for entry in self.manifest.files), 0
        for entry in self.manifest.files:
            self.read(entry.name)
            done += entry.size
            if progress is not None:
                progress(done, total)


def open_bundle(path: Path | str, *, digest: str | None = None) -> Bundle:
    """Opens a bundle and compares its listing with its manifest; contents are hashed as they are read.

    Args:
        path: of a folder or of a zip file.
        digest: the bundle's identity where it is known from elsewhere; None takes whatever lies there.

    Raises:
        UsageError: there is no bundle.
        HashMismatchError: the manifest's digest is not the one named, or a file's size differs.
        UnnamedFileError, MissingFileError, LinkError, EscapingPathError: as their names say.
        UnsupportedError: a newer schema version.
        CorruptError: the manifest or the zip file cannot be what shipsight wrote.
        LimitError: it is larger than a bundle may be.
    """
    store = open_store(Path(path))
    try:
        data = read_manifest_bytes(store)
    except MissingFileError as error:
        raise UsageError("not a bundle", where=path, expected=f"a folder or zip file with {MANIFEST_NAME}") from error
    found = digest_of(data)
    if digest is not None and found != digest:
        raise HashMismatchError("not the bundle that was named", where=path, expected=digest, got=found)
    manifest = parse_manifest(data)
    _check_listing(store, manifest)
    return Bundle(
        path=store.path,
        manifest=manifest,
        digest=found,
        _store=store,
        _entries={entry.name: entry for entry in manifest.files},
    )


def _check_listing(store: Store, manifest: Manifest) -> None:
    sizes = store.sizes()
    named = {entry.name: entry.size for entry in manifest.files}
    for name in sizes:
        if _leaves_folder(name):
            raise EscapingPathError("a name leaves the bundle", where=store.path, got=repr(name))
        if name not in named and name not in (MANIFEST_NAME, SIGNATURE_NAME):
            raise UnnamedFileError("the manifest does not name this file", where=store.path, got=repr(name))
    for name, size in named.items():
        if name not in sizes:
            raise MissingFileError("the bundle lacks a file", where=store.path, got=repr(name))
        if sizes[name] != size:
            raise HashMismatchError(
                "size differs", where=store.path / name, expected=f"{size} bytes", got=f"{sizes[name]} bytes"
            )
    order = [MANIFEST_NAME, *named, *([SIGNATURE_NAME] if SIGNATURE_NAME in sizes else [])]
    if not isinstance(store, FolderStore) and list(sizes) != order:
        raise CorruptError("members are not in manifest order", where=store.path)


def _leaves_folder(name: str) -> bool:
    parts = name.rstrip("/").split("/")
    return any(part in ("", ".", "..") for part in parts) or any(letter in name for letter in "\\:\0")


def parse_json(data: bytes, *, where: str) -> Any:  # noqa: ANN401 - JSON holds any value
    """Reads JSON that means one thing: no NaN, no infinity, no key twice.

    Raises:
        CorruptError: it is anything else.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise ValueError("a key stands twice")
        return fields

    def refuse(text: str) -> object:
        raise ValueError(f"{text} is not a JSON number")

    try:
        return json.loads(data, object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise CorruptError("not readable as JSON", where=where, got=error) from error


def write_bundle(
    out: Path | str,
    files: Mapping[str, bytes | Path],
    *,
    card: Card,
    variants: tuple[Variant, ...],
    default_variant: str,
    golden: GoldenInfo,
    force: bool = False,
) -> Bundle:
    """Writes a bundle folder: it exists whole under its name or not at all, whatever kills the writer.

    Args:
        out: name of the folder.
        files: every file by its path in the bundle, as bytes or as a file to copy; order does not matter.
        card: what the model is.
        variants: exported forms; their files stand in `files` under `variants/<name>/`.
        default_variant: name of one of them.
        golden: what the golden set in `files` holds.
        force: whether a bundle that stands at `out` is replaced (in one step where the file system can).

    Returns:
        The bundle, opened.

    Raises:
        UsageError: something stands at `out` and `force` is not given, or it is not a bundle.
        EscapingPathError, CorruptError, CardError: the parts do not make a bundle.
        LimitError: a file is too large, or there are too many.
    """

    def manifest_of(entries: tuple[FileEntry, ...]) -> bytes:
        return Manifest(
            card=card, variants=tuple(variants), default_variant=default_variant, golden=golden, files=entries
        ).to_bytes()

    written = write_folder(Path(out), files, manifest_of, force=force)
    return open_bundle(written)


def zip_bundle(path: Path | str, out: Path | str, *, force: bool = False) -> Bundle:
    """Writes a bundle as a zip file, members stored in manifest order: the same bundle, the same bytes each time.

    Returns:
        The zipped bundle, opened.

    Raises:
        UsageError: something stands at `out` and `force` is not given.
        TamperedError: a file is not what the manifest promises.
        LimitError: the zip file would reach 4 GiB.
    """
    bundle = open_bundle(path)
    names = [MANIFEST_NAME, *bundle.names]
    signature = bundle.read_signature()

    def read(name: str) -> bytes:
        if name == MANIFEST_NAME:
            return bundle.read_manifest()
        return signature if name == SIGNATURE_NAME and signature is not None else bundle.read(name)

    write_zip(Path(out), [*names, *([] if signature is None else [SIGNATURE_NAME])], read, force=force)
    return open_bundle(out, digest=bundle.digest)
