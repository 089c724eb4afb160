# SPDX-License-Identifier: Apache-2.0
"""The sandboxed child process, as its parent sees it: start, ask, stop.

Leaves to others: isolation (`sandbox`, applied by the child to itself), what is asked (`_worker` and its roles).
Invariants: one request at a time, each with a wall-clock limit; whatever ends the child early becomes a named error
with its last words; nothing the child says is unpickled; the child inherits no environment but what is listed here and
works in a private folder that goes with it. Private.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import IO, Any

from shipsight import errors
from shipsight.build.sources._wire import Frame, encode_frame, read_frame
from shipsight.build.sources.sandbox import DEFAULT_LIMITS, Limits, Sandbox
from shipsight.errors import CorruptError, InternalError, LimitError, ShipsightError

__all__ = ["ChildProcess", "child_environment", "error_from_dict"]

_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "SYSTEMROOT")
_CHUNK = 1 << 20


class ChildProcess:
    """A child that opens untrusted model files.

    Args:
        role: `checkpoint` or `onnx`: what the child can be asked.
        sandbox: whether isolation is required.
        limits: of time, memory and files.

    Attributes:
        layers: the isolation that holds, as `sandbox.isolate` names it.

    Raises:
        SandboxError: isolation is required and impossible here.
    """

    def __init__(self, role: str, sandbox: Sandbox, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._lock = threading.Lock()
        self._users = 1
        self._what = "opening the model file"
        self._folder = tempfile.TemporaryDirectory(prefix="shipsight-source-")
        self._words: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-s",
                    "-B",
                    "-m",
                    "shipsight.build.sources._worker",
                    json.dumps({"role": role, "sandbox": sandbox.value, "limits": asdict(limits)}),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                cwd=self._folder.name,
                env=child_environment(self._folder.name),
                bufsize=0,
                close_fds=True,
            )
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                os.set_blocking(stream.fileno(), False)
            hello, _ = self._receive(time.monotonic() + limits.load_s)
            if "error" in hello:
                raise error_from_dict(hello["error"])
        except BaseException:
            self._stop()
            raise
        self.layers: tuple[str, ...] = tuple(map(str, hello.get("layers", ())))

    def call(
        self,
        operation: str,
        parameters: dict[str, Any],
        blobs: Sequence[bytes | memoryview] = (),
        *,
        what: str,
        timeout_s: float,
    ) -> Frame:
        """Asks one thing and waits for the answer.

        Args:
            operation: name of the request.
            parameters: plain values.
            blobs: raw bytes that go with it.
            what: what is being done, for error messages, for example `loading best.pt`.
            timeout_s: wall-clock limit.

        Raises:
            ShipsightError: as the child says; LimitError where it ran out of time or memory; CorruptError where it
                died otherwise.
        """
        with self._lock:
            self._what = what
            if self._process.poll() is not None or self._users < 1:
                raise InternalError("the child process has been closed", where=what)
            deadline = time.monotonic() + timeout_s
            try:
                for part in encode_frame({"operation": operation, "parameters": parameters}, blobs):
                    self._send(memoryview(part).cast("B"), deadline)
                header, answer = self._receive(deadline)
            except BaseException:
                self._stop()
                raise
        if "error" in header:
            raise error_from_dict(header["error"])
        return header, answer

    def retain(self) -> None:
        """Counts one more user."""
        with self._lock:
            if self._users < 1:
                raise InternalError("the child process has been closed", where=self._what)
            self._users += 1

    def release(self) -> None:
        """Counts one user less; the last one stops the child."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._stop()

    def _send(self, data: memoryview, deadline: float) -> None:
        assert self._process.stdin is not None
        handle = self._process.stdin.fileno()
        while data:
            self._wait(handle, select.POLLOUT, deadline)
            try:
                data = data[os.write(handle, data[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise self._last_words() from None

    def _receive(self, deadline: float) -> Frame:
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()

        def read_exactly(count: int) -> bytes:
            parts = bytearray()
            while len(parts) < count:
                self._wait(handle, select.POLLIN, deadline)
                with contextlib.suppress(BlockingIOError):
                    part = os.read(handle, min(_CHUNK, count - len(parts)))
                    if not part:
                        raise self._last_words()
                    parts += part
            return bytes(parts)

        return read_frame(read_exactly)

    def _wait(self, handle: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(handle, event)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise LimitError(
                "the child process took too long and was stopped",
                where=self._what,
                hint="A sound model needs seconds; if this machine is very slow, try again when it is idle",
            )

    def _last_words(self) -> ShipsightError:
        """Returns the error for a child that died."""
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            code = None
        self._words.seek(max(0, self._words.seek(0, os.SEEK_END) - 2000))
        words = _sanitize(self._words.read().decode("utf-8", "replace"), self._folder.name)
        if code == -signal.SIGXCPU:
            return LimitError("the child process used up its processor time", where=self._what)
        memory = "MemoryError" in words or "bad_alloc" in words or "llocate memory" in words
        if code == -signal.SIGKILL or memory:
            return LimitError("the child process used up its memory", where=self._what, got=words or None)
        name = signal.Signals(-code).name if code is not None and code < 0 else f"status {code}"
        return CorruptError(f"the child process died ({name})", where=self._what, got=words or None)

    def _stop(self) -> None:
        process = getattr(self, "_process", None)
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                stream.close()
        self._words.close()
        self._folder.cleanup()


def error_from_dict(data: object) -> ShipsightError:
    """Rebuilds an error that a child reported as `ShipsightError.to_dict()`; an unknown code becomes a CorruptError."""
    if not isinstance(data, dict):
        return CorruptError("the child process reported an error without details")
    by_code = {
        kind.code: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ShipsightError)
    }
    kind = by_code.get(str(data.get("code")), CorruptError)
    text = {key: None if data.get(key) is None else _sanitize(str(data[key]), "") for key in _ERROR_FIELDS}
    return kind(text.pop("what") or "the child process reported an error", **text)


_ERROR_FIELDS = ("what", "where", "expected", "got", "hint")


def _sanitize(text: str, folder: str) -> str:
    """Makes text that untrusted input may have shaped fit to print: no control characters, bounded, no private folder."""
    text = text.replace(folder, "<folder>") if folder else text
    text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    printable = "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r" {2,}", " ", printable).strip()[-1500:]


def child_environment(folder: str) -> dict[str, str]:
    """Returns all that a child inherits: nothing of the caller's but where programs are found, and no network for any library.

    Args:
        folder: for whatever libraries want to keep.
    """
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    path = os.pathsep.join(entry for entry in sys.path if entry and os.path.isabs(entry))  # noqa: PTH117 - plain strings
    return {
        **kept,
        "PYTHONPATH": path,
        "OPENBLAS_NUM_THREADS": "1",  # numpy's threads would start before a namespace can be entered
        "PYTHONHASHSEED": "0",  # set order reaches exported graphs
        "HOME": folder,
        "TMPDIR": folder,
        "XDG_CONFIG_HOME": folder,
        "XDG_CACHE_HOME": folder,
        "MPLCONFIGDIR": folder,
        "TORCH_HOME": folder,
        "YOLO_CONFIG_DIR": folder,
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_VERBOSE": "false",
        "ORT_DISABLE_TELEMETRY": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "DO_NOT_TRACK": "1",
    }
