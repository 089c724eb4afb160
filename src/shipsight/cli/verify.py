# SPDX-License-Identifier: Apache-2.0
"""`shipsight verify`: are these the files that were built, and does this machine run what was measured?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shipsight.cli.output import TerminalProgress, make_table, print_json, screen, warn
from shipsight.errors import EnvironmentLackError, ReplayMismatchError, ShipsightError

__all__ = ["verify_command"]


def verify_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or a zip file.")],
    variant: Annotated[list[str] | None, typer.Option(help="Variant to replay; repeatable; default: all.")] = None,
    files_only: Annotated[bool, typer.Option("--files-only", help="Check hashes, replay nothing.")] = False,
    digest: Annotated[str | None, typer.Option(help="Digest that the bundle must have.")] = None,
    threads: Annotated[int | None, typer.Option(help="Engine threads; default: one per core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Check a bundle's hashes, then replay its golden set on this machine."""
    from shipsight.model.bundle import open_bundle

    opened = open_bundle(bundle, digest=digest)
    chosen = [opened.variant(name) for name in variant] if variant else list(opened.variants)
    opened.verify_files()
    replays: list[dict[str, Any]] = []
    failures: list[ReplayMismatchError] = []
    skipped: list[tuple[str, EnvironmentLackError]] = []
    if not files_only:
        with TerminalProgress(quiet=as_json) as progress:
            progress.plan(len(chosen))
            for one in chosen:
                progress.step(f"replaying {one.name}")
                try:
                    replays.append(_replay(opened, one, threads, progress))
                except ReplayMismatchError as error:
                    failures.append(error)
                except EnvironmentLackError as error:
                    if variant:
                        raise
                    skipped.append((one.name, error))
    is_unproven = not files_only and not replays and not failures
    _print(opened, replays, failures, skipped, files_only=files_only, as_json=as_json, is_unproven=is_unproven)
    if failures:
        raise typer.Exit(ReplayMismatchError.exit_code)
    if is_unproven:
        raise typer.Exit(EnvironmentLackError.exit_code)


def _replay(opened: Any, one: Any, threads: int | None, progress: TerminalProgress) -> dict[str, Any]:  # noqa: ANN401
    from shipsight.engines import EngineOptions, get_engine
    from shipsight.proof import GoldenFiles, replay

    files = opened.variant_files(one.name)
    with get_engine(one.engine).open(files, one, EngineOptions(threads=threads)) as session:
        return replay(session, one, opened.card, GoldenFiles.of(opened), progress=progress.part).to_dict()


def _print(
    opened: Any,  # noqa: ANN401 - Bundle, imported lazily
    replays: list[dict[str, Any]],
    failures: list[ReplayMismatchError],
    skipped: list[tuple[str, EnvironmentLackError]],
    *,
    files_only: bool,
    as_json: bool,
    is_unproven: bool,
) -> None:
    verified = not failures and not is_unproven
    if as_json:
        document = {
            "bundle": str(opened.path),
            "digest": opened.digest,
            "verified": verified,
            "files": len(opened.names),
            "replay": replays,
            "failures": [error.to_dict() for error in failures],
            "skipped": [{"variant": name, **error.to_dict()} for name, error in skipped],
        }
        print_json(document)
        return
    console = screen()
    console.print(
        f"[green]ok[/]  {len(opened.names)} files are those that the manifest names (digest {opened.digest[:12]})"
    )
    rows = [
        [one["variant"], str(one["inputs"]), one["criterion"], "; ".join(one["difference"]) or "same kind of machine"]
        for one in replays
    ]
    if rows:
        console.print(make_table(["replayed", "inputs", "compared by", "recorded on"], rows))
    for name, error in skipped:
        warn(error.code, f"{name} was not replayed: {error}")
    failed: list[ShipsightError] = [*failures]
    for one in failed:
        console.print(f"[bold red]no[/]  {one}", soft_wrap=True)
    if verified and not files_only:
        console.print("[green]ok[/]  this machine runs what was measured" if replays else "nothing was replayed")
