# SPDX-License-Identifier: Apache-2.0
"""`shipsight predict`: a bundle's predictions on files, folders, globs and video files."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipsight.cli.output import make_table, print_json, screen, warn
from shipsight.errors import ImageError, ImageUnreadableError, UsageError

if TYPE_CHECKING:
    from shipsight.model import ImagePredictions

__all__ = ["class_ids", "drawn_name", "expand_sources", "predict_command"]

_IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
_VIDEO_SUFFIXES = {".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"}


def predict_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or a zip file.")],
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Images, folders, globs, video files.")],
    variant: Annotated[str | None, typer.Option(help="Variant; default: the bundle's own.")] = None,
    conf: Annotated[float, typer.Option(help="Least score.")] = 0.25,
    iou: Annotated[float, typer.Option(help="Overlap above which the lower-scored box is suppressed.")] = 0.7,
    max_det: Annotated[int, typer.Option(help="Most predictions an image.")] = 300,
    classes: Annotated[str | None, typer.Option(help="Class ids to keep, comma-separated.")] = None,
    agnostic_nms: Annotated[
        bool, typer.Option("--agnostic-nms", help="Boxes of different classes suppress each other.")
    ] = False,
    tile: Annotated[int | None, typer.Option(help="Cut images into windows of this side in pixels.")] = None,
    overlap: Annotated[float, typer.Option(help="Share of a window that the next one covers too.")] = 0.2,
    no_whole: Annotated[bool, typer.Option("--no-whole", help="The whole image is no window.")] = False,
    draw: Annotated[Path | None, typer.Option(help="Folder for the images with predictions drawn.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda[:index].")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Engine threads; default: one per core.")] = None,
    steps: Annotated[
        Path | None, typer.Option(help="Python file with steps of your own, as for shipsight serve.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print predictions as JSON.")] = False,
) -> None:
    """Predict on images and videos; unreadable ones are named and the others still answered (exit 2)."""
    from shipsight.predictor import load
    from shipsight.vision import PredictSettings, TileSettings
    from shipsight.vision import draw as draw_predictions

    settings = PredictSettings(
        conf=conf, iou=iou, max_det=max_det, classes=class_ids(classes), agnostic_nms=agnostic_nms
    )
    tiles = None if tile is None else TileSettings(tile, overlap, not no_whole)
    paths = expand_sources(sources)
    failures: list[ImageError] = []
    images: list[dict[str, Any]] = []
    rows: list[Sequence[str]] = []
    taken: set[str] = set()
    with ExitStack() as stack:
        model = stack.enter_context(load(bundle, variant=variant, device=device, threads=threads))
        ask = partial(model.predict_one, settings=settings, tiles=tiles)
        predict_one = _with_steps(model.card.name, ask, steps, stack)
        unknown = [c for c in settings.classes or () if c >= len(model.card.class_names)]
        if unknown:
            raise UsageError(
                "no such class", where="--classes", expected=f"0 to {len(model.card.class_names) - 1}", got=unknown
            )
        for path in paths:
            try:
                for name, pixels in _each_frame(path):
                    answer, shown = predict_one(name, pixels)
                    images.append(answer.to_dict())
                    rows.append([name, _summary(answer)])
                    if draw is not None:
                        target = draw / drawn_name(name, taken)
                        _write_drawn(target, draw_predictions(shown, answer))
            except ImageError as error:
                failures.append(error)
        if as_json:
            whole = {"model": model.card.name, "version": model.card.version, "variant": model.variant.name}
            print_json({**whole, "images": images, "errors": [one.to_dict() for one in failures]})
        else:
            table = make_table(["image", "predictions"], rows)
            table.columns[1].justify = "left"
            table.columns[1].no_wrap = False
            screen().print(table)
            if draw is not None:
                screen().print(f"\nDrawn images: {draw}")
    for failure in failures:
        warn(failure.code, str(failure))
    if failures:
        raise typer.Exit(2)


def expand_sources(sources: Sequence[str]) -> list[Path]:
    """Returns the files that paths, folders and globs mean, each once, folders in name order.

    Raises:
        UsageError: a source means no image or video at all.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in _IMAGE_SUFFIXES | _VIDEO_SUFFIXES)
        elif path.exists():
            files = [path]
        else:
            matches = glob.glob(source, recursive=True)  # noqa: PTH207 - a pattern may be absolute
            files = sorted(p for p in map(Path, matches) if p.is_file())
        if not files:
            raise UsageError("no image or video there", where=source, hint="Give a file, a folder or a quoted glob.")
        found.update(dict.fromkeys(files))
    return list(found)


def _with_steps(
    model: str, ask: Callable[[str, Any], ImagePredictions], file: Path | None, stack: ExitStack
) -> Callable[[str, Any], tuple[ImagePredictions, Any]]:
    """Returns what predicts on an image and tells the image that the predictions are on."""
    if file is None:
        return lambda name, pixels: (ask(name, pixels), pixels)
    from shipsight.serve import StepSettings
    from shipsight.serve.steps import StepTable

    table = StepTable(StepSettings((("", file),), workers=1))
    stack.callback(table.close)
    table.open()
    pool = table.of(model)
    assert pool is not None

    def predict(name: str, pixels: Any) -> tuple[ImagePredictions, Any]:  # noqa: ANN401
        seen = pool.before(pixels)
        answer = seen.place(ask(name, seen.image_rgb))
        return pool.after(seen.shown_rgb, answer), seen.shown_rgb

    return predict


def class_ids(text: str | None) -> tuple[int, ...] | None:
    """Reads class ids as the command line takes them, None for all.

    Raises:
        UsageError: it is no list of whole numbers.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UsageError("not a list of class ids", where="--classes", expected="0,2,5", got=repr(text))
    return tuple(int(part) for part in parts)


def _each_frame(path: Path) -> Iterator[tuple[str, Any]]:
    from shipsight.vision import decode_image

    if path.suffix.lower() not in _VIDEO_SUFFIXES:
        yield str(path), decode_image(path)
        return
    import cv2

    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened():
            raise ImageUnreadableError("not a video that can be read", where=path)
        index = 0
        while True:
            there, frame_bgr = video.read()
            if not there:
                break
            yield f"{path}#{index}", frame_bgr[..., ::-1].copy()
            index += 1
        if index == 0:
            raise ImageUnreadableError("the video has no frame that can be read", where=path)
    finally:
        video.release()


def _summary(answer: Any) -> str:  # noqa: ANN401 - ImagePredictions, imported lazily
    if answer.probabilities is not None:
        order = answer.probabilities.argsort()[::-1][:3]
        return ", ".join(f"{answer.class_names[i]} {answer.probabilities[i]:.3f}" for i in order)
    counts: dict[str, int] = {}
    for class_id in answer.class_ids:
        name = answer.class_names[int(class_id)]
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} x {name}" for name, count in sorted(counts.items(), key=lambda kv: -kv[1])) or "nothing"


def drawn_name(source: str, taken: set[str]) -> str:
    """Returns a file name for a drawn image and takes it; sources of one name get `-2`, `-3`, ..."""
    file, _, frame = Path(source).name.partition("#")
    stem = Path(file).stem + (f"-{int(frame):06d}" if frame.isdecimal() else "")
    name, count = f"{stem}.jpg", 1
    while name in taken:
        count += 1
        name = f"{stem}-{count}.jpg"
    taken.add(name)
    return name


def _write_drawn(target: Path, image_rgb: Any) -> None:  # noqa: ANN401 - pixels
    import cv2

    target.parent.mkdir(parents=True, exist_ok=True)
    written, data = cv2.imencode(".jpg", image_rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not written:
        raise ImageError("the drawn image could not be encoded", where=target)
    target.write_bytes(data.tobytes())
