# SPDX-License-Identifier: Apache-2.0
"""Damage with a fixed seed: the same in every run."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

__all__ = ["mutants"]

_NUMBERS = (
    b"0",
    b"-1",
    b"1",
    b"255",
    b"65536",
    b"2147483647",
    b"4294967295",
    b"9223372036854775808",
    b"9" * 30,
    b"1e9",
)
_SIZES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_PIECES = (
    b"\r\n",
    b"\n",
    b"\r\n\r\n",
    b"\0",
    b"\xff",
    b"--",
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b":",
    b",",
    b"%00",
    b"\xff\xd8",
    b"\xff\xda",
)


def _flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 8, 32))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _replace(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data))
    data[place : place + chance.randrange(1, 9)] = chance.randbytes(chance.randrange(1, 9))


def _truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _cut(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data))
    del data[place : place + chance.choice((1, 2, 4, 16, 256))]


def _double(data: bytearray, chance: random.Random) -> None:
    begin = chance.randrange(len(data))
    part = data[begin : begin + chance.choice((1, 4, 64, 1024))]
    data[begin:begin] = part * chance.choice((1, 2, 16))


def _insert(data: bytearray, chance: random.Random) -> None:
    place = chance.randrange(len(data) + 1)
    data[place:place] = chance.choice(_PIECES)


def _edit_number(data: bytearray, chance: random.Random) -> None:
    found = list(re.finditer(rb"\d+", bytes(data)))
    if found:
        one = chance.choice(found)
        data[one.start() : one.end()] = chance.choice(_NUMBERS)


def _edit_size(data: bytearray, chance: random.Random) -> None:
    width = chance.choice((1, 2, 4))
    place = chance.randrange(max(len(data) - width, 0) + 1)
    size = chance.choice(_SIZES) & (1 << 8 * width) - 1
    data[place : place + width] = size.to_bytes(width, chance.choice(("little", "big")))  # type: ignore[arg-type]


_WAYS: Sequence[Callable[[bytearray, random.Random], None]] = (
    *(_flip, _replace, _truncate, _cut, _double, _insert, _edit_number, _edit_size),
)


def mutants(seeds: Sequence[bytes], count: int, *, seed: int) -> Iterator[bytes]:
    """Yields damaged copies of the seeds, some spliced from two; half of the damage falls into the first 64 bytes."""
    chance = random.Random(seed)
    for number in range(count):
        data = bytearray(seeds[number % len(seeds)])
        if chance.random() < 0.1:
            other = chance.choice(seeds)
            data[chance.randrange(len(data) + 1) :] = other[chance.randrange(len(other)) :]
        for _ in range(chance.choice((1, 1, 2, 4))):
            if not data:
                break
            way = chance.choice(_WAYS)
            if chance.random() < 0.5 and len(data) > 64 and way is not _truncate:
                head = data[:64]
                way(head, chance)
                data[:64] = head
            else:
                way(data, chance)
        yield bytes(data)
