# SPDX-License-Identifier: Apache-2.0
"""What `shipsight serve` prints on its way: lines of JSON for machines, text for people."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from shipsight.cli.output import screen
from shipsight.cli.serve_access import tell_first_look
from shipsight.cli.serve_audit import shown_place

if TYPE_CHECKING:
    from shipsight.serve import ServeOptions
    from shipsight.serve.access_opening import FirstLook

__all__ = ["ServeTold"]

_log = logging.getLogger("shipsight.serve")


class ServeTold:
    """Tells what becomes of a server.

    Args:
        options: of the server.
        address: where it answers.
        grpc: where it answers gRPC, None for nowhere.
        pin: of its sealing identity.
        first: who may ask.
        as_json: whether machines read it.
    """

    def __init__(
        self, options: ServeOptions, *, address: str, grpc: str | None, pin: str, first: FirstLook, as_json: bool
    ) -> None:
        self._options, self._address, self._grpc, self._pin = options, address, grpc, pin
        self._audit = shown_place(options.audit)
        folder = options.recording.folder
        self._recordings = None if folder is None else str(folder)
        self._first: FirstLook | None = first
        self._as_json = as_json

    def ready(self, models: list[dict[str, Any]]) -> None:
        """Tells that it answers; who may ask is told the first time alone."""
        if self._as_json:
            address = {"url": self._address, "grpc": self._grpc, "sealing": self._pin}
            _tell({"event": "ready", **address, "models": models, "audit": self._audit, "recordings": self._recordings})
        else:
            self._show_ready(models)
        if self._first is not None:
            tell_first_look(self._first, tell=_tell if self._as_json else None, show=_show)
        self._first = None

    def restarts(self, status: int, pause_s: float) -> None:
        """Tells that the serving process ended, and when the next is started."""
        from shipsight.serve.logs import fields

        if self._as_json:
            _tell({"event": "restart", "status": status, "pause_s": pause_s})
        _log.warning("the serving process ended; the next is started", extra=fields(status=status, pause_s=pause_s))

    def failed(self, error: dict[str, Any]) -> None:
        """Tells why it cannot serve."""
        if self._as_json:
            _tell({"error": error})
        parts = [error.get(key) for key in ("where", "what", "expected", "got", "hint")]
        screen(stderr=True).print(
            f"[bold red]error[/] [dim]({error['code']})[/]",
            escape("; ".join(str(part) for part in parts if part)),
            soft_wrap=True,
        )

    def _show_ready(self, models: list[dict[str, Any]]) -> None:
        told = ", ".join(f"{one['name']} {one['version']} ({', '.join(one['variants'])})" for one in models)
        name, address = models[0]["name"] if models else "MODEL", self._address
        for line in (
            f"Serving {told or 'no model yet: load one of the repository'}",
            f"  page      {address}/",
            f"  health    {address}/healthz   {address}/readyz",
            f"  metrics   {address}/metrics",
            *([] if self._grpc is None else [f"  gRPC      {self._grpc}"]),
            *([] if self._audit is None else [f"  audit     {self._audit}"]),
            *([] if self._recordings is None else [f"  records   {self._recordings}"]),
            f"  sealing   {self._pin}",
            f"  try it    {self._curl()} --data-binary @photo.jpg {address}/v1/models/{name}/predict",
        ):
            _show(line)

    def _curl(self) -> str:
        from shipsight.serve.tls import ClientDemand

        tls, curl = self._options.tls, "curl"
        if tls is not None:
            curl += f" --cacert {shlex.quote(str(tls.certificate))}"
            if tls.client_ca is not None and tls.client is ClientDemand.REQUIRED:
                curl += " --cert client.pem --key client-key.pem"
        return curl


def _show(line: str) -> None:
    screen().print(line, soft_wrap=True, markup=False)


def _tell(event: dict[str, Any]) -> None:
    """Prints one line of JSON at once: whoever reads it waits for it."""
    sys.stdout.write(json.dumps(event, ensure_ascii=False) + "\n")
    sys.stdout.flush()
