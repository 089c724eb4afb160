# SPDX-License-Identifier: Apache-2.0
"""`shipsight bench`: how fast a bundle's variants are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shipsight.cli.output import TerminalProgress, make_table, number, print_json, screen, warn
from shipsight.errors import EnvironmentLackError
from shipsight.model import Variant

__all__ = ["bench_command"]


def bench_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or a zip file.")],
    variant: Annotated[list[str] | None, typer.Option(help="Variant; repeatable; default: all.")] = None,
    image: Annotated[Path | None, typer.Option(help="Image to predict; default: a drawn scene.")] = None,
    threads: Annotated[int | None, typer.Option(help="Engine threads; default: one per core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Measure latency, throughput, cold start and memory of a bundle's variants here."""
    from shipsight.build.measuring import open_variant
    from shipsight.build.timing_variants import time_variants
    from shipsight.model.bundle import open_bundle
    from shipsight.proof.environment import describe_environment
    from shipsight.proof.scenes import make_scene
    from shipsight.vision import decode_image

    opened = open_bundle(bundle)
    chosen = [opened.variant(name) for name in variant] if variant else list(opened.variants)
    pixels = make_scene(0) if image is None else decode_image(image)
    runnable: list[Variant] = []
    skipped: list[EnvironmentLackError] = []
    for one in chosen:
        try:
            open_variant(opened.variant_files(one.name), one, threads=threads).close()
        except EnvironmentLackError as error:
            if variant:
                raise
            skipped.append(error)
            continue
        runnable.append(one)
    rows: list[dict[str, Any]] = []
    if runnable:
        with TerminalProgress(quiet=as_json) as progress:
            progress.plan(1)
            progress.step(f"timing {len(runnable)} variants in turns")
            forms = [(one, opened.variant_files(one.name)) for one in runnable]
            speeds = time_variants(forms, opened.card, pixels, threads=threads, on_progress=progress.part)
        default = opened.default_variant.name
        rows = [{"name": one.name, "is_default": one.name == default, **speeds[one.name]} for one in runnable]
    if as_json:
        errors = [error.to_dict() for error in skipped]
        print_json({"bundle": str(bundle), "variants": rows, "skipped": errors, "environment": describe_environment()})
    else:
        _print(rows)
    for skip in skipped:
        warn(skip.code, str(skip))


def _print(rows: list[dict[str, Any]]) -> None:
    columns = ["  variant", "p50 ms", "p95 ms", "p99 ms", "engine p50 ms", "img/s", "cold start ms", "RSS MB", "steady"]
    table = [
        [
            ("* " if one["is_default"] else "  ") + one["name"],
            *(number(one["latency_ms"][p], 2) for p in ("p50", "p95", "p99")),
            number(one["engine_ms"]["p50"], 2),
            number(one["throughput_ips"], 1),
            number(one["cold_start_ms"], 0),
            number(one["memory_mb"], 0),
            "yes" if one["is_steady"] else "no",
        ]
        for one in rows
    ]
    screen().print(make_table(columns, table))
