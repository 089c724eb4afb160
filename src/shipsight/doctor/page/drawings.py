# SPDX-License-Identifier: Apache-2.0
"""Pictures of findings as the page takes them: a drawing is only let in where it can do nothing but be seen. Private.

Names of classes and files may stand in drawings, so each is read as XML and refused where it holds anything that is not on the
lists below; what is written is what was read, escaped anew.
"""

from __future__ import annotations

import base64
import re
from xml.etree import ElementTree as ET

from shipsight.errors import InternalError

__all__ = ["check_svg", "png_uri"]

_NAMESPACE = "{http://www.w3.org/2000/svg}"
_ELEMENTS = frozenset(
    [
        "svg",
        "g",
        "rect",
        "circle",
        "ellipse",
        "line",
        "path",
        "polyline",
        "polygon",
        "text",
        "tspan",
        "title",
        "desc",
        "defs",
        "clipPath",
        "linearGradient",
        "stop",
        "pattern",
    ]
)
_ATTRIBUTES = re.compile(
    r"x|y|x1|x2|y1|y2|dx|dy|cx|cy|r|rx|ry|d|width|height|points|viewBox|preserveAspectRatio|transform|class|role|id|offset|"
    r"opacity|fill|stroke|(fill|stroke|stop|text|font|dominant|clip|letter|vector|shape|aria|alignment|paint|pattern|gradient)[A-Za-z-]+"
)
_OUTSIDE = re.compile(r"url\s*\(\s*(?!#)|javascript:|data:|expression\s*\(|@import|\\", re.IGNORECASE)
_PNG = b"\x89PNG\r\n\x1a\n"


def check_svg(text: str) -> str:
    """Returns a drawing that can only be seen: no script, no link, nothing fetched, no style of its own.

    Args:
        text: one `<svg>` element.

    Raises:
        InternalError: it is none, or holds something else; a rule drew it wrong.
    """
    if "<!" in text or "<?" in text:
        raise InternalError("a drawing has a document type or an instruction", where="picture of a finding")
    try:
        root = ET.fromstring(text)  # noqa: S314 - no document type, so no entities
    except ET.ParseError as error:
        raise InternalError("a drawing is not well-formed", where="picture of a finding", got=error) from error
    for one in root.iter():
        one.tag = str(one.tag).removeprefix(_NAMESPACE)
        if one.tag not in _ELEMENTS:
            raise InternalError("a drawing holds what is not allowed", where="picture of a finding", got=one.tag[:40])
        for name, value in one.attrib.items():
            if not _ATTRIBUTES.fullmatch(name) or _OUTSIDE.search(value):
                raise InternalError("a drawing holds what is not allowed", where="picture of a finding", got=name[:40])
    if root.tag != "svg":
        raise InternalError("not a drawing", where="picture of a finding", expected="svg", got=root.tag)
    return ET.tostring(root, encoding="unicode")


def png_uri(data: bytes) -> str:
    """Returns pixels as an address that holds them.

    Raises:
        InternalError: it is no PNG file.
    """
    if not data.startswith(_PNG):
        raise InternalError("a picture is no PNG file", where="picture of a finding")
    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")
