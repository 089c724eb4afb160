# SPDX-License-Identifier: Apache-2.0
"""`shipsight inspect`: what a bundle says of itself, after its hashes were checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shipsight.cli.output import make_table, number, print_json, screen, warn

__all__ = ["inspect_command"]


def inspect_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or a zip file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Show a bundle's card, variants and proof."""
    from shipsight.model.bundle import open_bundle

    opened = open_bundle(bundle)
    opened.verify_files()
    reference = opened.read_json("proof/reference.json")
    measured = opened.read_json("proof/measurements.json")
    whole = {
        "bundle": str(bundle),
        "digest": opened.digest,
        "card": opened.card.to_dict(),
        "default_variant": opened.default_variant.name,
        "variants": [
            {**one.to_dict(), "measured": measured["variants"].get(one.name), "files_bytes": _bytes(opened, one.name)}
            for one in opened.variants
        ],
        "reference": reference,
        "environment": opened.read_json("proof/environment.json"),
    }
    if as_json:
        print_json(whole)
        return
    _print(whole)


def _bytes(opened: Any, name: str) -> int:  # noqa: ANN401 - Bundle, imported lazily
    return sum(len(data) for data in opened.variant_files(name).values())


def _print(whole: dict[str, Any]) -> None:
    console = screen()
    card = whole["card"]
    names = card["class_names"]
    shown = ", ".join(names[:8]) + (f", … ({len(names)} classes)" if len(names) > 8 else "")
    height, width = card["input"]["size_hw"]
    facts = [
        ("model", f"{card['name']}, version {card['version']}"),
        ("task", f"{card['task']}: {shown}"),
        ("trained at", f"{height} x {width} px, {card['input']['colour']}, {card['input']['fit']}"),
        ("origin", f"{card['origin']['file_name']} ({card['origin']['architecture']})"),
        ("licence", card["licence"]),
        ("trained with", f"{card['training']['framework']}, {card['training']['date']}"),
        ("digest", whole["digest"]),
    ]
    for key, value in facts:
        console.print(f"[bold]{key:13}[/]", end="")
        console.print(value, markup=False, soft_wrap=True)
    rows = []
    for one in whole["variants"]:
        found = one["measured"] or {}
        metric = found.get("map50_95", found.get("top1"))
        rows.append(
            [
                ("* " if one["name"] == whole["default_variant"] else "  ") + one["name"],
                number(metric, 4),
                number((found.get("latency_ms") or {}).get("p50"), 2),
                number(one["files_bytes"] / 1e6, 1),
                str(found.get("outcome", "-")),
            ]
        )
    console.print()
    console.print(make_table(["  variant", "accuracy", "p50 ms at build", "MB", "outcome"], rows))
    for item in whole["reference"].get("warnings", []):
        warn(item["code"], item["text"])
