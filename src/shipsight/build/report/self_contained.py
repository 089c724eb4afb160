# SPDX-License-Identifier: Apache-2.0
"""What every self-contained page is made with: templates that escape all text, and a policy that allows its own style and script alone.

Leaves to others: what a page says. Stable inside the package: the doctor's page is made with it too.
"""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from typing import TYPE_CHECKING

from shipsight.errors import MissingDependencyError

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

__all__ = ["STYLE", "open_templates", "policy_of", "read_template", "trust"]

STYLE = ("shipsight.build.report", "report.css")
"""Room and name of the style that pages share."""


def open_templates(room: str) -> Environment:
    """Returns the templates of a room, with everything escaped unless it was passed through the filter `svg`.

    Args:
        room: package with a folder `templates`.

    Raises:
        MissingDependencyError: jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError(
            "jinja2 is not installed", where="report", hint="Install it with pip install 'shipsight[build]'"
        ) from error
    environment = Environment(
        loader=PackageLoader(room, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["svg"] = trust
    return environment


def read_template(room: str, name: str) -> str:
    """Returns a file of a room's folder `templates`."""
    return resources.files(room).joinpath("templates", name).read_text(encoding="utf-8")


def policy_of(style: str, script: str | None = None) -> str:
    """Returns the content security policy of a page that fetches nothing and runs nothing but `script`."""
    scripts = "" if script is None else f" script-src '{_digest(script)}';"
    return (
        f"default-src 'none'; img-src data:; style-src '{_digest(style)}';{scripts} base-uri 'none'; form-action 'none'"
    )


def trust(text: str) -> Markup:
    """Marks a text as one that needs no escaping: a file of ours, or a drawing whose parts were escaped one by one."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - see above


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
