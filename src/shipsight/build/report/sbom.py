# SPDX-License-Identifier: Apache-2.0
"""Renders `sbom.cdx.json`: what is in the bundle and what it needs to run, as CycloneDX 1.6.

Follows the CycloneDX 1.6 JSON schema (https://cyclonedx.org/docs/1.6/json/): the bundle is the subject, its model
files are components with hashes, the runtime libraries are components that the subject depends on. There is neither a
serial number nor a timestamp, both optional, so that the same bundle gives the same bytes. Unstable.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from shipsight import __version__
from shipsight.build.report.data import ReportData

__all__ = ["render_sbom"]

_RUNTIME = ("numpy", "onnxruntime", "opencv-python-headless", "openvino", "pyyaml", "shipsight", "simplejpeg")
_LICENCES = {
    "numpy": "BSD-3-Clause",
    "onnxruntime": "MIT",
    "opencv-python-headless": "Apache-2.0",
    "openvino": "Apache-2.0",
    "pyyaml": "MIT",
    "shipsight": "Apache-2.0",
    "simplejpeg": "MIT",
}


def _licences(name: str) -> list[dict[str, Any]]:
    """Writes an SPDX expression; what is no known identifier is given as a name, never guessed."""
    known = {"AGPL-3.0", "GPL-3.0", "Apache-2.0", "MIT", "BSD-3-Clause"}
    if not name.strip() or name == "unknown":
        return []
    first = name.split()[0]
    if first in known:
        return [{"license": {"id": first + ("-only" if "GPL" in first else "")}}]
    return [{"license": {"name": name}}]


def _libraries(environment: Mapping[str, Any]) -> list[dict[str, Any]]:
    versions = {"shipsight": __version__, **dict(environment.get("versions") or {})}
    found = []
    for name in _RUNTIME:
        version = versions.get(name)
        if version is None:
            continue
        reference = f"pkg:pypi/{name}@{version}"
        found.append(
            {
                "type": "library",
                "bom-ref": reference,
                "name": name,
                "version": str(version),
                "purl": reference,
                "licenses": _licences(_LICENCES[name]),
            }
        )
    return found


def _file(path: str, size_bytes: int, sha256: str) -> dict[str, Any]:
    return {
        "type": "machine-learning-model" if path.startswith("variants/") else "data",
        "bom-ref": f"file:{path}",
        "name": path,
        "hashes": [{"alg": "SHA-256", "content": sha256}],
        "properties": [{"name": "shipsight:size_bytes", "value": str(size_bytes)}],
    }


def render_sbom(data: ReportData) -> str:
    """Renders the bill of materials.

    Args:
        data: of the report; `card`, `environment` and `files` are read.

    Returns:
        JSON with sorted keys, to be written as UTF-8; the same data gives the same text.
    """
    card = data.card
    subject_reference = f"model:{card['name']}@{card['version']}"
    libraries = _libraries(data.environment)
    files = [_file(path, *data.files[path]) for path in sorted(data.files)]
    subject = {
        "type": "machine-learning-model",
        "bom-ref": subject_reference,
        "name": card["name"],
        "version": card["version"],
        "licenses": _licences(str(card.get("licence", "unknown"))),
        "modelCard": {"modelParameters": {"task": card["task"]}},
    }
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "shipsight", "version": __version__}]},
            "component": subject,
        },
        "components": [*files, *libraries],
        "dependencies": [
            {"ref": subject_reference, "dependsOn": [entry["bom-ref"] for entry in (*files, *libraries)]},
        ],
    }
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
