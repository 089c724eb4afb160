# SPDX-License-Identifier: Apache-2.0
"""`shipsight audit prove` and `check-proof`: one entry, shown to somebody who has no log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shipsight.cli.access_rooms import JsonOption, moment
from shipsight.cli.audit_log import AuditKeyOption, AuditOption, open_reader
from shipsight.cli.audit_show import entry_dict, print_entries
from shipsight.cli.output import print_json, screen
from shipsight.errors import EnvironmentLackError, UsageError
from shipsight.printable import printable

__all__ = ["check_proof_command", "prove_command"]

_MOST_BYTES = 1024 * 1024


def prove_command(
    entry: Annotated[int, typer.Argument(metavar="ENTRY", help="Number of the entry, as `audit show` has it.")],
    out: Annotated[Path, typer.Option(help="File to write; must not be there.")],
    no_values: Annotated[
        bool, typer.Option("--no-values", help="Leave out who, whom, from where and the details.")
    ] = False,
    witness: Annotated[
        str | None, typer.Option(help="Witness whose newest checkpoint it is proved against: URL#KEY.")
    ] = None,
    audit: AuditOption = None,
    audit_key: AuditKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a small file that proves to others that an entry is in the log."""
    with open_reader(audit) as reader:
        from shipsight.access.audit.proving import prove
        from shipsight.access.audit.witness_client import WitnessPlace, fetch_checkpoint
        from shipsight.cli.audit_trust import signer_key

        checkpoint = None
        if witness is not None:
            place = WitnessPlace.parse(witness)
            try:
                checkpoint = fetch_checkpoint(place, reader.head().origin, [signer_key(audit, audit_key)])
            except OSError as error:
                raise EnvironmentLackError("a witness does not answer", where=place.url, got=error) from error
            if checkpoint is None:
                raise EnvironmentLackError("a witness knows nothing of this log", where=place.url)
        text = prove(reader, entry, checkpoint=checkpoint, with_values=not no_values)
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError("this file cannot be written", where=f"--out {out}", got=error.strerror) from error
    if as_json:
        print_json({"file": str(out), "entry": entry})
    else:
        screen().print(
            f"{out}: check it with shipsight audit check-proof {out} --key KEY", soft_wrap=True, markup=False
        )


def check_proof_command(
    proof: Annotated[Path, typer.Argument(metavar="FILE", help="Proof, as `audit prove` wrote it.")],
    key: Annotated[
        list[str], typer.Option(help="Key of the log, as `audit key` printed it; of witnesses, too; repeatable.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Check a proof without the log, and show the entry that it proves."""
    from shipsight.access.audit.entry_proof import check_proof
    from shipsight.access.audit.notes import VerifierKey

    try:
        with proof.open("rb") as file:
            text = file.read(_MOST_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        got = error.strerror if isinstance(error, OSError) else "bytes that are no text"
        raise UsageError("not a file that can be read", where=proof, got=got) from error
    found = check_proof(text, [VerifierKey.parse(one) for one in key])
    checkpoint = found.checkpoint
    signers = [one.key.name for one in checkpoint.signatures]
    if as_json:
        told = {"log": checkpoint.origin, "size": checkpoint.size, "at": moment(checkpoint.at), "signed_by": signers}
        print_json({"entry": entry_dict(found.entry), "withheld": list(found.withheld), "checkpoint": told})
        return
    print_entries([found.entry], as_json=False)
    line = f"is entry {found.entry.seq} of {checkpoint.origin}, which had {checkpoint.size} entries at {checkpoint.at:%F %T} UTC"
    screen().print(line, soft_wrap=True, markup=False)
    screen().print(f"signed by {printable(', '.join(signers), most=500)}", soft_wrap=True, markup=False)
    if found.withheld:
        screen().print(f"not shown, though the entry has it: {', '.join(found.withheld)}", soft_wrap=True, markup=False)
