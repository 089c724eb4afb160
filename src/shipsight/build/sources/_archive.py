# SPDX-License-Identifier: Apache-2.0
"""A checkpoint's zip archive: read, checked, and written anew, so that torch never sees the file as it came.

Two readers of one zip can disagree on what it holds (two directories, names that differ between directory and entry,
overlapping members). Here the members that Python reads, with their checksums verified, are written into a fresh plain
archive, and only that is loaded. Leaves to others: what the pickle says (`_pickle_walk`). Private. Sources: APPNOTE.TXT
4.3 to 4.4; torch/serialization.py (names of members).
"""

from __future__ import annotations

import io
import re
import zipfile
from dataclasses import dataclass

from shipsight.errors import CorruptError, LimitError, UnsupportedError, UntrustedError

__all__ = ["CheckpointArchive", "read_archive"]

MAX_MEMBERS = 20_000
MAX_PICKLE_BYTES = 64 << 20
_NOTES = {"version", "byteorder", ".format_version", ".storage_alignment", ".data/serialization_id"}
_FLAG_UTF8, _FLAG_DESCRIPTOR = 0x800, 0x8


@dataclass(frozen=True)
class CheckpointArchive:
    """What a checkpoint's archive holds.

    Attributes:
        pickle: the one pickle.
        storages: storage key -> bytes.
        byte_order: `little` or `big`.
    """

    pickle: bytes
    storages: dict[str, bytes]
    byte_order: str

    def rewrite(self) -> io.BytesIO:
        """Returns a fresh archive with these members and nothing else."""
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("archive/data.pkl", self.pickle)
            archive.writestr("archive/byteorder", self.byte_order)
            for key, data in self.storages.items():
                archive.writestr(f"archive/data/{key}", data)
            archive.writestr("archive/version", "3\n")
        target.seek(0)
        return target


def read_archive(data: bytes, *, where: str) -> CheckpointArchive:
    """Reads and checks a checkpoint's archive.

    Args:
        data: the file.
        where: its name, for messages.

    Raises:
        CorruptError: not a zip archive, damaged, or members missing.
        UntrustedError: more than a checkpoint holds: another pickle, code, a name that leaves the archive.
        UnsupportedError: a TorchScript archive.
        LimitError: too many or too large members.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = _checked_members(archive, len(data), where)
            contents = {name: archive.read(info) for name, info in members.items()}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise CorruptError("the checkpoint's archive is damaged", where=where, got=error) from error
    storages = {name.removeprefix("data/"): content for name, content in contents.items() if name.startswith("data/")}
    order = contents.get("byteorder", b"little").decode("ascii", "replace").strip()
    if order not in ("little", "big"):
        raise CorruptError("the checkpoint's byte order is unknown", where=where, got=repr(order[:20]))
    return CheckpointArchive(contents["data.pkl"], storages, order)


def _checked_members(archive: zipfile.ZipFile, file_bytes: int, where: str) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    if not 1 <= len(infos) <= MAX_MEMBERS:
        raise LimitError("number of archive members", where=where, expected=f"1 to {MAX_MEMBERS}", got=len(infos))
    names = [info.filename for info in infos]
    if any("/code/" in f"/{name}" or name.endswith(("constants.pkl", ".py")) for name in names):
        if any(name.endswith("constants.pkl") for name in names):
            raise UnsupportedError(
                "this is a TorchScript program, not a checkpoint",
                where=where,
                hint="Give the trained .pt file, or export the model to ONNX",
            )
        raise UntrustedError("the archive carries source code", where=where, got=_show(names))
    root = names[0].split("/")[0]
    members: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = info.filename.removeprefix(f"{root}/")
        _check_member(info, name, where)
        if name in members:
            raise UntrustedError("two archive members have one name", where=where, got=repr(name))
        members[name] = info
    if "data.pkl" not in members:
        raise CorruptError("the archive is not a checkpoint: it holds no data.pkl", where=where, got=_show(names))
    if members["data.pkl"].file_size > MAX_PICKLE_BYTES:
        raise LimitError("the pickle is too large", where=where, expected=f"<= {MAX_PICKLE_BYTES} bytes")
    if sum(info.file_size for info in infos) > file_bytes:
        raise UntrustedError("archive members overlap or claim more bytes than the file has", where=where)
    return members


def _check_member(info: zipfile.ZipInfo, name: str, where: str) -> None:
    is_known = name == "data.pkl" or name in _NOTES or re.fullmatch(r"data/\d{1,9}", name)
    if not is_known or name == info.filename or info.orig_filename != info.filename:
        raise UntrustedError(
            "the archive holds a member that no checkpoint has",
            where=where,
            expected="data.pkl, data/NUMBER and torch's notes in one folder",
            got=repr(info.filename[:200]),
        )
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise UntrustedError("an archive member is compressed, which torch never does", where=where, got=repr(name))
    if info.flag_bits & ~(_FLAG_UTF8 | _FLAG_DESCRIPTOR):
        raise CorruptError("an archive member has strange flags", where=where, got=f"{name!r}: {info.flag_bits:#x}")


def _show(names: list[str]) -> str:
    return ", ".join(repr(name[:80]) for name in names[:8]) + (", ..." if len(names) > 8 else "")
