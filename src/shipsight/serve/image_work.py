# SPDX-License-Identifier: Apache-2.0
"""One image's way through a model, in one thread: from its bytes to predictions. Knows nothing of queues. Private to the room."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from shipsight.access.extraction import Samples, sample_of
from shipsight.errors import DeadlineError
from shipsight.model import ImagePredictions
from shipsight.serve.limits import Limits
from shipsight.serve.models import ServedModel
from shipsight.serve.questions import EncodedImage, Pixels, Question
from shipsight.serve.runner import Runner
from shipsight.serve.steps import Seen, StepTable
from shipsight.serve.stopwatch import Stopwatch
from shipsight.vision import decode_image, postprocess, predict_windows, prepare, to_tensor

__all__ = ["Done", "ImageWork", "Observer"]


class Observer:
    """Told of every job that ends; the default tells nobody."""

    def image_done(self, model: str, version: str, variant: str, stages_ms: Mapping[str, float]) -> None:
        """An image was predicted on."""


@dataclass(frozen=True, eq=False)
class Done:
    """What was made of one image.

    Attributes:
        predictions: of the model.
        stages_ms: milliseconds by stage, waiting for a thread (`queue`) included.
        rendered: what the question's `render` made, None without it.
        spans: `(stage, begin, end)`, monotonic seconds, in order.
        samples: of the pixels, None where nobody looks.
        shown_rgb: the image that the predictions are in the pixels of, where a step of the operator's made another one; else None.
    """

    predictions: ImagePredictions
    stages_ms: Mapping[str, float]
    rendered: bytes | None
    spans: tuple[tuple[str, float, float], ...]
    samples: Samples | None = None
    shown_rgb: Pixels | None = None

    @property
    def took_ms(self) -> float:
        """Milliseconds of work, without waiting for a thread."""
        return sum(ms for stage, ms in self.stages_ms.items() if stage != "queue")


@dataclass(frozen=True, eq=False)
class ImageWork:
    """Does images one by one, in whatever thread it is called.

    Attributes:
        limits: on what a request may ask.
        steps: the operator's own.
        observer: told of every image that is done.
        is_alone: tells whether no other job runs: then the engine may take all cores.
        clock: monotonic seconds.
    """

    limits: Limits
    steps: StepTable
    observer: Observer
    is_alone: Callable[[], bool]
    clock: Callable[[], float]

    def do(
        self,
        model: ServedModel,
        runner: Runner,
        image: EncodedImage,
        question: Question,
        queued_s: float,
        *,
        is_shadow: bool = False,
        looks: bool = False,
        counts: bool = True,
    ) -> Done:
        """Does one image, in a thread of the scheduler; for a shadow in another one, on the cores that are left.

        Args:
            model: that is asked.
            runner: its variant that answers.
            image: of the question.
            question: that it is asked in.
            queued_s: when it was queued, by the clock.
            is_shadow: whether nobody waits for it.
            looks: whether samples are taken of what was asked.
            counts: whether the observer is told.

        Raises:
            ImageError: it cannot be used.
            DeadlineError: the answer's time passed between windows.
            StepError: a step of the operator's failed.
            EngineDiedError: the model's worker process ended meanwhile.
        """
        is_alone = not is_shadow and self.is_alone()
        steps = self.steps.of(model.name)
        watch = Stopwatch(self.clock, queued_s)
        watch.end("queue")
        pixels = decode_image(image.data, max_pixels=self.limits.image_pixels)
        watch.end("decode")
        seen = Seen(pixels, pixels)
        samples = sample_of(pixels) if looks else None
        if steps is not None:
            seen = steps.before(pixels)
            watch.end("steps")

        def predict(part: Pixels) -> ImagePredictions:
            prepared, geometry = prepare(part, runner.card.input)
            tensor = to_tensor(prepared, runner.card.input, runner.variant.layout)
            watch.end("prepare")
            outputs = runner.infer(tensor, is_alone=is_alone)
            watch.end("infer")
            predicted = postprocess(
                outputs,
                card=runner.card,
                form=runner.variant.form,
                geometry=geometry,
                settings=question.settings,
                source=image.source,
            )
            watch.end("postprocess")
            return predicted

        is_whole = question.tiles is None
        predictions = predict(seen.image_rgb) if is_whole else self._tiled(seen.image_rgb, predict, runner, question)
        if steps is not None:
            watch.end("postprocess")
            predictions = steps.after(seen.shown_rgb, seen.place(predictions))
            watch.end("steps")
        rendered = None if question.render is None else question.render(seen.shown_rgb, predictions)
        watch.end("postprocess")
        if counts and not is_shadow:
            self.observer.image_done(model.name, model.version, runner.variant.name, watch.stages_ms)
        shown_rgb = None if seen.shown_rgb is pixels else seen.shown_rgb
        return Done(predictions, watch.stages_ms, rendered, tuple(watch.spans), samples, shown_rgb)

    def _tiled(
        self, pixels: Pixels, predict: Callable[[Pixels], ImagePredictions], runner: Runner, question: Question
    ) -> ImagePredictions:
        assert question.tiles is not None  # the caller asked
        until_s = self.clock() + self.limits.seconds(question.deadline_s)

        def in_time(part: Pixels) -> ImagePredictions:
            # One image may be many windows: work that nobody can use ends between them.
            if self.clock() > until_s:
                raise DeadlineError("the answer's time passed between windows", where="tile")
            return predict(part)

        return predict_windows(
            pixels,
            in_time,
            tiles=question.tiles,
            settings=question.settings,
            task=runner.card.task,
            most=max(self.limits.windows // max(len(question.images), 1), 1),
        )
