# SPDX-License-Identifier: Apache-2.0
"""`shipsight doctor`: why a model is less accurate in production than its proof says, and an archive of that for asking others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shipsight.cli.doctor_show import print_diagnosis
from shipsight.cli.doctor_speed import examine_speed
from shipsight.cli.output import TerminalProgress, make_table, print_json, screen
from shipsight.errors import UsageError

__all__ = ["check_report", "doctor_app", "write_report"]

doctor_app = typer.Typer(help="Find what makes a model worse or slow in production.", no_args_is_help=True)
doctor_app.command("speed")(examine_speed)


@doctor_app.command("accuracy")
def examine_accuracy(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or a zip file.")],
    images: Annotated[list[Path] | None, typer.Option(help="Images of production, or a folder; repeatable.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Folder of YOLO label files for these images, or a data.yaml.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="What stands in production: a model, a checkpoint, or http(s)://... of a server.")
    ] = None,
    stages: Annotated[
        Path | None, typer.Option(help="Folder of what another pipeline recorded for the images at its stages.")
    ] = None,
    tensor: Annotated[
        Path | None, typer.Option(help="What another program fed its model for the images, .npy.")
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="What another program predicted for the images, .json.")
    ] = None,
    variant: Annotated[str | None, typer.Option(help="Variant; default: the bundle's own.")] = None,
    limit: Annotated[int, typer.Option(help="Images that are looked at, at most.")] = 64,
    seed: Annotated[int, typer.Option(help="Of what is drawn by chance.")] = 0,
    threads: Annotated[int | None, typer.Option(help="Engine threads; default: one per core.")] = None,
    only: Annotated[str | None, typer.Option(help="Names of examinations to make, comma-separated.")] = None,
    report: Annotated[Path | None, typer.Option(help="Page for people to write: doctor.html.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the page where it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Find why a model is less accurate in production than its proof says."""
    from shipsight.doctor import diagnose_accuracy

    check_report(report, force=force)
    with TerminalProgress(quiet=as_json) as progress:
        diagnosis = diagnose_accuracy(
            bundle,
            images=images or (),
            labels=labels,
            against=against,
            stages=stages,
            tensor=tensor,
            predictions=predictions,
            variant=variant,
            limit=limit,
            seed=seed,
            threads=threads,
            only=None if only is None else [name.strip() for name in only.split(",")],
            progress=progress,
        )
    print_diagnosis(diagnosis, as_json=as_json)
    write_report(diagnosis, report, as_json=as_json)
    if not diagnosis.is_well:
        raise typer.Exit(1)


@doctor_app.command("share")
def share(
    diagnosis: Annotated[Path, typer.Argument(metavar="DIAGNOSIS", help="File with what --json printed.")],
    out: Annotated[Path | None, typer.Option(help="Archive to write, .zip; default: beside the file.")] = None,
    with_class_names: Annotated[
        bool, typer.Option("--with-class-names", help="Keep the names of classes; else ids stand for them.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; show all that would go in.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the archive where it exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Make an archive of a diagnosis for asking others: no pixels, weights, paths or names of yours."""
    from shipsight.doctor.share import pack, read_diagnosis, redact

    target = diagnosis.with_suffix(".zip") if out is None else out
    shared = redact(read_diagnosis(diagnosis), with_class_names=with_class_names)
    members = shared.members()
    if not dry_run:
        _check_free(target, "--out", force=force)
        _write(target, pack(members))
    if as_json:
        whole = {"archive": None if dry_run else str(target), "left_out": shared.left_out}
        print_json({**whole, "members": {name: text.decode("utf-8") for name, text in members.items()}})
        return
    console = screen()
    if dry_run:
        for name, text in members.items():
            console.print(f"[bold]{name}[/]")
            console.print(text.decode("utf-8"), markup=False, soft_wrap=True)
    rows = [[name, str(len(text))] for name, text in members.items()]
    console.print(make_table(["goes in", "bytes"], rows))
    console.print(f"{shared.left_out} words, names and values were replaced or left out.")
    console.print(
        "Nothing was written." if dry_run else f"Read it before you send it: {target}", markup=False, soft_wrap=True
    )


def check_report(report: Path | None, *, force: bool) -> None:
    """Refuses a page that cannot be written, before minutes are spent.

    Raises:
        UsageError: it exists, or its folder does not.
    """
    if report is not None:
        _check_free(report, "--report", force=force)


def write_report(diagnosis: object, report: Path | None, *, as_json: bool) -> None:
    """Writes the page, where one is wanted, and says so to people."""
    from shipsight.doctor import Diagnosis
    from shipsight.doctor.page import render_page

    if report is None:
        return
    assert isinstance(diagnosis, Diagnosis)
    _write(report, render_page(diagnosis).encode("utf-8"))
    if not as_json:
        screen().print(f"\nPage: {report}", markup=False, soft_wrap=True)


def _check_free(path: Path, option: str, *, force: bool) -> None:
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(
            "the file cannot be written", where=option, expected="a file in a folder that exists", got=path
        )
    if path.exists() and not force:
        raise UsageError("the file is there already", where=path, hint="Give --force to replace it.")


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError("the file cannot be written", where=path, got=error.strerror) from error
