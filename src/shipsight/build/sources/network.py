# SPDX-License-Identifier: Apache-2.0
"""The network in a checkpoint, in a process where torch is.

What for: the sandboxed child that exports and runs a checkpoint, and the one that trains it on (`shipsight.training`). Invariants: a
pickle is loaded only after `_pickle_walk` passed it, only by torch's restricted unpickler, only from an archive written anew; no
other load is tried where that fails. Stable.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import sys
import tarfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from shipsight.build.sources._allowed import HEADS, MODELS
from shipsight.build.sources._archive import MAX_PICKLE_BYTES, CheckpointArchive, read_archive
from shipsight.build.sources._pickle_walk import GlobalName, name_globals, walk_pickle
from shipsight.errors import CorruptError, MissingDependencyError, UnsupportedError, UntrustedError

__all__ = ["CheckedCheckpoint", "check_checkpoint", "import_framework", "load_network"]


@dataclass(frozen=True, eq=False)
class CheckedCheckpoint:
    """A checkpoint that asks for nothing but what one holds.

    Attributes:
        archive: of it.
        names: what its pickle asks for.
    """

    archive: CheckpointArchive
    names: frozenset[GlobalName]


def check_checkpoint(data: bytes, where: str) -> CheckedCheckpoint:
    """Checks a checkpoint without running anything of it; needs no torch.

    Args:
        data: of the file.
        where: its name, for errors.

    Raises:
        UntrustedError: the file carries foreign code, or more than a checkpoint holds.
        UnsupportedError: it is another kind of file, or holds no network.
        CorruptError: it is damaged.
    """
    if not data.startswith(b"PK"):
        _refuse_bare_pickle(data, where)
    archive = read_archive(data, where=where)
    names = walk_pickle(archive.pickle, where=where)
    if not any(name.module == "ultralytics.nn.tasks" for name in names):
        raise UnsupportedError(
            "the checkpoint holds no Ultralytics model",
            where=where,
            got="weights without a network (a state dict)",
            hint="Load it into its network, export that to ONNX and give the ONNX file with a card",
        )
    return CheckedCheckpoint(archive, names)


def load_network(checked: CheckedCheckpoint, where: str) -> tuple[Any, dict[str, Any]]:
    """Loads a checked checkpoint; its weights are as they were stored, its attributes unchecked.

    Args:
        checked: what `check_checkpoint` returned.
        where: the file's name, for errors.

    Returns:
        The network (the averaged one where there is one), and the checkpoint's dictionary.

    Raises:
        UnsupportedError: it holds no network that is handled.
        CorruptError: it is damaged.
    """
    checkpoint = _load_restricted(checked.archive.rewrite(), checked.names, where)
    return _choose_model(checkpoint, where), checkpoint


def _globals_of_bare(data: bytes) -> list[GlobalName]:
    """Lists what a bare pickle, or the members of a tar archive, ask for; reads, never extracts."""
    if data[257:262] != b"ustar":
        return name_globals(data)
    found: list[GlobalName] = []
    with contextlib.suppress(tarfile.TarError), tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in itertools.islice(archive, 64):
            content = archive.extractfile(member) if member.isreg() else None
            found += name_globals(content.read(MAX_PICKLE_BYTES)) if content is not None else []
    return found


def _refuse_bare_pickle(data: bytes, where: str) -> None:
    from shipsight.build.sources._allowed import CLASSES, FUNCTIONS, family_of

    for name in _globals_of_bare(data):
        key = (name.module, name.name)
        if key not in CLASSES and key not in FUNCTIONS and family_of(*key) is None:
            raise UntrustedError(
                "the file is a bare pickle and carries foreign code; it was not run",
                where=where,
                got=f"a reference to {str(name)[:200]!r}",
            )
    if data[257:262] == b"ustar":
        raise UntrustedError(
            "the file is a tar archive of pickles, torch's format before 2018, which cannot be checked",
            where=where,
            hint="Save it again with torch 1.6 or newer",
        )
    if data[:1] == b"\x80" or b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19" in data[:64]:
        raise UnsupportedError(
            "the file is a bare pickle, not a checkpoint in torch's zip format",
            where=where,
            hint="Save it again with torch 1.6 or newer",
        )
    raise CorruptError("the file is not a checkpoint", where=where, expected="a zip archive", got=repr(data[:8]))


def import_framework() -> None:
    """Imports torch and Ultralytics.

    Raises:
        MissingDependencyError: one of them is not installed.
    """
    try:
        import torch

        sys.modules.setdefault("triton", None)  # type: ignore[arg-type] # not needed, slow to import, starts compilers
        importlib.import_module("ultralytics.engine.exporter")
    except ImportError as error:
        raise MissingDependencyError(
            "torch and ultralytics are needed to open a checkpoint",
            got=error,
            hint="pip install 'shipsight[ultralytics]'",
        ) from error
    torch.use_deterministic_algorithms(mode=True, warn_only=True)


def _load_restricted(archive: Any, names: frozenset[GlobalName], where: str) -> dict[str, Any]:  # noqa: ANN401 - BytesIO
    import torch
    from torch.serialization import safe_globals

    allowed: list[Any] = [_named(name, where) for name in names if not name.name.endswith("Storage")]
    if any(name.module == "numpy" for name in names):
        allowed += [getattr(np.dtypes, f"{kind}DType") for kind in ("Float64", "Float32", "Int64", "Int32", "Bool")]
    try:
        with safe_globals(allowed):
            checkpoint = torch.load(archive, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file provokes; there is no second way to load it
        if "allocate memory" in str(error):
            raise
        raise CorruptError("the checkpoint cannot be loaded", where=where, got=str(error)[-400:]) from error
    if not isinstance(checkpoint, dict):
        raise UnsupportedError("the checkpoint is not a dictionary", where=where, got=type(checkpoint).__name__)
    return checkpoint


def _named(name: GlobalName, where: str) -> Any:  # noqa: ANN401 - a class or function
    module = {"__builtin__": "builtins", "numpy.core.multiarray": "numpy._core.multiarray"}.get(
        name.module, name.module
    )
    module = "pathlib" if module == "pathlib._local" else module
    pure = {"WindowsPath": "PureWindowsPath", "PosixPath": "PurePosixPath"}
    try:
        found = getattr(importlib.import_module(module), pure.get(name.name, name.name))
    except (ImportError, AttributeError) as error:
        raise UnsupportedError(
            "the installed Ultralytics does not know a class of this checkpoint",
            where=where,
            got=str(name),
            hint="pip install --upgrade 'shipsight[ultralytics]'",
        ) from error
    return (found, str(name))


def _choose_model(checkpoint: dict[str, Any], where: str) -> Any:  # noqa: ANN401 - a torch module
    model: Any = checkpoint.get("ema") or checkpoint.get("model")
    kind = type(model).__name__
    if kind not in MODELS or not type(model).__module__.startswith("ultralytics.nn.tasks"):
        raise UnsupportedError(
            "the checkpoint holds no model that is handled", where=where, expected=sorted(MODELS), got=kind
        )
    layers = model._modules.get("model")  # noqa: SLF001 - the network's own table, before any of its code runs
    if layers is None or not len(layers):
        raise CorruptError("the checkpoint's model has no layers", where=where)
    head = type(layers[-1]).__name__
    if HEADS.get(head) != MODELS[kind]:
        raise UnsupportedError(
            "model and head do not belong together", where=where, expected=f"a {MODELS[kind]} head", got=head
        )
    return model
