# SPDX-License-Identifier: Apache-2.0
"""The manifest of a bundle, `bundle.yaml`: what it holds, and the size and digest of every file.

Leaves to others: reading and writing the files themselves (`model.bundle`). Invariants: writing the same manifest
gives the same bytes; every path is one of `[A-Za-z0-9_][A-Za-z0-9._-]*` parts, so that no file system reads it in two
ways; every file under `variants/` belongs to a variant. Stable; described in `docs/formats/bundle.md`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from shipsight.errors import CardError, CorruptError, EscapingPathError, LimitError, UnsupportedError
from shipsight.model.card import Card
from shipsight.model.strict_yaml import dump_yaml, load_yaml
from shipsight.model.variant import Variant

__all__ = [
    "LIMIT_FILES",
    "LIMIT_FILE_BYTES",
    "LIMIT_MANIFEST_BYTES",
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "SIGNATURE_NAME",
    "FileEntry",
    "GoldenInfo",
    "Manifest",
    "check_paths",
    "digest_of",
    "parse_manifest",
]

MANIFEST_NAME = "bundle.yaml"
SIGNATURE_NAME = "signature.json"
SCHEMA_VERSION = 1
NEEDS_SHIPSIGHT = "0.1"
"""First release that reads what this one writes."""

LIMIT_MANIFEST_BYTES = 8 * 2**20
LIMIT_FILES = 10_000
LIMIT_FILE_BYTES = 2**32 - 1  # one file; also what a zip member without extensions can hold
_LIMIT_PATH = 240

_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_DEVICE_NAMES = frozenset(
    {"con", "prn", "aux", "nul"} | {f"com{i}" for i in range(10)} | {f"lpt{i}" for i in range(10)}
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEYS = ("schema_version", "needs_shipsight", "card", "variants", "default_variant", "golden", "files")


@dataclass(frozen=True, order=True)
class FileEntry:
    """One file of a bundle.

    Attributes:
        name: path inside the bundle, parts joined by `/`.
        size: in bytes.
        sha256: of its bytes, lower-case hexadecimal.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class GoldenInfo:
    """What the golden set holds.

    Attributes:
        kind: `images`, `synthetic` or `both`.
        images: number of inputs from the user's data.
        synthetic: number of inputs made by shipsight.
    """

    kind: str
    images: int
    synthetic: int


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds.

    Attributes:
        card: what the model is.
        variants: its exported forms, in the order in which they are listed.
        default_variant: name of the one that is opened where none is named.
        golden: what the golden set holds.
        files: every file but the manifest and the signature, sorted by name.
    """

    card: Card
    variants: tuple[Variant, ...]
    default_variant: str
    golden: GoldenInfo
    files: tuple[FileEntry, ...]

    def __post_init__(self) -> None:
        check_paths(entry.name for entry in self.files)
        _check_variants(self)

    def to_bytes(self) -> bytes:
        """Returns the manifest as it is written to `bundle.yaml`.

        Raises:
            CardError: the card holds a value that is not plain.
        """
        return dump_yaml(
            {
                "schema_version": SCHEMA_VERSION,
                "needs_shipsight": NEEDS_SHIPSIGHT,
                "card": self.card.to_dict(),
                "variants": [variant.to_dict() for variant in self.variants],
                "default_variant": self.default_variant,
                "golden": {
                    "kind": self.golden.kind,
                    "images": self.golden.images,
                    "synthetic": self.golden.synthetic,
                },
                "files": [{"name": entry.name, "size": entry.size, "sha256": entry.sha256} for entry in self.files],
            }
        )


def digest_of(data: bytes) -> str:
    """Returns the SHA-256 of bytes, lower-case hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def parse_manifest(data: bytes) -> Manifest:
    """Reads what `Manifest.to_bytes` wrote.

    Raises:
        LimitError: it is larger than any manifest may be.
        UnsupportedError: it is of a newer schema version; the message names the release that is needed.
        CorruptError: keys are unknown, missing or twice, or a value does not fit.
        EscapingPathError: it names a path that leaves the bundle, or two that are one on some file systems.
    """
    fields = load_yaml(data, where=MANIFEST_NAME, limit_bytes=LIMIT_MANIFEST_BYTES)
    if not isinstance(fields, dict):
        raise CorruptError("must be a mapping", where=MANIFEST_NAME, got=type(fields).__name__)
    _check_schema(fields)
    _check_keys(fields, _KEYS, MANIFEST_NAME)
    variants = _list_of(fields["variants"], "variants")
    try:
        card = Card.from_dict(fields["card"])
    except CardError as error:
        raise CorruptError(f"the card does not fit: {error}", where=MANIFEST_NAME) from error
    return Manifest(
        card=card,
        variants=tuple(Variant.from_dict(variant) for variant in variants),
        default_variant=_text(fields["default_variant"], "default_variant"),
        golden=_parse_golden(fields["golden"]),
        files=tuple(_parse_file(entry) for entry in _list_of(fields["files"], "files")),
    )


def _check_schema(fields: Mapping[str, Any]) -> None:
    version = fields.get("schema_version")
    if type(version) is not int or version < 1:
        raise CorruptError("no schema version", where=MANIFEST_NAME, expected="1 or more", got=repr(version))
    if version > SCHEMA_VERSION:
        needed = fields.get("needs_shipsight")
        named = isinstance(needed, str) and re.fullmatch(r"[0-9][0-9a-z.]{0,20}", needed)
        raise UnsupportedError(
            "the bundle is of a newer schema version",
            where=MANIFEST_NAME,
            expected=f"schema version {SCHEMA_VERSION}",
            got=version,
            hint=f"Install shipsight {needed} or newer"
            if named
            else f"Install a shipsight that reads bundle schema version {version}",
        )


def _check_keys(fields: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    unknown, missing = sorted(set(fields) - set(keys)), sorted(set(keys) - set(fields))
    if unknown or missing:
        raise CorruptError("keys do not fit", where=where, expected=keys, got=f"unknown {unknown}, missing {missing}")


def _list_of(value: object, where: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > LIMIT_FILES:
        raise CorruptError("must be a list", where=f"{MANIFEST_NAME} {where}", got=type(value).__name__)
    return value


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise CorruptError("must be a string", where=f"{MANIFEST_NAME} {where}", got=repr(value)[:80])
    return value


def _count(value: object, where: str, limit: int) -> int:
    if type(value) is not int or not 0 <= value <= limit:
        raise CorruptError(
            "must be a number", where=f"{MANIFEST_NAME} {where}", expected=f"0 to {limit}", got=repr(value)[:80]
        )
    return value


def _parse_golden(value: object) -> GoldenInfo:
    if not isinstance(value, dict):
        raise CorruptError("must be a mapping", where=f"{MANIFEST_NAME} golden", got=type(value).__name__)
    _check_keys(value, ("kind", "images", "synthetic"), f"{MANIFEST_NAME} golden")
    if value["kind"] not in ("images", "synthetic", "both"):
        raise CorruptError("unknown kind", where=f"{MANIFEST_NAME} golden.kind", got=repr(value["kind"])[:80])
    return GoldenInfo(
        kind=value["kind"],
        images=_count(value["images"], "golden.images", 10_000),
        synthetic=_count(value["synthetic"], "golden.synthetic", 10_000),
    )


def _parse_file(value: object) -> FileEntry:
    if not isinstance(value, dict):
        raise CorruptError("must be a mapping", where=f"{MANIFEST_NAME} files", got=type(value).__name__)
    _check_keys(value, ("name", "size", "sha256"), f"{MANIFEST_NAME} files")
    digest = _text(value["sha256"], "files.sha256")
    if not _SHA256.fullmatch(digest):
        raise CorruptError("not a SHA-256", where=f"{MANIFEST_NAME} files.sha256", got=repr(digest)[:80])
    name = _text(value["name"], "files.name")
    return FileEntry(
        name=name, size=_count(value["size"], f"files {name[:100]!r} size", LIMIT_FILE_BYTES), sha256=digest
    )


def check_paths(names: Iterable[str]) -> None:
    """Holds that the names are sorted, each once, stay inside a folder and are told apart by every file system.

    Raises:
        EscapingPathError: a name is not made of plain parts, or two differ only in case, or one is another's folder.
        CorruptError: they are not sorted, or one stands twice, or one is the manifest's or the signature's own.
        LimitError: there are too many.
    """
    previous = ""
    seen: dict[str, tuple[str, bool]] = {}  # case-folded path -> (as written, whether it is a file)
    for count, name in enumerate(names, start=1):
        if count > LIMIT_FILES:
            raise LimitError("too many files", where=MANIFEST_NAME, expected=f"at most {LIMIT_FILES}")
        _check_path(name)
        if name <= previous:
            raise CorruptError("files must be sorted by name, each once", where=MANIFEST_NAME, got=repr(name))
        previous = name
        parts = name.split("/")
        for depth in range(1, len(parts) + 1):
            path, is_file = "/".join(parts[:depth]), depth == len(parts)
            known = seen.setdefault(path.casefold(), (path, is_file))
            if known != (path, is_file):
                raise EscapingPathError(
                    "two names are one where case does not count", where=MANIFEST_NAME, got=f"{known[0]!r}, {path!r}"
                )


def _check_path(name: str) -> None:
    parts = name.split("/")
    plain = len(name) <= _LIMIT_PATH and len(parts) <= 8 and all(_PART.fullmatch(part) for part in parts)
    if not plain or any(part.endswith(".") or part.split(".")[0].lower() in _DEVICE_NAMES for part in parts):
        raise EscapingPathError(
            "not a path inside the bundle",
            where=MANIFEST_NAME,
            expected="parts of ASCII letters, digits, '_', '-' and '.', joined by '/'",
            got=repr(name[:_LIMIT_PATH]),
        )
    if name.casefold() in (MANIFEST_NAME, SIGNATURE_NAME):
        raise CorruptError("the manifest cannot name this file", where=MANIFEST_NAME, got=repr(name))


def _check_variants(manifest: Manifest) -> None:
    names = [variant.name for variant in manifest.variants]
    if len(set(names)) != len(names):
        raise CorruptError("a variant stands twice", where=MANIFEST_NAME, got=names)
    if manifest.default_variant not in names:
        raise CorruptError(
            "the default variant is not there", where=MANIFEST_NAME, expected=names, got=manifest.default_variant
        )
    wanted = {f"variants/{variant.name}/{file}" for variant in manifest.variants for file in variant.files}
    listed = {entry.name for entry in manifest.files if entry.name.startswith("variants/")}
    if wanted != listed or not all(variant.files for variant in manifest.variants):
        raise CorruptError(
            "files and variants do not fit together",
            where=MANIFEST_NAME,
            got=f"not listed {sorted(wanted - listed)[:5]}, of no variant {sorted(listed - wanted)[:5]}",
        )
