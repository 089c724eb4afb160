# SPDX-License-Identifier: Apache-2.0
"""The child process that opens model files can only compute: asked of the process itself."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from shipsight.build.sources._process import ChildProcess, error_from_dict
from shipsight.build.sources._wire import encode_frame, read_frame
from shipsight.build.sources.sandbox import Limits, Sandbox
from shipsight.errors import CorruptError, InternalError, LimitError, SandboxError, ShipsightError

ACTIONS = ["connect", "unix-socket", "new-program", "fork", "signal-parent"]


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[dict[str, object]]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "s"))
        unix.listen()
        yield {"address": list(server.getsockname()), "unix_path": str(tmp_path / "s"), "actions": ACTIONS}


def _ask(child: ChildProcess, parameters: dict[str, object]) -> dict[str, str]:
    header, _ = child.call("probe", parameters, what="probing", timeout_s=300)
    return dict(header["can"])


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces and seccomp are Linux")
def test_child_can_reach_nothing_when_sandboxed(listener: dict[str, object]) -> None:
    child = ChildProcess("checkpoint", Sandbox.REQUIRED)
    try:
        assert child.layers
        assert [action for action, result in _ask(child, listener).items() if result == "yes"] == []
    finally:
        child.release()


def test_probe_would_notice_a_network_when_sandbox_is_off(listener: dict[str, object]) -> None:
    child = ChildProcess("checkpoint", Sandbox.OFF)
    try:
        found = _ask(child, listener)
        assert child.layers == ()
        assert {found[action] for action in ACTIONS} == {"yes"}
    finally:
        child.release()


def test_child_is_stopped_when_it_uses_up_its_processor_time() -> None:
    child = ChildProcess("checkpoint", Sandbox.REQUIRED, Limits(cpu_s=1))
    with pytest.raises(LimitError, match="processor time"):
        _ask(child, {"actions": ["spin"]})
    child.release()


def test_child_is_stopped_when_it_takes_too_long() -> None:
    child = ChildProcess("checkpoint", Sandbox.REQUIRED)
    with pytest.raises(LimitError, match="too long"):
        child.call("probe", {"actions": ["spin"]}, what="probing", timeout_s=1)
    with pytest.raises(InternalError, match="closed"):
        _ask(child, {"actions": []})
    child.release()


def test_child_gets_no_more_memory_than_its_limit() -> None:
    child = ChildProcess("checkpoint", Sandbox.REQUIRED, Limits(library_memory_bytes=2 << 30))
    try:
        assert _ask(child, {"actions": ["allocate"], "allocate_bytes": 4 << 30})["allocate"].startswith("MemoryError")
        assert _ask(child, {"actions": ["allocate"], "allocate_bytes": 1 << 20})["allocate"] == "yes"
    finally:
        child.release()


def test_child_sees_no_variable_of_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted")
    child = ChildProcess("checkpoint", Sandbox.OFF)
    try:
        environment = Path(f"/proc/{child._process.pid}/environ")
        assert os.access(environment, os.R_OK) is False or b"planted" not in environment.read_bytes()
    finally:
        child.release()


def test_error_is_a_lack_of_environment_when_nothing_isolates(monkeypatch: pytest.MonkeyPatch) -> None:
    from shipsight.build.sources import sandbox

    def impossible() -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(sandbox, "_enter_namespace", impossible)
    monkeypatch.setattr(sandbox, "_filter_system_calls", impossible)
    with pytest.raises(SandboxError, match="--unsandboxed") as caught:
        sandbox.isolate(Sandbox.REQUIRED, Limits())
    assert caught.value.exit_code == 3


def test_error_keeps_its_class_and_loses_control_characters_when_it_crosses() -> None:
    error = error_from_dict({"code": "untrusted", "what": "a\x1b[31mred\nline", "got": "x" * 9000})
    assert type(error).code == "untrusted"
    assert "\x1b" not in str(error)
    assert len(str(error)) < 2000
    assert isinstance(error_from_dict({"code": "no-such"}), CorruptError)


@pytest.mark.parametrize(
    "data",
    [
        b"NOPE" + bytes(8),
        b"SHF1" + (1 << 30).to_bytes(4, "little") + bytes(4),
        b"SHF1" + (2).to_bytes(4, "little") + (1000).to_bytes(4, "little") + bytes(8000),
        b"SHF1" + (2).to_bytes(4, "little") + bytes(4) + b"[]",
        b"SHF1" + (2).to_bytes(4, "little") + bytes(4) + b"{!",
    ],
)
def test_frame_is_refused_when_malformed(data: bytes) -> None:
    position = 0

    def read_exactly(count: int) -> bytes:
        nonlocal position
        position += count
        return data[position - count : position]

    with pytest.raises(ShipsightError):
        read_frame(read_exactly)


def test_frame_comes_back_when_sent() -> None:
    sent = b"".join(bytes(part) for part in encode_frame({"a": [1, None]}, [b"xyz", b""]))
    stream = iter(sent)
    assert read_frame(lambda count: bytes(next(stream) for _ in range(count))) == ({"a": [1, None]}, [b"xyz", b""])


def test_limits_cross_as_json_when_child_starts() -> None:
    assert Limits(**json.loads(json.dumps(asdict(Limits(cpu_s=3))))) == Limits(cpu_s=3)
