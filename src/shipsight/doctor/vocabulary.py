# SPDX-License-Identifier: Apache-2.0
"""Which words the doctor can say: those in the texts of its own source. All else in a text came from outside. Private.

An archive for others is made with this list of what may stand in it, and with no list of what may not: a name that nobody thought
of is left out because no rule says it. Invariant: where the source cannot be read, nothing is known and all words are left out.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

__all__ = ["compounds", "said_runs", "said_words"]

_ROOM = "shipsight.doctor"
_TECHNICAL = frozenset(
    [
        "shipsight",
        "onnxruntime",
        "openvino",
        "litert",
        "ncnn",
        "tensorrt",
        "pytorch",
        "class",
        "classes",
        "fp32",
        "fp16",
        "bf16",
        "int8",
        "uint8",
        "float32",
        "float16",
        "bfloat16",
        "yaml",
        "json",
        "npy",
        "accuracy",
        "speed",
    ]
)
_COMPOUND = re.compile(r"[\w.\-]*\w")


def compounds(text: str) -> Iterator[re.Match[str]]:
    """Finds words, with what joins their parts: letters, digits, `_`, `.` and `-`, ending in a letter or digit."""
    return _COMPOUND.finditer(text)


@cache
def said_words() -> frozenset[str]:
    """Returns every word that stands in a text of the doctor's source, in small letters; compounds whole."""
    found = {match.group().lstrip(".-").lower() for text in _texts() for match in compounds(text)}
    return frozenset(one for one in found if any(letter.isalpha() for letter in one)) | _TECHNICAL


@cache
def said_runs() -> frozenset[str]:
    """Returns what stands between spaces in those texts and holds a slash: `NCHW/NHWC`."""
    return frozenset(run.strip("`'\"(),.;:") for text in _texts() for run in text.split() if "/" in run)


@cache
def _texts() -> tuple[str, ...]:
    found: list[str] = []
    for source in _sources(resources.files(_ROOM)):
        tree = ast.parse(source.read_text(encoding="utf-8"))
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        found += [
            node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
        ]
    return tuple(found)


def _sources(folder: Traversable) -> Iterator[Traversable]:
    for one in folder.iterdir():
        if one.is_dir():
            yield from _sources(one)
        elif one.name.endswith(".py"):
            yield one
