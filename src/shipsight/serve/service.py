# SPDX-License-Identifier: Apache-2.0
"""What every protocol asks: images or a tensor in, predictions or tensors out. Knows nothing of wire formats.

Each image is a job of its own (`image_work`), on the scheduler's threads; the event loop only waits. A caller that leaves cancels
what has not begun. Every call says who asks. Stable.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from shipsight.access import Action, Principal
from shipsight.access.quotas import Quotas, turn_of
from shipsight.errors import (
    InputError,
    LimitError,
    NotFoundError,
    NotReadyError,
    OverloadedError,
    ServiceError,
    UsageError,
)
from shipsight.model import Card, ImagePredictions, Predictions
from shipsight.monitor.answered import Answered
from shipsight.serve.gate import Gate
from shipsight.serve.image_work import Done, ImageWork, Observer
from shipsight.serve.limits import Limits
from shipsight.serve.models import Models, ModelState, ServedModel
from shipsight.serve.predicted import PredictionLog, recording
from shipsight.serve.questions import Answer, EncodedImage, Inference, Question, Target
from shipsight.serve.request_notes import is_sealed, note_model, note_stages
from shipsight.serve.rollout_control import RolloutControl
from shipsight.serve.rollout_record import RolloutRecord
from shipsight.serve.runner import Runner
from shipsight.serve.scheduler import LaneClosedError, Scheduler
from shipsight.serve.sealed_only import SealedOnly
from shipsight.serve.shadow import Mirrored, Shadow
from shipsight.serve.steps import StepTable
from shipsight.serve.suspicion import Suspicion
from shipsight.serve.turns import has_room
from shipsight.serve.watching import Watching
from shipsight.vision import PredictSettings

__all__ = ["PredictionService"]

T = TypeVar("T")
_AGAIN_S = 0.1


class PredictionService:
    """Answers questions with the models in service.

    Args:
        models: in service.
        scheduler: theirs.
        limits: on what a request may ask.
        observer: told of what is done.
        rollouts: divide requests that name no version; None for a server that keeps no decisions.
        steps: the operator's own, None for none.
        gate: lets requests in; None for a server that is open to its own machine.
        quotas: limits of principals, None for none.
        suspicion: told of what principals who are told apart asked and were answered, None for nobody.
        sealed_only: which models take sealed requests only; None for none.
        predicted: told of every prediction, None for nobody.
        watching: told of every image that was answered, None for nobody; not of what a shadow says.
        clock: the scheduler's: monotonic seconds.
    """

    def __init__(
        self,
        models: Models,
        scheduler: Scheduler,
        limits: Limits,
        observer: Observer | None = None,
        *,
        rollouts: RolloutControl | None = None,
        steps: StepTable | None = None,
        gate: Gate | None = None,
        quotas: Quotas | None = None,
        suspicion: Suspicion | None = None,
        sealed_only: SealedOnly | None = None,
        predicted: PredictionLog | None = None,
        watching: Watching | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.models, self.gate, self.limits, self.quotas = models, gate or Gate(), limits, quotas
        self.rollouts = rollouts or RolloutControl(models, Shadow(models, scheduler), RolloutRecord(None))
        self._scheduler, self._clock = scheduler, clock
        self._work = ImageWork(limits, steps or StepTable(), observer or Observer(), scheduler.is_alone, clock)
        self._is_leaving = False
        self._suspicion, self._predicted, self._sealed_only = suspicion, predicted, sealed_only or SealedOnly()
        self._watching = watching
        self._under_way = 0
        self._under_way_of: dict[str, int] = {}

    async def predict(self, principal: Principal, question: Question) -> Answer:
        """Predicts on the images of a question.

        Args:
            principal: who asks.
            question: what.

        Raises:
            ForbiddenError: this model may not be asked.
            NotFoundError, NotReadyError, OverloadedError, DeadlineError: of the model and its queue.
            RateLimitError: a limit of the principal's is used up.
            ImageError: an image cannot be used.
            LimitError, UsageError: the question asks for more than is allowed, or for what there is not.
            StepError: a step of the operator's failed.
            EngineDiedError: the model's worker process ended meanwhile.
        """
        asked = question.target
        with recording(self._predicted, principal, asked.model, asked.version, len(question.images)) as told:
            answer = await self._predict(principal, question)
            found, counts = answer.predictions, [len(one.class_ids) for one in answer.predictions.images]
            told.answered(found.version, found.variant, sum(counts))
            return answer

    async def _predict(self, principal: Principal, question: Question) -> Answer:
        principal.require(Action.MODELS_PREDICT, question.target.model)
        self._sealed_only.check(question.target.model, [one.data for one in question.images])
        self._check(question)
        deadline_s = self._deadline(question.deadline_s)

        def queue(model: ServedModel, runner: Runner) -> list[Future[Done]]:
            _check_classes(question.settings, runner.card)
            work = partial(self._work.do, looks=self._suspicion is not None and turn_of(principal) is not None)
            # Of a sealed request one image counts: metrics, read by who may not open it, do not tell how many were in it.
            runs = [
                partial(work, model, runner, image, question, self._clock(), counts=place == 0 or not is_sealed())
                for place, image in enumerate(question.images)
            ]
            return self._queue_all(principal, model, runs, deadline_s)

        asked = _Asked(principal, question.target, len(question.images), deadline_s)
        model, runner, done = await self._run(asked, queue)
        self._mirror(model, question, done)
        for one in done:
            if one.samples is not None and self._suspicion is not None:
                self._suspicion.tell(principal, model.name, one.samples, one.predictions, conf=question.settings.conf)
        stages = {stage: sum(one.stages_ms[stage] for one in done) for stage in done[0].stages_ms}
        note_stages([(image, *span) for image, one in enumerate(done) for span in one.spans])
        predictions = Predictions(
            model=model.name,
            version=model.version,
            variant=runner.variant.name,
            images=tuple(one.predictions for one in done),
        )
        self._watch(predictions, question, done)
        return Answer(predictions, stages, tuple(one.rendered for one in done if one.rendered is not None))

    def check(self, principal: Principal, target: Target, settings: PredictSettings) -> Card:
        """Refuses what no image could be asked with; returns the model's card.

        Args:
            principal: who asks.
            target: of whom.
            settings: thresholds.

        Raises:
            ForbiddenError: this model may not be asked.
            NotFoundError, NotReadyError: of the model.
            LimitError, UsageError: the settings ask for more than is allowed, or for what there is not.
        """
        principal.require(Action.MODELS_PREDICT, target.model)
        self._sealed_only.check(target.model)
        runner = self.models.get(target.model, target.version, target.key).runner(target.variant)
        self.limits.check_detections(settings.max_det)
        _check_classes(settings, runner.card)
        return runner.card

    def leave(self) -> None:
        """Is no more ready: the server drains."""
        self._is_leaving = True

    def is_ready(self) -> bool:
        """Tells whether new requests are welcome: all models answer, no queue is hopeless, the server stays."""
        models = self.models.all()
        is_ready = bool(models or self.models.repository) and all(one.answers for one in models)
        return is_ready and not self.models.is_starting and not self._is_leaving and not self.hopeless()

    def hopeless(self) -> list[str]:
        """Returns the models whose queues are so long that a new request would be refused."""
        return [
            model.name
            for model in self.models.all()
            if self._scheduler.load(model.lane).wait_s > self.limits.deadline_s
        ]

    def loads(self) -> dict[str, dict[str, float]]:
        """Returns what each model's queue holds, by `name/version`."""
        found = {}
        for model in self.models.all():
            load = self._scheduler.load(model.lane)
            found[f"{model.name}/{model.version}"] = {
                "waiting": load.waiting,
                "running": load.running,
                "wait_s": round(load.wait_s, 4),
            }
        return found

    async def infer(
        self, principal: Principal, target: Target, tensor: NDArray[Any], *, deadline_s: float | None = None
    ) -> Inference:
        """Runs one tensor through a variant.

        Args:
            principal: who asks.
            target: of whom.
            tensor: as the variant takes it, batch first; several batches of the variant's own are run one by one.
            deadline_s: as in `Question`.

        Raises:
            ForbiddenError: this model may not be asked.
            TensorError: shape or type differ.
            NotFoundError, NotReadyError, OverloadedError, DeadlineError, RateLimitError: as `predict`.
        """
        with recording(self._predicted, principal, target.model, target.version, len(tensor)) as told:
            model, runner, found = await self._infer(principal, target, tensor, deadline_s)
            told.answered(model.version, runner.variant.name, None)
            return found

    async def _infer(
        self, principal: Principal, target: Target, tensor: NDArray[Any], deadline_s: float | None
    ) -> tuple[ServedModel, Runner, Inference]:
        principal.require(Action.MODELS_PREDICT, target.model)
        self._sealed_only.check(target.model)
        until_s = self._deadline(deadline_s)
        if not 1 <= len(tensor) <= self.limits.images:
            raise LimitError(
                "more than this server allows", where="batch", expected=f"1 to {self.limits.images}", got=len(tensor)
            )

        def queue(model: ServedModel, runner: Runner) -> list[Future[tuple[dict[str, NDArray[Any]], float, float]]]:
            queued_s = self._clock()

            def run(part: NDArray[Any]) -> tuple[dict[str, NDArray[Any]], float, float]:
                begin_s = self._clock()
                outputs = runner.infer(part, is_alone=self._scheduler.is_alone())
                return outputs, begin_s - queued_s, self._clock() - begin_s

            runs = [partial(run, tensor[place : place + 1]) for place in range(len(tensor))]
            return self._queue_all(principal, model, runs, until_s)

        model, runner, done = await self._run(_Asked(principal, target, len(tensor), until_s), queue)
        parts, waits_s, runs_s = zip(*done, strict=True)
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return model, runner, Inference(outputs, {"queue": sum(waits_s) * 1e3, "infer": sum(runs_s) * 1e3})

    def _queue_all(
        self, principal: Principal, model: ServedModel, runs: Sequence[Callable[[], T]], deadline_s: float
    ) -> list[Future[T]]:
        """Queues all or none."""
        jobs: list[Future[T]] = []
        owner = turn_of(principal)
        try:
            for run in runs:
                jobs.append(self._scheduler.submit(model.lane, run, deadline_s=deadline_s, owner=owner))
        except BaseException:
            for job in jobs:
                job.cancel()
            raise
        return jobs

    async def model_for(self, target: Target, *, deadline_s: float | None = None) -> ServedModel:
        """Returns the model that a target means, ready; one that was pushed out is loaded first.

        Args:
            target: of a request.
            deadline_s: as in `Question`.

        Raises:
            NotFoundError: it is not in service.
            NotReadyError: it is not ready, or would be too late.
        """
        return await self._model_until(target, self._deadline(deadline_s))

    async def _model_until(self, target: Target, until_s: float) -> ServedModel:
        while True:
            model = self.models.find(target.model, target.version, target.key)
            if model.state is not ModelState.EVICTED:
                return self.models.get(target.model, target.version, target.key)
            waking = self.models.wake(model)
            left_s = until_s - self._clock()
            if left_s < model.load_s:
                return self.models.get(target.model, target.version, target.key)
            try:
                await asyncio.wait_for(asyncio.wrap_future(waking), left_s)
            except TimeoutError:
                return self.models.get(target.model, target.version, target.key)
            except NotReadyError:
                # The others have work: within the deadline one of them may be idle for a moment.
                if self._clock() + model.load_s + _AGAIN_S > until_s:
                    raise
                await asyncio.sleep(_AGAIN_S)

    async def _run(
        self, asked: _Asked, queue: Callable[[ServedModel, Runner], list[Future[T]]]
    ) -> tuple[ServedModel, Runner, list[T]]:
        """Queues jobs and waits for them; where a model was replaced in between, the one in its place is asked."""
        most, owner = self.limits.requests, turn_of(asked.principal)
        held = 0 if owner is None else self._under_way_of.get(owner, 0)
        if self._under_way >= most or (owner is not None and not has_room(held, self._under_way, most)):
            raise OverloadedError("too many requests at once", where="requests", expected=f"at most {most}")
        self._under_way += 1
        if owner is not None:
            self._under_way_of[owner] = held + 1
        try:
            return await self._run_within_limits(asked, queue)
        finally:
            self._under_way -= 1
            if owner is not None:
                left = self._under_way_of[owner] = self._under_way_of[owner] - 1
                if not left:
                    del self._under_way_of[owner]

    async def _run_within_limits(
        self, asked: _Asked, queue: Callable[[ServedModel, Runner], list[Future[T]]]
    ) -> tuple[ServedModel, Runner, list[T]]:
        begin_s = self._clock()
        target, until_s = asked.target, asked.until_s
        if self.quotas is not None:
            # Only of what is served: names that clients make up are not counted.
            model = self.models.find(target.model, target.version, target.key)
            await self.quotas.take(asked.principal, model.name, images=asked.images)
        while True:
            model = await self._model_until(target, until_s)
            try:
                runner = model.runner(target.variant)
                jobs = queue(model, runner)
            except LaneClosedError:
                continue
            except NotFoundError:
                if model.state is ModelState.READY:
                    raise
                continue  # it left between being found and being asked
            except ServiceError:
                self._count(target, model, begin_s, has_failed=True)
                raise
            break
        note_model(model.name, model.version, runner.variant.name)
        waiting = [asyncio.wrap_future(job) for job in jobs]
        try:
            found = list(await asyncio.gather(*waiting))
        except Exception as error:
            # What the caller did wrong says nothing of the version.
            if not isinstance(error, InputError | LimitError):
                self._count(target, model, begin_s, has_failed=True)
            raise
        finally:
            # One that failed, or a caller that left: what has not begun need not.
            for job in jobs:
                job.cancel()
        self._count(target, model, begin_s, has_failed=False)
        return model, runner, found

    def _count(self, target: Target, model: ServedModel, begin_s: float, *, has_failed: bool) -> None:
        if target.version is None:
            self.rollouts.count(model.name, model.version, self._clock() - begin_s, has_failed=has_failed)

    def _mirror(self, model: ServedModel, question: Question, done: Sequence[Done]) -> None:
        """Has a shadow asked again what was answered, if there is one; costs the caller nothing but this call."""
        if question.target.version is not None or self.models.rollouts.of(model.name).shadow is None:
            return
        again = replace(question, images=(), render=None)  # each keeps its own image alone

        def ask(image: EncodedImage, shadow: ServedModel) -> tuple[ImagePredictions, float]:
            one = self._work.do(shadow, shadow.runner(None), image, again, self._clock(), is_shadow=True)
            return one.predictions, one.took_ms

        images = [
            Mirrored(one.predictions, one.took_ms, question.settings.conf, len(image.data), partial(ask, image))
            for image, one in zip(question.images, done, strict=True)
        ]
        self.rollouts.shadow.mirror(model, question.target.key, images)

    def subject_of(self, headers: Callable[[str], Sequence[str]]) -> str | None:
        """Returns whom a request says that it is of, in the header that the recording policy names; None where it says nothing, or two things.

        Args:
            headers: gives the values of a header by its name, in lower case.
        """
        name = None if self._watching is None else self._watching.subject_header
        given = () if name is None else headers(name)
        if len(given) != 1:
            return None
        try:
            # HTTP's headers come as bytes, which are read as Latin-1: people erase by the name as they write it.
            return given[0].encode("latin-1").decode().strip() or None
        except UnicodeError:
            return given[0].strip() or None

    def _watch(self, answered: Predictions, question: Question, done: Sequence[Done]) -> None:
        if self._watching is None or not self._watching.wants(answered.model, answered.version, answered.variant):
            return
        sealed, is_drifting = is_sealed(), self._watching.is_drifting(answered.model)
        told = [
            Answered(
                image.data if one.shown_rgb is None else one.shown_rgb,
                one.predictions,
                answered.model,
                answered.version,
                answered.variant,
                subject=question.subject,
                is_sealed=sealed,
                is_drifting=is_drifting,
            )
            for image, one in zip(question.images, done, strict=True)
        ]
        # Of a sealed request one image counts: counts, read by who may not open it, do not tell how many were in it.
        self._watching.tell(told[:1] if sealed else told)

    def _check(self, question: Question) -> None:
        if not question.images:
            raise UsageError("a request needs an image", where="images", got=0)
        self.limits.check_images(len(question.images))
        self.limits.check_detections(question.settings.max_det)

    def _deadline(self, asked_s: float | None) -> float:
        return self._clock() + self.limits.seconds(asked_s)


@dataclass(frozen=True, eq=False)
class _Asked:
    """Who asks whom, about how many images, and until when the answer must come."""

    principal: Principal
    target: Target
    images: int
    until_s: float


def _check_classes(settings: PredictSettings, card: Card) -> None:
    unknown = [one for one in settings.classes or () if not 0 <= one < len(card.class_names)]
    if unknown:
        raise UsageError(
            "no such class", where="classes", expected=f"0 to {len(card.class_names) - 1}", got=unknown[:10]
        )
