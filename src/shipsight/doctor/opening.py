# SPDX-License-Identifier: Apache-2.0
"""From what was given to a case: opens the bundle, finds the images, refuses what is not there. Private to the room."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from shipsight.doctor.case import Case
from shipsight.doctor.examination import Examination
from shipsight.errors import UsageError
from shipsight.model.bundle import Bundle, open_bundle

__all__ = ["choose_examinations", "find_images", "open_case"]

Given = TypeVar("Given")
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def open_case(
    bundle: Bundle | Path | str,
    *,
    images: Path | str | Iterable[Path | str],
    labels: Path | str | None,
    against: str | None,
    stages: Path | str | None,
    tensor: Path | str | None,
    predictions: Path | str | None,
    variant: str | None,
    limit: int,
    seed: int,
    threads: int | None,
) -> Case:
    """Returns the case that is meant; the arguments are those of `diagnose_accuracy`.

    Raises:
        UsageError: a file or folder is not there, a number is out of range, or two options exclude each other.
        ShipsightError: the bundle cannot be opened, or has no such variant.
    """
    for name, value, least in (("limit", limit, 1), ("seed", seed, 0), ("threads", threads, 1)):
        if value is not None and value < least:
            raise UsageError("number out of range", where=f"--{name}", expected=f"{least} or more", got=value)
    if tensor is not None and predictions is not None:
        raise UsageError(
            "one of the two says what is examined", where="--tensor", expected="without --predictions", got=predictions
        )
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    return Case(
        bundle=opened,
        variant=opened.default_variant if variant is None else opened.variant(variant),
        images=find_images([images] if isinstance(images, Path | str) else images),
        labels=_there(labels, "--labels"),
        stages=_there(stages, "--stages"),
        tensor=_file(tensor, "--tensor"),
        predictions=_file(predictions, "--predictions"),
        against=_check_against(against),
        limit=limit,
        seed=seed,
        threads=threads,
    )


def find_images(sources: Iterable[Path | str]) -> tuple[Path, ...]:
    """Returns the images that files and folders mean, each once: files as given, folders with all below in order of names.

    Args:
        sources: paths. Files are taken whatever they are called: whether one can be read is for an examination to say.

    Raises:
        UsageError: there is nothing, or no image in it.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        is_folder = path.is_dir()
        if not is_folder and not path.is_file():
            raise UsageError("no file or folder there", where=path, hint="Give images, or a folder of images.")
        # What is broken is kept: that is one of the things to find.
        files = sorted(one for one in path.rglob("*") if one.suffix.lower() in _SUFFIXES) if is_folder else [path]
        if not files:
            raise UsageError("no image in the folder", where=path, expected=" ".join(sorted(_SUFFIXES)))
        found.update(dict.fromkeys(files))
    return tuple(found)


def choose_examinations(
    examinations: Sequence[Examination[Given, Any]], only: Iterable[str] | None, case: Given
) -> tuple[Examination[Given, Any], ...]:
    """Returns the examinations that are asked for, in their own order.

    Args:
        examinations: all that there are.
        only: names of those to make; None for all.
        case: what is examined.

    Raises:
        UsageError: there is none of that name, or none can be made of what was given.
    """
    names = [one.name for one in examinations]
    wanted = names if only is None else list(only)
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise UsageError("no such examination", where="--only", expected=", ".join(names), got=", ".join(unknown))
    chosen = tuple(one for one in examinations if one.name in wanted)
    lacks = [(one.name, one.lacks(case)) for one in chosen]
    if all(lack is not None for _, lack in lacks):
        told = "; ".join(f"{name}: {lack}" for name, lack in lacks)
        raise UsageError("nothing can be examined with what was given", where="doctor", got=told)
    return chosen


def _there(path: Path | str | None, option: str) -> Path | None:
    if path is None:
        return None
    if not Path(path).exists():
        raise UsageError("no file or folder there", where=option, got=path)
    return Path(path)


def _file(path: Path | str | None, option: str) -> Path | None:
    found = _there(path, option)
    if found is not None and not found.is_file():
        raise UsageError("not a file", where=option, got=path)
    return found


def _check_against(against: str | None) -> str | None:
    if against is None or against.startswith(("http://", "https://")) or Path(against).exists():
        return against
    raise UsageError(
        "no model there",
        where="--against",
        expected="a model (.onnx, .xml or its folder), a checkpoint (.pt), or http(s)://host/path of a server",
        got=against,
    )
