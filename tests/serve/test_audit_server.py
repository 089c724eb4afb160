# SPDX-License-Identifier: Apache-2.0
"""A real server and its audit log: what it records over every protocol, a disk that is full, a process that is killed, how it starts."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from tests.serve.conftest import Served, serving_process
from tests.serve.test_grpc import call, image_input, numbers_by_type
from tests.serve.test_open_inference import SHAPE, tensor
from tritonclient.grpc import InferenceServerClient
from tritonclient.grpc import service_pb2 as wire
from websockets.sync.client import connect

from shipsight.access import SERVER, EventKind, Grant, Outcome
from shipsight.access.audit.entry import Entry
from shipsight.access.audit.reading import AuditReader
from shipsight.access.service import Access
from shipsight.access.settings import AccessSettings

pytestmark = pytest.mark.slow  # servers that start

SOON_S = 20.0


def entries(folder: Path, *kinds: EventKind) -> list[Entry]:
    reader = AuditReader.open(str(folder / "access.audit.db"))
    try:
        return list(reader.entries(kinds=kinds))
    finally:
        reader.close()


def until(found: Callable[[], Any], within_s: float = SOON_S) -> Any:
    end = time.monotonic() + within_s
    while not (result := found()) and time.monotonic() < end:
        time.sleep(0.1)
    assert result
    return result


def shipsight(*arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "shipsight", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, **variables}, check=False
    )


def verified(folder: Path) -> dict[str, Any]:
    told = shipsight("audit", "verify", "--audit", folder / "access.audit.db", "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    found: dict[str, Any] = json.loads(told.stdout)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Identities: an administrator, whose session is the first of the keys, a deployer's, and a camera's."""
    with opened(tmp_path) as access:
        access.directory.add_user(SERVER, "root", grants=[Grant("admin")])
    return tmp_path


@contextmanager
def opened(folder: Path) -> Iterator[Access]:
    settings = AccessSettings(database=str(folder / "access.db"), secrets_key=folder / "access.key")
    with Access.open(settings, origin="http://localhost:8000") as access:
        yield access


def key(folder: Path, name: str, *grants: str) -> dict[str, str]:
    with opened(folder) as access:
        _, text = access.keys.add(SERVER, name, grants=tuple(map(Grant.parse, grants)))
    return {"authorization": f"Bearer {text}"}


def stored(folder: Path) -> tuple[object, ...]:
    return "--database", folder / "access.db", "--secrets-key", folder / "access.key"


# --- what is recorded -------------------------------------------------------------------------------------------------


def test_every_prediction_is_recorded_over_every_protocol(
    start: Callable[..., Served], digits_bundle: Path, folder: Path, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIP_HEALTH_ROUTE", "/vertex/health")
    monkeypatch.setenv("AIP_PREDICT_ROUTE", "/vertex/predict")
    camera = key(folder, "camera", "predictor", "viewer")
    served = start(digits_bundle, *stored(folder), "--streams", "1", "--grpc-port", "0", "--audit-predictions")
    text = base64.b64encode(jpeg).decode()
    bodies = {
        "/v1/models/digits/predict": (jpeg, "image/jpeg"),
        "/v1/models/digits/versions/1/predict": (json.dumps({"images": [text, text]}).encode(), "application/json"),
        "/invocations": (jpeg, "image/jpeg"),
        "/score": (jpeg, "application/octet-stream"),
        "/vertex/predict": (json.dumps({"instances": [text]}).encode(), "application/json"),
    }
    sent: list[tuple[bytes, int]] = []
    with served.client as client:
        for path, (body, kind) in bodies.items():
            told = client.post(path, content=body, headers={**camera, "content-type": kind})
            assert told.status_code == 200, (path, told.text)
            sent.append((body, 2 if "versions" in path else 1))
        refused = client.post("/v1/models/digits/predict", content=b"no image", headers=camera)
        assert refused.status_code == 415
        bare = tensor()
        body = json.dumps(
            {"inputs": [{"name": "images", "datatype": "FP32", "shape": list(SHAPE), "data": bare.ravel().tolist()}]}
        ).encode()
        assert client.post("/v2/models/digits/infer", content=body, headers=camera).status_code == 200
        sent.append((body, 1))
    with grpc.insecure_channel(served.grpc) as channel:
        metadata = (("authorization", camera["authorization"]),)
        request = numbers_by_type(bare)
        call(channel, "ModelInfer", request, wire.ModelInferResponse, metadata=metadata)
    with InferenceServerClient(served.grpc) as triton:
        triton.infer("digits_image", [image_input(jpeg, jpeg)], headers=camera)
    socket = f"{served.url.replace('http', 'ws')}/v1/models/digits/stream"
    with connect(socket, max_size=None, open_timeout=60, additional_headers=camera) as stream:
        stream.send(jpeg)
        assert "images" in json.loads(stream.recv(timeout=60))
    served.stop()

    told = entries(folder, EventKind.PREDICTED)
    done = [one.event for one in told if one.event.outcome is Outcome.DONE]
    assert len(done) == len(sent) + 3
    for event, (body, images) in zip(done, sent, strict=False):
        assert event.details["sha256"] == hashlib.sha256(body).hexdigest()
        assert event.details["images"] == images
        assert event.details["bytes"] == len(body)
    assert done[-1].details["sha256"] == hashlib.sha256(jpeg).hexdigest()  # of the stream
    assert done[-2].details["images"] == 2
    for event in done:
        assert event.actor.startswith("key:camera")
        assert (event.subject, event.details["version"], event.address) == ("model:digits", "1", "127.0.0.1")
        assert "variant" in event.details
    assert all(isinstance(done[place].details["predictions"], int) for place in (0, 1, 2, -1, -2))
    (bad,) = [one.event for one in told if one.event.outcome is Outcome.REFUSED]
    assert (bad.why, bad.details["sha256"]) == ("image-format", hashlib.sha256(b"no image").hexdigest())
    database = (folder / "access.audit.db").read_bytes()
    assert jpeg[100:200] not in database
    assert camera["authorization"][11:] not in database.decode("latin-1")
    assert len(entries(folder, EventKind.KEY_USED)) == 1
    verified(folder)


def test_a_start_tells_its_options_and_what_changed_since(
    start: Callable[..., Served], digits_bundle: Path, folder: Path
) -> None:
    common = (digits_bundle, *stored(folder), "--streams", "1", "--server-name", "east")
    start(*common, "--limits-store", "redis://:s3cret@127.0.0.1:1/0").stop()
    start(*common, "--behind", "kserve", "--rate", "5/second").stop()
    with (folder / "err").open("w") as stderr:
        start(*common, "--audit", "off", stderr=stderr).stop()
    assert "nothing that happens is recorded" in (folder / "err").read_text()
    told = entries(folder)
    kinds = [one.event.kind for one in told if one.server == "east"]
    once = [
        EventKind.AUDIT_STARTED,
        EventKind.BUNDLE_READ,
        EventKind.STARTED,
        EventKind.MODEL_LOADED,
        EventKind.STOPPED,
    ]
    changes = [EventKind.CONFIGURATION_CHANGED, EventKind.CONFIGURATION_CHANGED]
    kinds = [one for one in kinds if one is not EventKind.SEALING_KEY_MADE]  # the first start reaches no store for it
    assert sorted(kinds) == sorted([EventKind.AUDIT_KEY_ADDED, *once, *once, *changes])
    (changed, off) = [one.event.details for one in told if one.event.kind is EventKind.CONFIGURATION_CHANGED]
    assert {name: one for name, one in changed.items() if name.startswith("--")} == {
        "--behind": "none -> kserve",
        "--rate": "none -> 5/second",
        "--limits-store": "redis://@127.0.0.1:1/0 -> none",
    }
    assert off["--audit"] == f"{folder / 'access.audit.db'} -> off"
    first, second = [one.event.details for one in told if one.event.kind is EventKind.STARTED]
    assert "behind" not in first
    assert second["behind"] == "kserve"  # who does both is shown in the log
    assert isinstance(second["options"], list)
    assert "--behind=kserve" in second["options"]
    assert b"s3cret" not in (folder / "access.audit.db").read_bytes()
    verified(folder)


def test_checkpoints_go_to_a_second_place_and_are_measured(
    start: Callable[..., Served], digits_bundle: Path, folder: Path
) -> None:
    copy = folder / "copy" / "checkpoints"
    copy.parent.mkdir()
    watcher = key(folder, "watcher", "viewer")
    options = ("--audit-copy", f"file:{copy}", "--audit-every", "1", "--audit-seconds", "1")
    served = start(digits_bundle, *stored(folder), "--streams", "1", *options)
    with served.client as client:
        assert client.get("/v1/models", headers=watcher).status_code == 200
        name = f'place="{copy}"'

        def measured() -> dict[str, float]:
            lines = client.get("/metrics", headers=watcher).text.splitlines()
            return {
                line.rpartition(" ")[0]: float(line.rpartition(" ")[2])
                for line in lines
                if "shipsight_audit" in line and line[0] != "#"
            }

        found = until(lambda: (told := measured()).get("shipsight_audit_unsigned_entries") == 0.0 and told)
        assert found["shipsight_audit_up"] == 1.0
        assert found["shipsight_audit_written_total"] >= 4
        assert found["shipsight_audit_lost_total"] == 0
        assert 0 <= found["shipsight_audit_checkpoint_age_seconds"] < 60
        (up,) = [value for key_, value in found.items() if key_.startswith("shipsight_audit_copy_up{")]
        assert up == 1.0, name
        until(lambda: "shipsight_audit_review_overdue_seconds" in measured())
    served.stop()
    assert copy.read_text().count("\nshipsight/") + copy.read_text().startswith("shipsight/") >= 2
    told = shipsight("audit", "verify", "--audit", folder / "access.audit.db", "--checkpoints", copy, "--json")
    assert told.returncode == 0, told.stdout + told.stderr


# --- a disk that is full ----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 2 MiB, which fills."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
        pytest.skip("a file system of its own needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def filled(place: Path) -> Iterator[None]:
    filler = place / "filler"
    file = os.open(filler, os.O_WRONLY | os.O_CREAT)
    with contextlib.suppress(OSError):
        while True:
            os.write(file, bytes(1024))
    os.close(file)
    try:
        yield
    finally:
        filler.unlink()


def test_with_a_full_disk_sensitive_acts_are_refused_and_predictions_go_on(
    start: Callable[..., Served], digits_bundle: Path, folder: Path, small_disk: Path, jpeg: bytes
) -> None:
    """ASVS 16.5.3; disk full of 3.5 and 3.7."""
    place = small_disk / "access.audit.db"
    deployer = key(folder, "deploy", "deployer", "predictor", "viewer")
    served = start(
        digits_bundle, *stored(folder), "--streams", "1", "--audit", place, "--audit-key", folder / "audit.key",
        "--audit-predictions",
    )  # fmt: skip
    act = "/v2/repository/models/digits/load"
    with served.client as client:
        assert client.post(act, headers=deployer).status_code == 200
        before = client.get("/v1/models/digits", headers=deployer).json()
        with filled(small_disk):
            refused = until(lambda: (told := client.post(act, headers=deployer)).status_code == 503 and told)
            assert refused.json()["code"] == "audit-unavailable"
            assert str(folder) not in refused.text
            assert str(small_disk) not in refused.text
            unloaded = client.post("/v2/repository/models/digits/unload", headers=deployer)
            assert unloaded.status_code == 503
            assert client.get("/v1/models/digits", headers=deployer).json() == before
            # What is refused is refused, and predictions go on, quickly.
            assert client.get("/v1/models", headers={"authorization": "Bearer ssk_wrong"}).status_code == 401
            begin = time.monotonic()
            for _ in range(20):
                told = client.post("/v1/models/digits/predict", content=jpeg, headers=deployer)
                assert told.status_code == 200
            assert time.monotonic() - begin < SOON_S
            ready = client.get("/readyz", headers=deployer)
            assert (ready.status_code, ready.json()["audit"]) == (200, "degraded")
            assert "audit" not in client.get("/readyz").json()
            lines = client.get("/metrics", headers=deployer).text.splitlines()
            assert "shipsight_audit_up 0.0" in lines
            buffered = next(line for line in lines if line.startswith("shipsight_audit_buffered"))
            assert float(buffered.split()[1]) >= 20
        until(lambda: client.get("/readyz", headers=deployer).json()["audit"] == "ok")
        assert client.post(act, headers=deployer).status_code == 200
    served.stop()
    reader = AuditReader.open(str(place))
    predicted = list(reader.entries(kinds=(EventKind.PREDICTED,)))
    reader.close()
    assert len(predicted) == 20  # none was lost
    assert shipsight("audit", "verify", "--audit", place, "--audit-key", folder / "audit.key").returncode == 0


def test_commands_change_nothing_that_cannot_be_recorded(folder: Path, small_disk: Path) -> None:
    """ASVS 16.5.3."""
    place = {"SHIPSIGHT_AUDIT": str(small_disk / "audit.db"), "SHIPSIGHT_AUDIT_KEY": str(folder / "audit.key")}
    database = ("--database", folder / "access.db")
    made = shipsight("user", "add", "ada", "--grant", "viewer", *database, **place)
    assert made.returncode == 0, made.stderr
    with filled(small_disk):
        refused = shipsight("user", "add", "bob", "--grant", "admin", *database, "--json", **place)
        assert (refused.returncode, json.loads(refused.stdout)["error"]["code"]) == (3, "audit-unavailable")
        assert shipsight("key", "add", "robot", "--grant", "admin", *database, **place).returncode != 0
        out = folder / "backup"
        secret = {"SHIPSIGHT_BACKUP_PASSPHRASE": "seven kites over a lake"}
        kept = shipsight("backup", "create", out, *database, "--secrets-key", folder / "access.key", **place, **secret)
        assert kept.returncode == 3
        assert not out.exists()
    with opened(folder) as access:
        assert [one.name for one in access.directory.users()] == ["ada", "root"]
        assert access.keys.list() == []
    reader = AuditReader.open(str(small_disk / "audit.db"))
    assert [one.event.subject for one in reader.entries(kinds=(EventKind.USER_ADDED,))] == ["person:ada"]
    reader.close()


def test_commands_record_what_they_do_beside_the_identities(folder: Path) -> None:
    database = ("--database", folder / "access.db")
    secret = {"SHIPSIGHT_BACKUP_PASSPHRASE": "seven kites over a lake"}
    assert shipsight("user", "add", "ada", "--grant", "viewer", *database).returncode == 0
    assert shipsight("user", "list", *database).returncode == 0
    assert (
        shipsight(
            "backup", "create", folder / "b", *database, "--secrets-key", folder / "access.key", **secret
        ).returncode
        == 0
    )
    told = [one.event for one in entries(folder) if one.event.kind is not EventKind.AUDIT_KEY_ADDED]
    assert [one.kind for one in told] == [EventKind.USER_ADDED, EventKind.BACKED_UP]
    assert {one.actor for one in told} == {"server:root" if os.geteuid() == 0 else told[0].actor}
    off = shipsight("user", "add", "bob", *database, SHIPSIGHT_AUDIT="off")
    assert off.returncode == 0
    assert "SHIPSIGHT_AUDIT is off" in off.stderr
    assert len(entries(folder, EventKind.USER_ADDED)) == 1
    away = shipsight("user", "add", "eve", *database, SHIPSIGHT_AUDIT=str(folder / "other.db"))
    assert away.returncode == 0
    here = folder / "access.audit.db"
    changed = [one.event.details["$SHIPSIGHT_AUDIT"] for one in entries(folder, EventKind.CONFIGURATION_CHANGED)]
    assert changed == [f"{here} -> off", f"{here} -> {folder / 'other.db'}"]
    verified(folder)
    (folder / "access.audit.key").unlink()
    refused = shipsight("user", "add", "mallory", *database, SHIPSIGHT_AUDIT="off")
    assert refused.returncode != 0
    assert "mallory" not in shipsight("user", "list", *database).stdout


# --- a process that is killed -----------------------------------------------------------------------------------------


def test_a_serving_process_that_is_killed_under_load_leaves_a_log_that_verifies(
    start: Callable[..., Served], digits_bundle: Path, folder: Path, jpeg: bytes
) -> None:
    """Torn last record after SIGKILL."""
    camera = key(folder, "camera", "deployer", "predictor", "viewer")
    served = start(digits_bundle, *stored(folder), "--streams", "1", "--audit-predictions", "--audit-every", "10")
    ended = threading.Event()

    def load() -> None:
        with served.client as client:
            while not ended.is_set():
                with contextlib.suppress(httpx.HTTPError):
                    client.post("/v1/models/digits/predict", content=jpeg, headers=camera)
                    client.post("/v2/repository/models/nothing/load", headers=camera)  # recorded at once

    threads = [threading.Thread(target=load) for _ in range(3)]
    for one in threads:
        one.start()
    try:
        for _ in range(2):
            time.sleep(2.0)
            os.kill(serving_process(served), signal.SIGKILL)
            told = served.events()
            assert next(one for one in told if one["event"] in ("restart", "ready"))
            while next(told)["event"] != "ready":
                continue
    finally:
        ended.set()
        for one in threads:
            one.join()
    served.stop()
    found = [one.event.kind for one in entries(folder)]
    assert found.count(EventKind.AUDIT_RECOVERED) == 2
    assert found.count(EventKind.STOPPED) == 1
    assert found.count(EventKind.PREDICTED) > 0
    assert found.count(EventKind.ALLOWED) > 0
    verified(folder)


# --- how it starts ----------------------------------------------------------------------------------------------------


def spoil_file(folder: Path) -> list[object]:
    (folder / "access.audit.db").write_bytes(b"no database of any kind" * 100)
    return []


def lose_key(folder: Path) -> list[object]:
    assert shipsight("user", "add", "ada", "--database", folder / "access.db").returncode == 0
    (folder / "access.audit.key").unlink()
    return []


def lose_log(folder: Path) -> list[object]:
    assert shipsight("user", "add", "ada", "--database", folder / "access.db").returncode == 0
    for one in folder.glob("access.audit.db*"):
        one.unlink()
    return []


STARTS: dict[str, tuple[Callable[[Path], list[object]], int, str]] = {
    "a file that is no log": (spoil_file, 3, "access.audit.db"),
    "a log without its key": (lose_key, 3, "access.audit.key"),
    "a key without its log": (lose_log, 3, "is not here"),
    "a folder that is a file": (lambda folder: ["--audit", folder / "access.db" / "audit.db"], 3, "audit.db"),
    "another kind of database": (lambda folder: ["--audit", "mysql://host/x"], 2, "mysql"),
    "a server that does not answer": (lambda folder: ["--audit", "postgresql://nobody@127.0.0.1:1/x", "--audit-key", folder / "k"], 3, "127.0.0.1"),
    "a place that is none": (lambda folder: ["--audit-copy", "carrier:pigeon"], 2, "--audit-copy"),
    "a name that is none": (lambda folder: ["--server-name", "two words"], 2, "--server-name"),
    "no time": (lambda folder: ["--audit-seconds", "0"], 2, "--audit-seconds"),
    "no entries": (lambda folder: ["--audit-every", "0"], 2, "--audit-every"),
    "predictions into nothing": (lambda folder: ["--audit", "off", "--audit-predictions"], 2, "--audit-predictions"),
}  # fmt: skip


@pytest.mark.parametrize("case", STARTS)
def test_a_server_does_not_start_without_the_log_that_it_was_told_to_keep(
    digits_bundle: Path, folder: Path, case: str
) -> None:
    spoil, code, says = STARTS[case]
    told = shipsight("serve", digits_bundle, *stored(folder), "--port", "0", "--streams", "1", *spoil(folder))
    assert (told.returncode, says in told.stderr) == (code, True), told.stderr


def test_a_server_without_identities_records_where_it_is_told_and_nowhere_else(
    start: Callable[..., Served], digits_bundle: Path, tmp_path: Path
) -> None:
    start(digits_bundle, "--streams", "1", "--audit", tmp_path / "access.audit.db").stop()
    assert EventKind.STARTED in [one.event.kind for one in entries(tmp_path)]
    with sqlite3.connect(tmp_path / "access.audit.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_server_that_cannot_open_its_bundles_records_why(digits_bundle: Path, folder: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.bundle"
    shutil.copytree(digits_bundle, changed)
    model = next(path for path in sorted(changed.glob("variants/*/*")) if path.stat().st_size > 1000)
    model.write_bytes(model.read_bytes()[:-1] + b"\x00")
    told = shipsight("serve", changed, *stored(folder), "--port", "0", "--streams", "1")
    assert told.returncode == 1, told.stderr
    # It begins to answer, that it is not ready, while its bundles are opened: either may come first.
    starts = {(one.event.outcome, one.event.why) for one in entries(folder, EventKind.STARTED)}
    assert starts == {(Outcome.DONE, None), (Outcome.REFUSED, "tampered-hash")}
    assert [one.event.kind for one in entries(folder)][-1] is EventKind.STOPPED
