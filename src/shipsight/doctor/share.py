# SPDX-License-Identifier: Apache-2.0
"""An archive of a diagnosis for asking others: findings and figures; no pixels, weights, paths, or names of yours.

Keys are taken by a list of those that may be shared, words of texts likewise (`redacting`): what is on no list stays at home.
Reads one file; writes none. Stable; `docs/formats/diagnosis.md`.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipsight.doctor.finding import Severity
from shipsight.doctor.redacting import Redactor
from shipsight.errors import UsageError

__all__ = ["Shared", "pack", "read_diagnosis", "redact"]

_LIMIT_BYTES = 32 * 2**20
_MOST = 300
_LARGEST = 10**15
_TEXTS = ("what", "evidence", "remedy", "command")
_PACKAGES = frozenset(
    [
        "python",
        "shipsight",
        "numpy",
        "onnxruntime",
        "onnxruntime-gpu",
        "openvino",
        "nncf",
        "onnx",
        "onnxslim",
        "torch",
        "opencv-python-headless",
        "simplejpeg",
        "faster-coco-eval",
        "ultralytics",
        "ultralytics-opencv-headless",
    ]
)
# The fourth part of a version and its local part are left out: four numbers may be an address, and a local part may be a name.
_VERSION = re.compile(r"(\d{1,5}(?:\.\d{1,5}){0,2}(?:(?:a|b|rc|\.post|\.dev)\d{1,4})?)(?:\.\d{1,4})?(?:\+.*)?")
_CPU_CLASS = re.compile(
    r"(x86-(amx|avx512-vnni|avx512|avx-vnni|avx2|sse4)|arm-(sve2|i8mm|dotprod|neon)|(x86_64|aarch64|arm64|armv7l)-plain)(\+bf16)?"
)
_SYSTEMS = frozenset({"Linux", "Windows", "Darwin", "x86_64", "AMD64", "aarch64", "arm64", "armv7l"})
_WHY = """What this archive holds: diagnosis.json, the findings and figures of `shipsight doctor`.
What it does not hold: pixels, pictures, weights, labels, names of models, files, folders, hosts and users, addresses, variables.
Words that the program did not write itself were replaced by [name], [path] or [address], classes by their ids unless asked otherwise.
"""


@dataclass(frozen=True)
class Shared:
    """What may be shown to others.

    Attributes:
        document: the diagnosis, keys of `docs/formats/diagnosis.md`.
        left_out: number of words and values that were replaced or left out.
    """

    document: Mapping[str, Any]
    left_out: int

    def members(self) -> dict[str, bytes]:
        """Returns the files of the archive."""
        text = json.dumps(self.document, indent=2, ensure_ascii=True, allow_nan=False)
        return {"README.txt": _WHY.encode("ascii"), "diagnosis.json": (text + "\n").encode("ascii")}


def read_diagnosis(path: Path) -> dict[str, Any]:
    """Reads what `shipsight doctor accuracy --json` printed.

    Raises:
        UsageError: there is no such file, or it is no diagnosis.
    """
    hint = "Give the file that shipsight doctor accuracy --json was written to."
    try:
        data = path.read_bytes() if path.stat().st_size <= _LIMIT_BYTES else b""
        document = json.loads(data)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError("no diagnosis", where=path, got=type(error).__name__, hint=hint) from error
    if not isinstance(document, dict) or not isinstance(document.get("findings"), list):
        raise UsageError("no diagnosis", where=path, expected="an object with findings", hint=hint)
    return document


def redact(document: Mapping[str, Any], *, with_class_names: bool = False) -> Shared:
    """Returns of a diagnosis what may be shown to others.

    Args:
        document: as `Diagnosis.to_dict` gives it; keys and types that it does not know are left out.
        with_class_names: names of classes stay; otherwise ids stand for them.
    """
    names = [name for name in _list(document.get("class_names"))[:100_000] if isinstance(name, str) and name]
    redactor = Redactor(names, with_class_names=with_class_names)
    told: dict[str, Any] = {
        "about": redactor.word(str(document.get("about"))),
        "images": _count(document.get("images")),
        "is_well": document.get("is_well") is True,
        "variant": redactor.text(_str(document.get("variant"))),
        "classes": len(names),
        "findings": [_finding(one, redactor) for one in _dicts(document.get("findings"))],
        "examined": [_examined(one, redactor) for one in _dicts(document.get("examined"))],
        "environment": _environment(document.get("environment")),
        "took_s": _number(document.get("took_s")),
    }
    if with_class_names:
        told["class_names"] = names
    return Shared(told, redactor.taken)


def pack(members: Mapping[str, bytes]) -> bytes:
    """Returns a zip archive of files; the same files give the same bytes, and no time or user of this machine is in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = 0o644 << 16
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, data)
    return buffer.getvalue()


def _finding(one: Mapping[str, Any], redactor: Redactor) -> dict[str, Any]:
    severity = one.get("severity")
    return {
        "rule": redactor.word(_str(one.get("rule"))),
        "severity": severity if severity in [known.value for known in Severity] else None,
        **{key: redactor.text(one[key]) if isinstance(one.get(key), str) else None for key in _TEXTS},
        "weight": _number(one.get("weight")),
        "certainty": _number(one.get("certainty")),
        "figures": _figures(one.get("figures"), redactor),
    }


def _examined(one: Mapping[str, Any], redactor: Redactor) -> dict[str, Any]:
    lacks = one.get("lacks")
    return {
        "name": redactor.word(_str(one.get("name"))),
        "title": redactor.text(_str(one.get("title"))),
        "took_s": _number(one.get("took_s")),
        "lacks": redactor.text(lacks) if isinstance(lacks, str) else None,
        "not_told": [redactor.text(told) for told in _list(one.get("not_told"))[:_MOST] if isinstance(told, str)],
        "figures": _figures(one.get("figures"), redactor),
        "rules": [redactor.word(rule) for rule in _list(one.get("rules"))[:_MOST] if isinstance(rule, str)],
    }


def _figures(figures: object, redactor: Redactor) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for at, (key, value) in enumerate(list(figures.items())[:_MOST] if isinstance(figures, dict) else []):
        values = [_figure(each, redactor) for each in value[:_MOST]] if isinstance(value, list) else None
        told[redactor.key(str(key), f"figure_{at}")] = _figure(value, redactor) if values is None else values
    return told


def _figure(value: object, redactor: Redactor) -> object:
    if isinstance(value, bool) or value is None:
        return value
    return redactor.text(value) if isinstance(value, str) else _number(value)


def _environment(environment: object) -> dict[str, Any]:
    given = environment if isinstance(environment, dict) else {}
    versions, cpu, limits, system = (_dict(given.get(key)) for key in ("versions", "cpu", "limits", "os"))
    found = {name: _VERSION.fullmatch(_str(text)) for name, text in versions.items() if name in _PACKAGES}
    cpu_class = _str(cpu.get("class"))
    return {
        "versions": {name: match.group(1) for name, match in found.items() if match is not None},
        "cpu": {
            "class": cpu_class if _CPU_CLASS.fullmatch(cpu_class) else None,
            "logical_cores": _count(cpu.get("logical_cores")),
            "usable_cores": _count(cpu.get("usable_cores")),
        },
        "limits": {"cpu_cores": _number(limits.get("cpu_cores"))},
        "os": {key: system.get(key) for key in ("system", "machine") if _str(system.get(key)) in _SYSTEMS},
    }


def _number(value: object) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # A whole number of hundreds of digits could carry anything; comparing it is safe, making a float of it is not.
    return value if -_LARGEST < value < _LARGEST else None


def _count(value: object) -> int | None:
    number = _number(value)
    return number if isinstance(number, int) else None


def _str(value: object) -> str:
    return value if isinstance(value, str) else ""


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: object) -> list[dict[str, Any]]:
    return [one for one in _list(value)[:_MOST] if isinstance(one, dict)]
