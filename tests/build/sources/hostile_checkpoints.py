# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that nobody should open: pickles written opcode by opcode, and the archives they hide in."""

from __future__ import annotations

import io
import os
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

PROTO = b"\x80\x02"
STOP = b"."


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def global_(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return global_(module, name) + b"(" + b"".join(arguments) + b"tR"


def instance(module: str, name: str, state: bytes = b"}") -> bytes:
    return global_(module, name) + b")\x81" + state + b"b"


def dictionary(**items: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def archive(pickle_bytes: bytes, extra: dict[str, bytes] | None = None, *, root: str = "best") -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        file.writestr(f"{root}/data.pkl", pickle_bytes)
        file.writestr(f"{root}/version", "3\n")
        for name, data in (extra or {}).items():
            file.writestr(name, data)
    return target.getvalue()


class _Reduce:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._reduced = (function, arguments)

    def __reduce__(self) -> tuple[object, ...]:
        return self._reduced


def touching(canary: Path) -> dict[str, bytes]:
    """Returns disguise -> file content; each would create the canary if its code ran."""
    command = text(f"touch {canary}")
    source = text(f"open({str(canary)!r}, 'w')")
    system = PROTO + dictionary(model=call("posix", "system", command)) + STOP
    detection = "ultralytics.nn.tasks", "DetectionModel"
    reduced = pickle.dumps({"model": _Reduce(os.system, f"touch {canary}")}, protocol=2)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as file:
        member = tarfile.TarInfo("pickle")
        member.size = len(reduced)
        file.addfile(member, io.BytesIO(reduced))
    good = PROTO + dictionary(epoch=b"K\x01") + STOP
    nested = call("pickle", "loads", b"B" + len(reduced).to_bytes(4, "little") + reduced)
    return {
        "reduce-os-system": archive(reduced),
        "reduce-protocol-4": archive(pickle.dumps({"model": _Reduce(os.system, f"touch {canary}")}, protocol=4)),
        "builtins-eval": archive(PROTO + call("builtins", "eval", source) + STOP),
        "builtins-exec-python-2-name": archive(PROTO + call("__builtin__", "exec", source) + STOP),
        "getattr-chain": archive(
            PROTO + call("builtins", "getattr", call("builtins", "__import__", text("os")), text("system")) + STOP
        ),
        "pkgutil-resolve-name": archive(PROTO + call("pkgutil", "resolve_name", text("os:system")) + STOP),
        "torch-callable": archive(PROTO + call("torch.hub", "load", text("x/y"), text("z")) + STOP),
        "torch-load-again": archive(PROTO + call("torch.serialization", "load", text("/tmp/other.pt")) + STOP),
        "ultralytics-callable": archive(
            PROTO + call("ultralytics.utils.downloads", "safe_download", text("http://example.com")) + STOP
        ),
        "allowed-class-called": archive(
            PROTO + dictionary(model=global_(*detection) + b"(" + dictionary(activation=source) + b"tR") + STOP
        ),
        "allowed-class-made-with-arguments": archive(
            PROTO + dictionary(model=global_(*detection) + b"(" + source + b"t\x81") + STOP
        ),
        "inst-opcode": archive(PROTO + b"(" + command + b"iposix\nsystem\n" + STOP),
        "extension-code": archive(PROTO + b"\x82\x01" + STOP),
        "stack-global": archive(b"\x80\x04" + text("posix") + text("system") + b"\x93(" + command + b"tR" + STOP),
        "computed-global": archive(b"\x80\x04" + text("posix") + b"]\x93" + STOP),
        "build-on-class": archive(PROTO + global_(*detection) + dictionary(forward=source) + b"b" + STOP),
        "codecs-other-than-latin1": archive(PROTO + call("_codecs", "encode", source, text("rot13")) + STOP),
        "object-dtype": archive(PROTO + call("numpy", "dtype", text("O8")) + STOP),
        "nested-pickle": archive(PROTO + nested + STOP),
        "second-pickle-behind-stop": archive(good + system),
        "second-pickle-member": archive(good, {"best/other.pkl": system}),
        "hidden-data-pkl": archive(good, {"best/inner/data.pkl": system}),
        "bare-pickle": reduced,
        "bare-pickle-second": good + system,
        "legacy-tar": tar.getvalue(),
        "source-code-member": archive(good, {"best/code/model.py": b"import os"}),
        "foreign-setstate": archive(PROTO + instance("codeop", "Compile", dictionary(flags=b"K\x00")) + STOP),
    }
