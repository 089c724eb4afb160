# SPDX-License-Identifier: Apache-2.0
"""`shipsight audit witness`: a small server elsewhere that signs an audit log's checkpoints, and remembers them."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shipsight.cli.output import screen, warn
from shipsight.errors import MissingDependencyError

if TYPE_CHECKING:
    from shipsight.access.audit.witness import Witness
    from shipsight.serve import TlsSettings

__all__ = ["witness_command"]


# Long, since each option of the command line stands in its signature.
def witness_command(
    log: Annotated[
        list[str], typer.Option(help="Log to watch, by its key: `shipsight audit key` prints it; repeatable.")
    ],
    state: Annotated[Path, typer.Option(help="Folder of what was signed: keep it.")] = Path("witness"),
    key: Annotated[
        Path | None, typer.Option(help="Key that signs; made where missing; default: in that folder.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of a key made here; default: this machine's.")] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than this machine's own with TLS.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for any free one.")] = 8600,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate in PEM, with those between it and its authority.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key in PEM.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Sign checkpoints of audit logs that have only grown; run it on another machine, under another owner."""
    try:
        from shipsight.access.audit.notes import KeyKind, Signer
        from shipsight.access.audit.witness import Witness, parse_logs
        from shipsight.serve import TlsSettings, bind_listener
        from shipsight.serve.logs import LogFormat, LogSettings, configure_logs
        from shipsight.serve.witnessing import serve_witness
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"package {error.name} is not installed", hint="Run: pip install 'shipsight[serve]'"
        ) from error
    logs = parse_logs(log)
    configure_logs(LogSettings(LogFormat.TEXT if sys.stderr.isatty() else LogFormat.JSON), sys.stderr)
    tls = TlsSettings.of(tls_cert, tls_key, None, None)
    signer = Signer.load(
        state / "witness.key" if key is None else key,
        make=True,
        name=f"witness/{socket.gethostname()}" if name is None else name,
        kind=KeyKind.COSIGNATURE,
    )
    witness = Witness(state, signer, logs)
    try:
        listener = bind_listener(host, port)
        url = _url(listener, tls)
        serve_witness(witness, listener, tls, ready=lambda: _tell(witness, url, list(logs), as_json=as_json))
    finally:
        witness.close()


def _url(listener: socket.socket, tls: TlsSettings | None) -> str:
    address, port = listener.getsockname()[:2]
    host = f"[{address}]" if ":" in address else address
    if tls is None:
        return f"http://{host}:{port}"
    from datetime import UTC, datetime

    from shipsight.serve.tls import read_server_certificate, warnings_of

    certificate = read_server_certificate(tls)
    for code, text in warnings_of(tls, certificate, host=address, now=datetime.now(UTC)):
        warn(code, text)
    named = certificate.name_for(address)
    if named not in certificate.names and certificate.names:
        named = certificate.names[0]
    return f"https://{f'[{named}]' if ':' in named else named}:{port}"


def _tell(witness: Witness, url: str, logs: list[str], *, as_json: bool) -> None:
    place = f"{url}/#{witness.key.text}"
    if as_json:
        told = {"event": "ready", "url": url, "key": witness.key.text, "audit_copy": place, "logs": logs}
        sys.stdout.write(json.dumps(told, ensure_ascii=False) + "\n")
        sys.stdout.flush()
        return
    console = screen()
    console.print(f"witness of {', '.join(logs)}", soft_wrap=True, markup=False)
    console.print("give it to the server whose log that is:", markup=False)
    console.print(f"  shipsight serve ... --audit-copy '{place}'", soft_wrap=True, markup=False)
