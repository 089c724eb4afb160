# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/client.md run, one after another, against a real server with TLS."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import REPOSITORY
from tests.serve.certificates import make_authority, make_client, make_server, put
from tests.serve.conftest import Served

from shipsight.access import SERVER, Grant
from shipsight.access.service import Access
from shipsight.access.settings import AccessSettings

pytestmark = pytest.mark.slow  # a server

PLACE = "https://vision.example:8443"
PIN = "shipsight-sealing+0123abcd+..."


def test_examples_of_the_client_run_as_they_stand(
    start: Callable[..., Served],
    digits_bundle: Path,
    jpeg: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = (REPOSITORY / "docs" / "client.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    authority, clients = make_authority("servers"), make_authority("clients")
    certificate, key = make_server(authority).write(tmp_path)
    put(tmp_path / "ca.pem", authority.pem)
    put(tmp_path / "clients.pem", clients.pem)
    make_client(clients, "me").write(tmp_path, "me")
    (tmp_path / "photo.jpg").write_bytes(jpeg)
    (tmp_path / "other.jpg").write_bytes(jpeg)
    settings = AccessSettings(database=str(tmp_path / "access.db"), secrets_key=tmp_path / "access.key")
    with Access.open(settings, origin="https://localhost:1") as access:
        _, secret = access.keys.add(SERVER, "docs", grants=[Grant("predictor")])
        (tmp_path / "key.txt").write_text(f"{secret}\n", encoding="ascii")
        access.certificates.add(
            SERVER, "me", field="subject", value="CN=me", kind="certificate", grants=[Grant("predictor")]
        )
    with (tmp_path / "log").open("w") as log:
        served = start(
            digits_bundle, "--streams", "1", "--tls-cert", certificate, "--tls-key", key,
            "--tls-client-ca", tmp_path / "clients.pem", "--tls-client", "optional",
            "--database", tmp_path / "access.db", "--secrets-key", tmp_path / "access.key", stderr=log,
        )  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for number, block in enumerate(blocks):
        # Where no credential stands in an example, the one of the first is meant.
        text = block.replace(PLACE, served.url).replace(PIN, served.sealing)
        if "key=" not in text and "certificate=" not in text:
            text = text.replace('ca="ca.pem"', f'ca="ca.pem", key={secret!r}')
        exec(compile(text, f"docs/client.md, example {number + 1}", "exec"), {"__name__": "__main__"})
        assert capsys.readouterr().out.strip(), f"example {number + 1} prints something"
    assert (tmp_path / "drawn.jpg").read_bytes().startswith(b"\xff\xd8")
    assert served.stop() == 0
