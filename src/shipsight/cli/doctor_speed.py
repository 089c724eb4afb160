# SPDX-License-Identifier: Apache-2.0
"""`shipsight doctor speed`: why a model is slower than it could be, on this machine or behind an address."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shipsight.cli.doctor_show import print_diagnosis
from shipsight.cli.output import TerminalProgress
from shipsight.cli.promote import CaOption, KeyFileOption, read_key
from shipsight.errors import UsageError

__all__ = ["examine_speed"]

_SECONDS = 40.0


def examine_speed(
    bundle: Annotated[
        str, typer.Argument(metavar="BUNDLE|URL", help="Bundle: a folder or a zip file; or http(s)://HOST/MODEL.")
    ],
    images: Annotated[list[Path] | None, typer.Option(help="Images of production, or a folder; repeatable.")] = None,
    variant: Annotated[str | None, typer.Option(help="Variant; default: the bundle's own.")] = None,
    threads: Annotated[
        int | None, typer.Option(help="Engine threads as production sets them; default: one per core.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Seconds that it may take, roughly.")] = _SECONDS,
    seed: Annotated[int, typer.Option(help="Of what is drawn by chance.")] = 0,
    only: Annotated[str | None, typer.Option(help="Names of examinations to make, comma-separated.")] = None,
    key_file: KeyFileOption = None,
    ca: CaOption = None,
    report: Annotated[Path | None, typer.Option(help="Page for people to write: doctor.html.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the page where it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Find why a model is slower than it could be, each gain measured."""
    # The app that this command hangs on is made there.
    from shipsight.cli.doctor import check_report, write_report
    from shipsight.doctor.speed import diagnose_server_speed, diagnose_speed

    check_report(report, force=force)
    is_server = bundle.startswith(("http://", "https://"))
    mine = {"--variant": variant, "--threads": threads, "--only": only}
    theirs = {"--key-file": key_file, "--ca": ca}
    given = [name for name, value in (mine if is_server else theirs).items() if value is not None]
    if given:
        meant = "a bundle" if is_server else "a server"
        raise UsageError(f"an option that is for {meant}", where=", ".join(given), got=bundle.rpartition("@")[2])
    with TerminalProgress(quiet=as_json) as progress:
        if is_server:
            diagnosis = diagnose_server_speed(
                bundle,
                images=images or (),
                seconds=seconds,
                seed=seed,
                key=read_key(key_file),
                ca=ca,
                progress=progress,
            )
        else:
            diagnosis = diagnose_speed(
                bundle,
                images=images or (),
                variant=variant,
                threads=threads,
                seconds=seconds,
                seed=seed,
                only=None if only is None else [name.strip() for name in only.split(",")],
                progress=progress,
            )
    print_diagnosis(diagnosis, as_json=as_json)
    write_report(diagnosis, report, as_json=as_json)
    if not diagnosis.is_well:
        raise typer.Exit(1)
