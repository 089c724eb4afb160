# SPDX-License-Identifier: Apache-2.0
"""A pickle read without being run: a symbolic machine that knows names and constants and calls nothing.

It refuses every pickle that does more than a checkpoint needs: classes outside the allow-list, functions outside the
short list of functions, a class called with arguments (checkpoints only make empty instances and set their state),
opcodes that torch does not write, a second pickle behind the first. What passes is then loaded by torch's own
restricted unpickler with the same allow-list (`_checkpoint`): two independent guards. Leaves to others: what the loaded
objects hold (`_attributes`). Private. Sources: pickletools.py (opcodes), torch/_weights_only_unpickler.py.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from shipsight.build.sources._allowed import CLASSES, FUNCTIONS, family_of
from shipsight.errors import CorruptError, LimitError, UnsupportedError, UntrustedError

__all__ = ["GlobalName", "name_globals", "walk_pickle"]

MAX_OPERATIONS = 20_000_000
_MAX_GLOBALS_SHOWN = 5


@dataclass(frozen=True)
class GlobalName:
    """A module's name that a pickle asks for."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class _Instance:
    """What came out of a call or was made by a class; its content is not followed."""

    kind: str


_MARK = object()
_OPAQUE = object()
Stack = list[Any]


def walk_pickle(data: bytes, *, where: str) -> frozenset[GlobalName]:
    """Checks a checkpoint's pickle.

    Args:
        data: the pickle.
        where: the file's name, for messages.

    Returns:
        The classes and functions it uses, all of them allowed.

    Raises:
        UntrustedError: it asks for or does something that no checkpoint needs; names the offending global.
        UnsupportedError: it belongs to another kind of network.
        CorruptError: it is not a pickle.
        LimitError: it has too many operations.
    """
    machine = _Machine(where)
    for count, (opcode, argument, position) in enumerate(_operations(data, where)):
        if count > MAX_OPERATIONS:
            raise LimitError("the pickle has too many operations", where=where, expected=f"<= {MAX_OPERATIONS}")
        if opcode == "STOP":
            if position + 1 != len(data):
                raise UntrustedError("a second pickle or other bytes follow the first", where=where)
            return machine.finish()
        machine.step(opcode, argument)
    raise CorruptError("the pickle has no end", where=where)


def name_globals(data: bytes) -> list[GlobalName]:
    """Lists all globals that a bare (not zipped) pickle, or several in a row, asks for; stops where it ends or breaks."""
    found: dict[GlobalName, None] = {}
    stream = io.BytesIO(data)
    texts: list[str] = []
    for _ in range(16):
        try:
            for opcode, argument, _position in pickletools.genops(stream):
                if opcode.name in ("GLOBAL", "INST"):
                    module, _, name = str(argument).partition(" ")
                    found[GlobalName(module, name)] = None
                elif opcode.name == "STACK_GLOBAL" and len(texts) >= 2:
                    found[GlobalName(*texts[-2:])] = None
                elif isinstance(argument, str):
                    texts.append(argument)
        except (ValueError, IndexError, UnicodeError, OverflowError, MemoryError):
            break
    return list(found)


def _operations(data: bytes, where: str) -> Iterator[tuple[str, Any, int]]:
    try:
        for opcode, argument, position in pickletools.genops(data):
            yield opcode.name, argument, position or 0
    except (ValueError, IndexError, UnicodeError, OverflowError) as error:
        raise CorruptError("the checkpoint's pickle is damaged", where=where, got=str(error)[:200]) from error


_CONSTANTS = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
}
_LITERALS = frozenset(
    {
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "LONG4",
        "INT",
        "LONG",
        "FLOAT",
        "BINFLOAT",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINBYTES",
        "SHORT_BINBYTES",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
    }
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_IGNORED = frozenset({"PROTO", "FRAME"})


class _Machine:
    def __init__(self, where: str) -> None:
        self._where = where
        self._stack: Stack = []
        self._memo: dict[int, Any] = {}
        self._used: dict[GlobalName, None] = {}
        self._other_families: dict[str, GlobalName] = {}
        self._steps: dict[str, Callable[[Any], None]] = {
            "GLOBAL": lambda argument: self._global(*str(argument).split(" ", 1)),
            "STACK_GLOBAL": lambda _: self._stack_global(),
            "REDUCE": lambda _: self._reduce(),
            "NEWOBJ": lambda _: self._new(),
            "BUILD": lambda _: self._build(),
            "BINPERSID": lambda _: self._persistent(),
            "MARK": lambda _: self._stack.append(_MARK),
            "TUPLE": lambda _: self._stack.append(tuple(self._pop_mark())),
            "EMPTY_TUPLE": lambda _: self._stack.append(()),
            "EMPTY_LIST": lambda _: self._stack.append(_Instance("list")),
            "EMPTY_DICT": lambda _: self._stack.append(_Instance("dict")),
            "EMPTY_SET": lambda _: self._stack.append(_Instance("set")),
            "APPEND": lambda _: self._fill(1),
            "SETITEM": lambda _: self._fill(2),
            "APPENDS": lambda _: self._fill(None),
            "SETITEMS": lambda _: self._fill(None),
            "ADDITEMS": lambda _: self._fill(None),
            "BINPUT": lambda argument: self._put(argument),
            "LONG_BINPUT": lambda argument: self._put(argument),
            "MEMOIZE": lambda _: self._put(len(self._memo)),
            "BINGET": lambda argument: self._get(argument),
            "LONG_BINGET": lambda argument: self._get(argument),
        }

    def step(self, opcode: str, argument: Any) -> None:  # noqa: ANN401 - pickletools gives any literal
        if opcode in _CONSTANTS:
            self._stack.append(_CONSTANTS[opcode])
        elif opcode in _LITERALS:
            self._stack.append(argument)
        elif opcode in _TUPLES:
            self._stack.append(tuple(reversed([self._pop() for _ in range(_TUPLES[opcode])])))
        elif opcode in self._steps:
            self._steps[opcode](argument)
        elif opcode in ("INST", "OBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID"):
            raise UntrustedError(
                "the pickle makes objects in a way no checkpoint does",
                where=self._where,
                got=opcode if argument is None else f"{opcode} {argument!s:.200}",
            )
        elif opcode not in _IGNORED:
            raise UnsupportedError(
                "the pickle uses an operation that torch.save does not", where=self._where, got=opcode
            )

    def finish(self) -> frozenset[GlobalName]:
        if self._other_families:
            family, name = next(iter(self._other_families.items()))
            raise UnsupportedError(
                f"this network is not handled: {family}",
                where=self._where,
                expected="YOLO11, YOLOv8 or YOLO26",
                got=str(name),
                hint="Export it to ONNX with its own tools and give that file with a card",
            )
        return frozenset(self._used)

    def _pop(self) -> Any:  # noqa: ANN401 - symbolic values are of any type
        if not self._stack:
            raise CorruptError("the checkpoint's pickle is damaged", where=self._where, got="its stack runs empty")
        return self._stack.pop()

    def _pop_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self._pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def _put(self, index: int) -> None:
        top = self._pop()
        self._stack.append(top)
        self._memo[index] = top

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise CorruptError("the checkpoint's pickle is damaged", where=self._where, got="an unknown memo")
        self._stack.append(self._memo[index])

    def _global(self, module: str, name: str = "") -> None:
        found = GlobalName(module, name)
        key = (module, name)
        if key in CLASSES or key in FUNCTIONS:
            self._used[found] = None
        elif (family := family_of(module, name)) is not None:
            self._other_families.setdefault(family, found)
        else:
            raise UntrustedError(
                "the checkpoint carries foreign code; it was not run",
                where=self._where,
                got=f"a reference to {str(found)[:200]!r}",
                hint="Do not load this file with other tools either, unless you trust who made it",
            )
        self._stack.append(found)

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise UntrustedError("the pickle computes the name of what it asks for", where=self._where)
        self._global(module, name)

    def _reduce(self) -> None:
        arguments, function = self._pop(), self._pop()
        if isinstance(function, GlobalName) and family_of(function.module, function.name) is not None:
            self._stack.append(_Instance("other"))
            return
        check = FUNCTIONS.get((function.module, function.name)) if isinstance(function, GlobalName) else None
        if check is None:
            what = str(function)[:200] if isinstance(function, GlobalName) else "something it made itself"
            raise UntrustedError(
                "the checkpoint carries foreign code; it was not run", where=self._where, got=f"a call of {what!r}"
            )
        if not isinstance(arguments, tuple) or not check(arguments):
            raise UntrustedError(
                "the pickle calls a function with arguments that no checkpoint has",
                where=self._where,
                got=f"a call of {str(function)!r}",
            )
        self._stack.append(_Instance(str(function)))

    def _new(self) -> None:
        arguments, kind = self._pop(), self._pop()
        known = isinstance(kind, GlobalName)
        if not known or arguments != () or (kind.module, kind.name) in FUNCTIONS:
            raise UntrustedError(
                "the pickle makes an object in a way no checkpoint does",
                where=self._where,
                got=str(kind)[:200] if known else "a class it made itself",
            )
        self._stack.append(_Instance(str(kind)))

    def _build(self) -> None:
        self._pop()
        target = self._pop()
        if not isinstance(target, _Instance):
            raise UntrustedError(
                "the pickle changes something it did not make", where=self._where, got=str(target)[:200]
            )
        self._stack.append(target)

    def _persistent(self) -> None:
        identity = self._pop()
        if not isinstance(identity, tuple) or len(identity) != 5 or identity[0] != "storage":
            raise UntrustedError("the pickle refers to something that is not a tensor's storage", where=self._where)
        self._stack.append(_Instance("storage"))

    def _fill(self, count: int | None) -> None:
        for _ in self._pop_mark() if count is None else [self._pop() for _ in range(count)]:
            pass
        target = self._pop()
        if not isinstance(target, _Instance):
            raise UntrustedError("the pickle fills something it did not make", where=self._where, got=str(target)[:200])
        self._stack.append(target)
