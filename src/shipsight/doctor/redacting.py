# SPDX-License-Identifier: Apache-2.0
"""Takes out of a text what the doctor did not say itself: paths, names of files, hosts, people and classes, addresses, pixels. Private.

A word stays where a text of the doctor's own source holds it (`vocabulary`), a number where it is one; anything else is replaced by a
word in brackets. Pure apart from reading that source.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from shipsight.doctor.vocabulary import compounds, said_runs, said_words

__all__ = ["Redactor"]

_NUMBER = r"[-+]?\d{1,9}(?:\.\d{1,9})?(?:e[-+]?\d{1,3})?"
_NUMERIC = re.compile(rf"{_NUMBER}(?:-\d{{1,6}}(?:\.\d{{1,6}})?)?|\d{{1,5}}\.\d{{1,5}}\.\d{{1,5}}")
_WHOLE = re.compile(r"[0-9]{1,9}")
_MOST_NUMBERS = 3  # in a key: more, or longer ones, could be anything written in digits
_WITH_UNIT = re.compile(rf"{_NUMBER}-?([A-Za-z]{{1,12}})")
_VARIANT = re.compile(
    r"(onnxruntime|openvino|litert|ncnn|tensorrt|pytorch)(-(fp32|fp16|bf16|int8|dynamic|mixed))*(-\d{1,5}(x\d{1,5})?)?"
)
_RATIO = re.compile(r"[(\[]?\d{1,9}(\.\d{1,9})?/\d{1,9}(\.\d{1,9})?[)\].,;:]*")
_PUNCTUATION = frozenset(
    " \n()[]{}<>,;:!?'\"%+=~&*|#$^-.`\u00b1\u00d7\u2192\u2264\u2265\u2013\u2014\u2026\u2212\u00b2\u00b0"
)
_LONGEST = 4_000


class Redactor:
    """Takes out of texts what the doctor did not say, and counts it.

    Args:
        class_names: of the model: replaced by ids.
        with_class_names: they stay.
    """

    def __init__(self, class_names: Sequence[str] = (), *, with_class_names: bool = False) -> None:
        self.taken = 0
        ids = {name.lower(): at for at, name in reversed(list(enumerate(class_names))) if re.search(r"[^\W\d]", name)}
        names = "|".join(re.escape(name) for name in sorted(ids, key=len, reverse=True))
        self._classes = re.compile(rf"(?<!\w)(?:{names})(?!\w)", re.IGNORECASE) if names else None
        self._ids = ids
        self._keeps_names = with_class_names

    def text(self, text: str) -> str:
        """Returns a text of which only numbers and words of the doctor's own are left."""
        text = text[:_LONGEST]
        if self._classes is None:
            return self._plain(text)
        # Names may hold spaces and anything else, so they are cut out before the rest is looked at word by word.
        pieces, end = [], 0
        for match in self._classes.finditer(text):
            name = match.group()
            pieces += [self._plain(text[end : match.start()]), name if self._keeps_names else self._by_id(name)]
            end = match.end()
        return "".join([*pieces, self._plain(text[end:])])

    def word(self, text: str) -> str | None:
        """Returns one word of the doctor's own, such as the id of a rule; None where it is none."""
        if text.lower() in said_words():
            return text
        self.taken += 1
        return None

    def key(self, text: str, other: str) -> str:
        """Returns a key of a figure whose parts are words of the doctor's own; `other` where it is none."""
        parts = text.split("_")
        is_short = sum(part.isdigit() for part in parts) <= _MOST_NUMBERS
        if is_short and all(_WHOLE.fullmatch(part) or part.lower() in said_words() for part in parts):
            return text
        self.taken += 1
        return other

    def _by_id(self, name: str) -> str:
        self.taken += 1
        return f"class {self._ids[name.lower()]}"

    def _plain(self, text: str) -> str:
        return "".join(run if run.isspace() else self._run(run) for run in re.split(r"([ \n]+)", text))

    def _run(self, run: str) -> str:
        """Looks at what stands between two spaces."""
        if "/" in run or "\\" in run:
            is_said = run.strip("`'\"(),.;:") in said_runs() or _RATIO.fullmatch(run)
            return run if is_said else self._instead("address" if "://" in run else "path")
        if "@" in run or run.count(":") > 1:
            return self._instead("address")
        pieces, end = [], 0
        for match in compounds(run):
            pieces += [self._marks(run[end : match.start()]), self._compound(match.group())]
            end = match.end()
        return "".join([*pieces, self._marks(run[end:])])

    def _compound(self, text: str) -> str:
        core = text.lstrip(".-")
        front = text[: len(text) - len(core)]
        unit = _WITH_UNIT.fullmatch(core)
        is_kept = (
            core.lower() in said_words()
            or _NUMERIC.fullmatch(core)
            or _VARIANT.fullmatch(core)
            or (unit is not None and unit.group(1).lower() in said_words())
        )
        return text if is_kept and core.isascii() else front + self._instead("name")

    def _marks(self, text: str) -> str:
        kept = "".join(one for one in text if one in _PUNCTUATION)
        self.taken += len(text) - len(kept)
        return kept

    def _instead(self, what: str) -> str:
        self.taken += 1
        return f"[{what}]"
