# SPDX-License-Identifier: Apache-2.0
"""Opening a model file: what it is, by its content, and which source handles it.

Leaves to others: everything inside the file. Invariants: the file is read once, and the bytes that were hashed are the
bytes that are loaded; content decides, and a name that says otherwise is refused. Stable.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path

from shipsight.build.sources.checkpoint import CheckpointSource
from shipsight.build.sources.contract import Source
from shipsight.build.sources.sandbox import DEFAULT_LIMITS, Limits, Sandbox
from shipsight.errors import CorruptError, LimitError, UnsupportedError, UntrustedError, UsageError

__all__ = ["MAX_FILE_BYTES", "open_source", "read_model_file"]

MAX_FILE_BYTES = (2 << 30) - 1
"""Largest model file; also ONNX's own limit for one file."""

_CHECKPOINT_SUFFIXES = (".pt", ".pth", ".ckpt")
_HINTS = {
    ".safetensors": "a safetensors file holds weights without a network: export the model to ONNX",
    ".torchscript": "a TorchScript program is not a checkpoint: give the trained .pt file",
    ".engine": "a TensorRT engine is an export: give the trained .pt file or its ONNX export",
    ".tflite": "a LiteRT model is an export: give the trained .pt file or its ONNX export",
    ".xml": "an OpenVINO model is an export: give the trained .pt file or its ONNX export",
    ".yaml": "a YAML file describes a network without weights: give the trained .pt file",
    ".keras": "export the model to ONNX",
    ".h5": "export the model to ONNX",
}


def open_source(
    path: Path | str,
    *,
    card_file: Path | str | None = None,
    name: str | None = None,
    version: str = "1",
    sandbox: Sandbox = Sandbox.REQUIRED,
    limits: Limits = DEFAULT_LIMITS,
) -> Source:
    """Opens a trained model.

    Args:
        path: an Ultralytics checkpoint or an ONNX file.
        card_file: card file for an ONNX model without metadata; None looks for `<stem>.card.yaml` beside it.
        name: the model's name, None for the file's stem.
        version: the model's version.
        sandbox: whether the file may only be opened in an isolated process.
        limits: of that process.

    Raises:
        UsageError: there is no such file, or a card file was given for a checkpoint.
        CardError: an ONNX model without metadata has no card, or the card does not fit.
        ArtefactError: the file is damaged, not handled, or not to be trusted (its three branches).
        LimitError: the file is too large, or takes too much memory or time.
        SandboxError: isolation is required and impossible here.
        MissingDependencyError: a package is missing; the hint names the extra.
    """
    path = Path(path)
    data = read_model_file(path)
    sha256 = hashlib.sha256(data).hexdigest()
    chosen = name if name is not None else _name_of(path)
    if _is_pickle_or_zip(data):
        if path.suffix.lower() not in _CHECKPOINT_SUFFIXES:
            _refuse_disguise(path)
        if card_file is not None:
            raise UsageError("a checkpoint describes itself; a card file is for ONNX", where="--card", got=card_file)
        return CheckpointSource(path, data, sha256=sha256, name=chosen, version=version, sandbox=sandbox, limits=limits)
    if path.suffix.lower() != ".onnx":
        raise _refuse_other(path, data)
    from shipsight.build.sources.onnx_source import OnnxSource

    return OnnxSource(
        path,
        data,
        card_file=None if card_file is None else Path(card_file),
        sha256=sha256,
        name=chosen,
        version=version,
        sandbox=sandbox,
        limits=limits,
    )


def read_model_file(path: Path) -> bytes:
    """Reads a model file whole.

    Raises:
        UsageError: there is no such file, or it is none.
        LimitError: it is larger than `MAX_FILE_BYTES`.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not block
    except OSError as error:
        raise UsageError("the model file cannot be opened", where=path, got=error.strerror) from error
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
        raise UsageError("the model must be a file", where=path, got=kind)
    with os.fdopen(handle, "rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise LimitError("the model file is too large", where=path, expected=f"<= {MAX_FILE_BYTES} bytes")
    if not data:
        raise CorruptError("the model file is empty", where=path)
    return data


def _name_of(path: Path) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip(".-")[:100]
    return name or "model"


def _is_pickle_or_zip(data: bytes) -> bool:
    starts = (b"PK\x03\x04", b"PK\x05\x06", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"(", b"c")
    is_tar = data[257:262] == b"ustar"
    return is_tar or data.startswith(starts)


def _refuse_disguise(path: Path) -> None:
    raise UntrustedError(
        "the file is a pickle or an archive under another name",
        where=path.name,
        expected=f"one of {', '.join(_CHECKPOINT_SUFFIXES)} for a checkpoint",
        got=path.suffix or "no suffix",
    )


def _refuse_other(path: Path, data: bytes) -> UnsupportedError | CorruptError:
    suffix = path.suffix.lower()
    if suffix in _CHECKPOINT_SUFFIXES:
        return CorruptError("the file is not a checkpoint", where=path.name, got=f"it starts with {data[:8]!r}")
    hint = _HINTS.get(suffix, "give an Ultralytics checkpoint (.pt) or an ONNX file (.onnx)")
    return UnsupportedError("this kind of file is not a source", where=path.name, got=suffix or "no suffix", hint=hint)
