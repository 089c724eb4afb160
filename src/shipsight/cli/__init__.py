# SPDX-License-Identifier: Apache-2.0
"""The command line: one file a verb. The only room that reads the environment and prints.

Exit codes: 0 done; 1 the answer is no; 2 wrong use or bad input; 3 the environment lacks something; 70 a bug. Answers
go to standard output, progress and errors to standard error. Every verb takes `--json`. Stable.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib import import_module

import typer

from shipsight import __version__
from shipsight.cli.output import print_error
from shipsight.errors import InternalError, ShipsightError

__all__ = ["GROUPS", "VERBS", "main", "make_app"]

VERBS = ("build", "inspect", "verify", "predict", "evaluate", "bench", "serve", "promote", "rollback", "watch")
"""Each is `VERB_command` in a file of its own."""

GROUPS = ("user", "group", "role", "key", "audit", "backup", "recordings", "alerts", "doctor", "optimize")
"""Each is `GROUP_app` in a file of its own, with verbs under it."""


def make_app(verbs: Iterable[str] = VERBS + GROUPS) -> typer.Typer:
    """Returns the command line with some verbs; only their files are imported, so that each starts without the others' weight."""
    app = typer.Typer(
        name="shipsight",
        help="Take a trained vision model to production and prove on the way that it still works.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for verb in verbs:
        module = import_module(f"shipsight.cli.{verb}")
        if verb in GROUPS:
            app.add_typer(getattr(module, f"{verb}_app"), name=verb)
        else:
            app.command(verb)(getattr(module, f"{verb}_command"))
    app.callback(invoke_without_command=True)(_root)
    return app


def _root(
    version: bool = typer.Option(False, "--version", help="Print the version and leave.", is_eager=True),
) -> None:
    if version:
        typer.echo(f"shipsight {__version__}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and leaves the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    asked = [verb for verb in VERBS + GROUPS if given and verb == given[0]]
    try:
        make_app(asked or VERBS + GROUPS)(args=given)
    except ShipsightError as error:
        print_error(error, as_json=as_json)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader has left (`shipsight ... | head`): nothing more can be said to it.
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:  # noqa: BLE001 - the process edge: what is not ours to explain is a bug
        import traceback

        traceback.print_exc()
        bug = InternalError(
            "this is a bug in shipsight", got=f"{type(error).__name__}: {error}", hint="Please report the lines above."
        )
        print_error(bug, as_json=as_json)
        sys.exit(bug.exit_code)
