# SPDX-License-Identifier: Apache-2.0
"""`shipsight watch`: a bundle's predictions on a camera, a video file or a stream, until it ends or is told to."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from shipsight.cli.output import print_json, screen, warn
from shipsight.cli.predict import class_ids
from shipsight.errors import UsageError

if TYPE_CHECKING:
    from shipsight.vision import PredictSettings
    from shipsight.watch import Capture, Connected, Frame, FrameSink, SourceBroken, WatchSummary

__all__ = ["watch_command"]


# Long, since each option of the command line stands in its signature.
def watch_command(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            envvar="SHIPSIGHT_SOURCE",
            help="Camera index, /dev/video*, video file, or address (rtsp://...).",
        ),
    ],
    bundle: Annotated[Path, typer.Option(help="Bundle: a folder or a zip file.")],
    variant: Annotated[str | None, typer.Option(help="Variant; default: the bundle's own.")] = None,
    conf: Annotated[float | None, typer.Option(help="Least score; default 0.25, with --track 0.1.")] = None,
    iou: Annotated[float, typer.Option(help="Overlap above which the lower-scored box is suppressed.")] = 0.7,
    max_det: Annotated[int, typer.Option(help="Most predictions a frame.")] = 300,
    classes: Annotated[str | None, typer.Option(help="Class ids to keep, comma-separated.")] = None,
    agnostic_nms: Annotated[
        bool, typer.Option("--agnostic-nms", help="Boxes of different classes suppress each other.")
    ] = False,
    track: Annotated[bool, typer.Option("--track", help="Follow objects from frame to frame.")] = False,
    out: Annotated[str | None, typer.Option(help="File for a line of JSON a frame; - for standard output.")] = None,
    video: Annotated[Path | None, typer.Option(help="Video with the predictions drawn: .mp4, .mkv, .avi.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    realtime: Annotated[bool, typer.Option("--realtime", help="A file plays in its own time.")] = False,
    frames: Annotated[int | None, typer.Option(min=1, help="End after so many frames.")] = None,
    seconds: Annotated[float | None, typer.Option(help="End after so many seconds.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds of silence after which a stream is broken.")] = 10.0,
    longest_pause: Annotated[float, typer.Option(help="Longest pause before a source is opened again.")] = 30.0,
    give_up: Annotated[float | None, typer.Option(help="Seconds without a frame to end after; default: never.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda[:index].")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Engine threads; default: one per core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what it came to as JSON.")] = False,
) -> None:
    """Predict on video as it comes; a live source that breaks is opened again. Ctrl-C ends it with files complete."""
    from shipsight.predictor import load
    from shipsight.vision import TRACK_CONF, PredictSettings, Tracker
    from shipsight.watch import Capture, CaptureOptions, parse_source

    watched = parse_source(source)
    if as_json and out == "-":
        raise UsageError("standard output takes one of the two", where="--json", got="--out -")
    settings = PredictSettings(
        conf=(TRACK_CONF if track else 0.25) if conf is None else conf,
        iou=iou,
        max_det=max_det,
        classes=class_ids(classes),
        agnostic_nms=agnostic_nms,
    )
    reading = CaptureOptions(timeout_s=timeout, longest_pause_s=longest_pause, give_up_s=give_up, is_realtime=realtime)
    wanted = _Wanted(seconds)
    with contextlib.ExitStack() as open_things:
        model = open_things.enter_context(load(bundle, variant=variant, device=device, threads=threads))
        _check_model(model.card, settings, track=track)
        tracker = Tracker() if track else None
        head = {"model": model.card.name, "version": model.card.version, "variant": model.variant.name}
        narrator = _Narrator(watched.name)
        capture = Capture(watched, reading, on_event=narrator.tell)
        sinks = _open_sinks(open_things, capture, head, out=out, video=video, force=force)

        def answer(frame: Frame) -> Any:  # noqa: ANN401 - ImagePredictions, imported lazily
            found = model.predict_one(f"{watched.name}#{frame.index}", frame.image_rgb, settings)
            return found if tracker is None else tracker.update(found)

        with wanted:
            open_things.enter_context(capture)
            summary = _run(capture, answer, [*sinks, narrator], frames, wanted)
    _print_summary(
        summary,
        {"source": watched.name, **head, "out": out, "video": None if video is None else str(video)},
        tracks=None if tracker is None else tracker.confirmed,
        as_json=as_json,
        to_stderr=out == "-",
    )


def _run(capture: Capture, answer: Any, sinks: list[FrameSink], frames: int | None, wanted: _Wanted) -> WatchSummary:  # noqa: ANN401 - a function
    from shipsight.watch import watch

    return watch(capture, answer, sinks, most_frames=frames, is_wanted=wanted.is_wanted)


class _Wanted:
    """Whether to go on: until a time has passed, Ctrl-C, or SIGTERM. A second Ctrl-C ends at once."""

    def __init__(self, seconds: float | None) -> None:
        if seconds is not None and not seconds > 0:
            raise UsageError("time out of range", where="--seconds", expected="above 0", got=seconds)
        self._until_s = None if seconds is None else time.monotonic() + seconds
        self._was_told = False
        self._before: dict[int, Any] = {}

    def is_wanted(self) -> bool:
        return not self._was_told and (self._until_s is None or time.monotonic() < self._until_s)

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._hear)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: object) -> None:
        self._was_told = True
        signal.signal(number, self._before[number])


class _Narrator:
    """Tells people on standard error what happens to the source, and each second how far it is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._console = screen(stderr=True)
        self._count, self._shown_s = 0, time.monotonic()

    def tell(self, event: Connected | SourceBroken) -> None:
        from shipsight.watch import Connected

        if isinstance(event, Connected):
            rate = "" if event.fps is None else f", {event.fps:g} frames/s"
            self._console.print(f"{self._name}: {event.width} x {event.height}{rate}", markup=False, soft_wrap=True)
        else:
            warn("source-broken", f"{self._name}: {event.reason}; opened again in {event.pause_s:g} s")

    def write(self, frame: Frame, predictions: Any) -> None:  # noqa: ANN401 - ImagePredictions
        self._count += 1
        now_s = time.monotonic()
        if not self._console.is_terminal or now_s - self._shown_s < 1:
            return
        rate = self._count / (now_s - self._shown_s)
        line = f"frame {frame.index}, {rate:.1f} a second, {frame.dropped} left out, {len(predictions)} predictions"
        self._console.print(f"\r\x1b[K{line}", end="", markup=False, soft_wrap=True)
        self._count, self._shown_s = 0, now_s


def _check_model(card: Any, settings: PredictSettings, *, track: bool) -> None:  # noqa: ANN401 - Card, imported lazily
    unknown = [one for one in settings.classes or () if one >= len(card.class_names)]
    if unknown:
        raise UsageError("no such class", where="--classes", expected=f"0 to {len(card.class_names) - 1}", got=unknown)
    if track and card.task.value == "classify":
        raise UsageError("a classifier's answers cannot be tracked", where="--track", got=card.task.value)


def _open_sinks(
    open_things: contextlib.ExitStack,
    capture: Capture,
    head: dict[str, str],
    *,
    out: str | None,
    video: Path | None,
    force: bool,
) -> list[FrameSink]:
    """Opens what is written; refuses to replace what is there."""
    from shipsight.watch import JsonLines, VideoFile

    for path in (None if out in (None, "-") else Path(str(out)), video):
        if path is not None and path.exists() and not force:
            raise UsageError("the file is there already", where=path, hint="Give --force to replace it.")
    sinks: list[FrameSink] = []
    if video is not None:
        file = VideoFile(video, capture)
        open_things.callback(file.close)
        sinks.append(file)
    if out is not None:
        stream: TextIO = sys.stdout
        if out != "-":
            try:
                stream = open_things.enter_context(Path(out).open("w", encoding="utf-8"))  # noqa: SIM115 - the stack closes it
            except OSError as error:
                raise UsageError("the file cannot be written", where=out, got=error) from error
        sinks.append(JsonLines(stream, out, head))
    return sinks


def _print_summary(
    summary: WatchSummary, about: dict[str, Any], *, tracks: int | None, as_json: bool, to_stderr: bool
) -> None:
    if as_json:
        told = {
            "frames": summary.frames,
            "dropped": summary.dropped,
            "reconnects": summary.reconnects,
            "seconds": round(summary.seconds, 3),
            "tracks": tracks,
        }
        print_json({**about, **told})
        return
    rate = summary.frames / summary.seconds if summary.seconds else 0.0
    told_tracks = "" if tracks is None else f", {tracks} objects followed"
    console = screen(stderr=to_stderr)
    console.print(
        f"{summary.frames} frames in {summary.seconds:.1f} s ({rate:.1f} a second), {summary.dropped} left out, "
        f"opened again {summary.reconnects} times{told_tracks}",
        markup=False,
        soft_wrap=True,
    )
    for name in ("out", "video"):
        if about[name] not in (None, "-"):
            console.print(f"{name}: {about[name]}", markup=False, soft_wrap=True)
