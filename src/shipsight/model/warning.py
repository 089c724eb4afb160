# SPDX-License-Identifier: Apache-2.0
"""A warning: something a person should know that stops nothing.

Leaves to others: showing it (`cli`, `build.report`). Invariant: `code` is stable and lower-case with dashes, `text` is
one sentence for people. Stable.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BuildWarning"]


@dataclass(frozen=True)
class BuildWarning:
    """Something a person should know.

    Attributes:
        code: stable name of the kind of warning, for example `onnx-conf-baked`.
        text: what it is about, for people.
    """

    code: str
    text: str

    def to_dict(self) -> dict[str, str]:
        """Returns the warning as plain values."""
        return {"code": self.code, "text": self.text}
