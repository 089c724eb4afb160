# SPDX-License-Identifier: Apache-2.0
"""A budget for the memory of all models: what each holds, and who leaves where one more would be too much.

What a model holds is measured: the growth of resident memory, of this process and its children, while it is opened and
replayed. Before it was opened here once, twice its files stand in for that. Leaves to others: loading and closing
(`models`). Memory that was freed goes back to the machine: the C library keeps it otherwise. Stable. Source: proc(5).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from shipsight.errors import EnvironmentLackError, LimitError, NotReadyError

__all__ = [
    "Holder",
    "choose_leaving",
    "expected_bytes",
    "give_back_memory",
    "keep_large_blocks_apart",
    "resident_bytes",
]

T = TypeVar("T")
_PROC = Path("/proc")
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE_BLOCK_BYTES = 4 * 2**20  # above what each prediction takes and gives back: pixels, a raw output of 2.8 MB
_KEPT_BYTES = 64 * 2**20  # free at the end of the heap, for the next request
_OPENED_FORMS = 2  # a variant is opened twice (decision 6), and engines copy the weights


@dataclass(frozen=True, eq=False)
class Holder(Generic[T]):
    """Something that holds memory.

    Attributes:
        what: it is.
        bytes: that it holds.
        used_s: when it was last used, monotonic seconds.
        is_pinned: whether it never leaves.
        is_idle: whether it could leave now.
    """

    what: T
    bytes: int
    used_s: float
    is_pinned: bool = False
    is_idle: bool = True


def choose_leaving(holders: Sequence[Holder[T]], *, needs: int, limit: int, where: str) -> list[T]:
    """Returns who must leave, least recently used first, so that one more fits.

    Args:
        holders: all that hold memory now, without the one that comes.
        needs: bytes that it needs.
        limit: bytes that all may hold together.
        where: who comes, for messages.

    Raises:
        LimitError: it can never fit.
        NotReadyError: it does not fit now, since the others have work.
    """
    pinned = sum(one.bytes for one in holders if one.is_pinned)
    if pinned + needs > limit:
        raise LimitError(
            "the model does not fit into the memory for models",
            where=where,
            expected=f"at most {(limit - pinned) / 1e6:.0f} MB (of {limit / 1e6:.0f} MB, less those that always stay)",
            got=f"{needs / 1e6:.0f} MB",
            hint="Raise --memory-mb.",
        )
    leaving = []
    over = sum(one.bytes for one in holders) + needs - limit
    for one in sorted(holders, key=lambda one: one.used_s):
        if over > 0 and one.is_idle and not one.is_pinned:
            leaving.append(one.what)
            over -= one.bytes
    if over > 0:
        raise NotReadyError(
            "no memory is free for the model: the others have work",
            where=where,
            expected=f"{needs / 1e6:.0f} MB",
            got=f"{max(needs - over, 0) / 1e6:.0f} MB",
        )
    return leaving


def expected_bytes(files_bytes: int) -> int:
    """Returns what a model is expected to hold before it was measured here.

    The bundle's own `memory_mb` is no measure for that: it is the peak of a whole process that runs nothing else.
    """
    return _OPENED_FORMS * files_bytes


def resident_bytes() -> int:
    """Returns the resident memory of this process and of its children, and theirs.

    Raises:
        EnvironmentLackError: this system does not tell.
    """
    page = os.sysconf("SC_PAGESIZE")
    try:
        own = int((_PROC / "self/statm").read_text(encoding="ascii").split()[1])
    except OSError as error:
        raise EnvironmentLackError("this system does not tell what memory is held", where=_PROC, got=error) from error
    total = own
    for child in _descendants("self"):
        try:
            total += int((_PROC / child / "statm").read_text(encoding="ascii").split()[1])
        except (OSError, IndexError):
            continue  # it has ended meanwhile
    return total * page


def give_back_memory() -> None:
    """Asks the C library for the pages that were freed; elsewhere than on glibc there is nothing to ask."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


def keep_large_blocks_apart() -> None:
    """Lets large bodies and images go back to the machine as soon as they are freed, for as long as this process lives.

    glibc raises its limit for that with the first large block that is freed, up to 32 MB: one large request in each thread
    then leaves holes in each thread's heap. Elsewhere than on glibc there is nothing to set.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)  # setting one of the two would leave the other at 128 kB


def _glibc() -> ctypes.CDLL | None:
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return None
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


def _descendants(process: str) -> Iterator[str]:
    for told in (_PROC / process / "task").glob("*/children"):
        try:
            children = told.read_text(encoding="ascii").split()
        except OSError:
            continue  # the thread has ended meanwhile
        for child in children:
            yield child
            yield from _descendants(child)
