# SPDX-License-Identifier: Apache-2.0
"""The small part of YAML that a manifest is written in: one way to write, nothing surprising to read.

Written: block mappings in the order given, string values always in double quotes, lists of numbers on one line, so
that the same data give the same bytes. Read: mappings with string keys, sequences, strings, integers, floats, booleans
and null; no anchors, aliases, tags, directives, merge keys, dates or further documents, no key twice, limits on bytes,
depth and nodes. Stable inside the package: files that people write are read with it too. Source: YAML 1.1 (what PyYAML parses), sections 5.1, 5.6 and 10.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from shipsight.errors import CardError, CorruptError, LimitError

__all__ = ["dump_yaml", "load_yaml"]

_LIMIT_DEPTH = 24
_LIMIT_NODES = 500_000
_LIMIT_KEY = 256
_PLAIN_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none"})
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,30})")
_FLOAT = re.compile(r"-?[0-9]{1,40}\.[0-9]{0,40}(e[+-][0-9]{1,3})?")
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_PARSER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def dump_yaml(data: Mapping[str, Any]) -> bytes:
    """Writes plain values as UTF-8 YAML, the same bytes for the same values in the same order.

    Raises:
        CardError: a value is not a string, integer, finite float, boolean, None, list or mapping with string keys.
    """
    return ("\n".join(_lines(data, 0, "") if data else ["{}"]) + "\n").encode()


def _lines(value: object, indent: int, where: str) -> Iterator[str]:
    pad = " " * indent
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _entry(f"{pad}{_key(key, where)}:", item, indent, f"{where}.{key}")
    elif isinstance(value, Sequence):
        for position, item in enumerate(value):
            place = f"{where}[{position}]"
            if not _is_nested(item):
                yield f"{pad}- {_inline(item, place)}"
            elif isinstance(item, Mapping):  # the first key stands on the line of the dash
                first, *others = _lines(item, indent + 2, place)
                yield f"{pad}- {first[indent + 2 :]}"
                yield from others
            else:
                yield f"{pad}-"
                yield from _lines(item, indent + 2, place)


def _entry(head: str, item: object, indent: int, where: str) -> Iterator[str]:
    if _is_nested(item):
        yield head
        yield from _lines(item, indent + 2, where)
    else:
        yield f"{head} {_inline(item, where)}"


def _is_nested(value: object) -> bool:
    if isinstance(value, Mapping):
        return bool(value)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return False
    return any(isinstance(item, bool) or not isinstance(item, int | float) for item in value)


def _inline(value: object, where: str) -> str:
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return "[" + ", ".join(_inline(item, where) for item in value) + "]"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and type(value) is int and abs(value) < 10**30:
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return _write_float(float(value))
    if isinstance(value, str):
        return _quote(str(value), where)
    raise CardError("a value cannot be written to a manifest", where=where.lstrip("."), got=repr(value)[:120])


def _write_float(value: float) -> str:
    text = repr(value)
    mantissa, sign, exponent = text.partition("e")
    if not sign:
        return text
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}e{exponent}"  # YAML 1.1 wants the dot


def _key(key: object, where: str) -> str:
    if not isinstance(key, str) or len(key) > _LIMIT_KEY:
        raise CardError("a key must be a short string", where=where.lstrip("."), got=repr(key)[:120])
    return key if _PLAIN_KEY.fullmatch(key) and key.lower() not in _WORDS else _quote(key, where)


def _quote(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CardError("a string is not Unicode text", where=where.lstrip("."), got=repr(text)[:120]) from error
    quoted = json.dumps(text, ensure_ascii=False)
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def load_yaml(data: bytes, *, where: str, limit_bytes: int) -> object:
    """Reads one document of the subset.

    Args:
        data: UTF-8 bytes.
        where: name of the file, for messages.
        limit_bytes: most bytes accepted.

    Raises:
        LimitError: more bytes, nodes or depth than allowed.
        CorruptError: not UTF-8, not YAML, or outside the subset.
    """
    if len(data) > limit_bytes:
        raise LimitError("file is too large", where=where, expected=f"at most {limit_bytes} bytes", got=len(data))
    try:
        return _Builder(where).build(yaml.parse(data.decode(), Loader=_PARSER))
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise CorruptError("not readable as YAML", where=where, got=" ".join(str(error).split())) from error


class _Builder:
    """Builds plain values from parser events, without recursion."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._stack: list[tuple[dict[str, Any] | list[Any], list[str]]] = []  # container, its pending key
        self._documents = 0
        self._nodes = 0
        self._root: object = None

    def build(self, events: Iterator[yaml.Event]) -> object:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._start_document(event)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._stack.pop()
            elif isinstance(event, yaml.NodeEvent):
                self._add(event)
        if not self._documents:
            raise self._refusal("is empty")
        return self._root

    def _start_document(self, event: yaml.DocumentStartEvent) -> None:
        self._documents += 1
        if self._documents > 1 or event.version or event.tags:
            raise self._refusal("directives and further documents are not allowed", event)

    def _add(self, event: yaml.NodeEvent) -> None:
        self._nodes += 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None or getattr(event, "tag", None) is not None:
            raise self._refusal("anchors, aliases and tags are not allowed", event)
        if isinstance(event, yaml.ScalarEvent):
            self._place(event, self._scalar(event), is_container=False)
            return
        if len(self._stack) >= _LIMIT_DEPTH or self._nodes > _LIMIT_NODES:
            raise LimitError("nested too deeply or too many values", where=self._where)
        container: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._place(event, container, is_container=True)
        self._stack.append((container, []))

    def _place(self, event: yaml.NodeEvent, value: object, *, is_container: bool) -> None:
        if self._nodes > _LIMIT_NODES:
            raise LimitError("too many values", where=self._where)
        if not self._stack:
            self._root = value
            return
        container, pending = self._stack[-1]
        if isinstance(container, list):
            container.append(value)
        elif pending:
            container[pending.pop()] = value
        elif is_container or not isinstance(value, str) or value in container or value == "<<":
            raise self._refusal("keys must be strings, each once", event, got=repr(value)[:80])
        else:
            pending.append(value)

    def _scalar(self, event: yaml.ScalarEvent) -> str | int | float | bool | None:
        text: str = event.value
        if not event.implicit[0]:  # quoted or a block scalar
            return text
        if text in ("null", "true", "false"):
            return {"null": None, "true": True, "false": False}[text]
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text) and math.isfinite(float(text)):
            return float(text)
        if not re.match(r"[A-Za-z_]", text) or text.lower() in _WORDS:
            raise self._refusal("this value must stand in quotes", event, got=repr(text)[:80])
        return text

    def _refusal(self, what: str, event: yaml.Event | None = None, *, got: str | None = None) -> CorruptError:
        mark = None if event is None else event.start_mark
        return CorruptError(what, where=self._where if mark is None else f"{self._where} line {mark.line + 1}", got=got)
