# SPDX-License-Identifier: Apache-2.0
"""Models that come, are replaced and go while requests run; one that does not replay is never ready."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.serve.conftest import rewritten

from shipsight.access import LOOPBACK, SERVER
from shipsight.errors import NotFoundError, NotReadyError, ReplayMismatchError, UsageError
from shipsight.model import TensorLayout
from shipsight.model.bundle import open_bundle
from shipsight.serve.limits import Limits
from shipsight.serve.models import Models, ModelState
from shipsight.serve.open_inference import find_endpoint, list_endpoints
from shipsight.serve.opening import OpenSettings
from shipsight.serve.questions import EncodedImage, Question, Target
from shipsight.serve.scheduler import Scheduler
from shipsight.serve.service import PredictionService

STREAMS = OpenSettings(streams=2)


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler(3)
    yield made
    made.close()


@pytest.fixture
def models(scheduler: Scheduler) -> Iterator[Models]:
    made = Models(scheduler, STREAMS)
    yield made
    made.close()


@pytest.fixture
def service(models: Models, scheduler: Scheduler) -> PredictionService:
    return PredictionService(models, scheduler, Limits())


def ask(service: PredictionService, jpeg: bytes, **target: str) -> str:
    question = Question(Target("digits", **target), [EncodedImage(jpeg)])
    return asyncio.run(service.predict(LOOPBACK, question)).predictions.version


def test_a_model_that_does_not_replay_is_refused_and_never_answers(
    models: Models, service: PredictionService, digits_bundle: Path, tmp_path: Path, jpeg: bytes
) -> None:
    with pytest.raises(ReplayMismatchError):
        models.load(rewritten(digits_bundle, tmp_path / "other.bundle", weights_scale=1.5))
    (model,) = models.all()
    assert model.state is ModelState.FAILED
    with pytest.raises(NotReadyError):
        ask(service, jpeg)


def test_a_bad_reload_leaves_the_model_in_service(
    models: Models, service: PredictionService, digits_bundle: Path, tmp_path: Path, jpeg: bytes
) -> None:
    models.load(digits_bundle)
    with pytest.raises(ReplayMismatchError):
        models.load(rewritten(digits_bundle, tmp_path / "other.bundle", weights_scale=1.5))
    assert ask(service, jpeg) == "1"


def test_the_version_that_came_first_answers_unless_one_is_named_or_promoted(
    models: Models, service: PredictionService, digits_bundle: Path, tmp_path: Path, jpeg: bytes
) -> None:
    models.load(digits_bundle)
    models.load(rewritten(digits_bundle, tmp_path / "two.bundle", version="2"))
    assert ask(service, jpeg) == "1", "a version that comes takes no traffic by itself"
    assert ask(service, jpeg, version="2") == "2"
    models.load(digits_bundle)
    assert ask(service, jpeg) == "1", "nor does loading one anew change places"
    models.unload("digits", "1")
    assert ask(service, jpeg, version="2") == "2"
    with pytest.raises(NotFoundError, match="no such version"):
        ask(service, jpeg, version="1")
    models.unload("digits")
    with pytest.raises(NotFoundError, match="no such model"):
        ask(service, jpeg)
    with pytest.raises(NotFoundError):
        models.unload("digits")


def test_a5_loading_and_unloading_does_not_change_which_version_answers(
    models: Models, service: PredictionService, digits_bundle: Path, second_version: Path, jpeg: bytes
) -> None:
    """A5: who may load models and not promote them; in whatever order, and with all gone meanwhile."""
    models.load(digits_bundle)
    models.load(second_version)
    for act in (
        lambda: models.unload("digits", "1"),
        lambda: models.reload("digits", "2"),
        lambda: models.unload("digits"),
        lambda: models.load(second_version),
    ):
        act()
        assert models.current("digits") == "1"
        with pytest.raises(NotReadyError if models.all() else NotFoundError):
            ask(service, jpeg)
    models.load(digits_bundle)
    assert ask(service, jpeg) == "1"
    models.unload("digits", "1")
    assert service.rollouts.promote(SERVER, "digits", "2")
    assert ask(service, jpeg) == "2", "who may promote decides"


def test_version_that_could_not_be_loaded_did_not_come_first(
    models: Models, service: PredictionService, digits_bundle: Path, second_version: Path, tmp_path: Path, jpeg: bytes
) -> None:
    with pytest.raises(ReplayMismatchError):
        models.load(rewritten(digits_bundle, tmp_path / "other.bundle", weights_scale=1.5))
    models.load(second_version)
    assert models.current("digits") == ask(service, jpeg) == "2"


def test_no_request_is_lost_while_models_are_replaced(
    models: Models, service: PredictionService, digits_bundle: Path, jpeg: bytes
) -> None:
    models.load(digits_bundle)
    leaving = threading.Event()
    answered: list[str] = []
    failures: list[BaseException] = []

    def keep_asking() -> None:
        try:
            while not leaving.is_set():
                answered.append(ask(service, jpeg))
        except BaseException as error:  # noqa: BLE001 - looked at below
            failures.append(error)

    askers = [threading.Thread(target=keep_asking) for _ in range(4)]
    for asker in askers:
        asker.start()
    for _ in range(3):
        models.load(digits_bundle)
    leaving.set()
    for asker in askers:
        asker.join()
    assert not failures
    assert len(answered) > 10
    assert len(models.all()) == 1


def test_what_is_asked_too_much_of_is_refused(
    models: Models, service: PredictionService, digits_bundle: Path, jpeg: bytes
) -> None:
    models.load(digits_bundle)
    for question in (
        Question(Target("digits"), []),
        Question(Target("digits"), [EncodedImage(jpeg)], deadline_s=0.0),
        Question(Target("digits"), [EncodedImage(jpeg)], deadline_s=1e6),
    ):
        with pytest.raises(UsageError):
            asyncio.run(service.predict(LOOPBACK, question))


def test_one_bad_image_refuses_its_request_alone(
    models: Models, service: PredictionService, digits_bundle: Path, jpeg: bytes
) -> None:
    models.load(digits_bundle)

    async def both() -> list[object]:
        good = service.predict(LOOPBACK, Question(Target("digits"), [EncodedImage(jpeg)]))
        bad = service.predict(LOOPBACK, Question(Target("digits"), [EncodedImage(jpeg), EncodedImage(b"?")]))
        return await asyncio.gather(good, bad, return_exceptions=True)

    good, bad = asyncio.run(both())
    assert not isinstance(good, BaseException)
    assert isinstance(bad, Exception)


def test_a_caller_that_leaves_takes_its_waiting_images_along(
    models: Models, service: PredictionService, scheduler: Scheduler, digits_bundle: Path, jpeg: bytes
) -> None:
    model = models.load(digits_bundle)

    async def leave() -> None:
        asked = asyncio.ensure_future(service.predict(LOOPBACK, Question(Target("digits"), [EncodedImage(jpeg)] * 16)))
        await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(leave())
    done = scheduler.submit(model.lane, lambda: True, deadline_s=1e12)
    assert done.result(30)


def test_bundles_with_a_missing_variant_are_refused(scheduler: Scheduler, digits_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such variant"):
        Models(scheduler, OpenSettings(variants=("gone",), streams=1)).load(digits_bundle)
    copied = tmp_path / "copy.bundle"
    shutil.copytree(digits_bundle, copied)
    everything = Models(scheduler, OpenSettings(variants=("all",), streams=1))
    assert len(everything.load(copied).runners) == len(open_bundle(copied).variants)
    everything.close()


def test_raw_tensors_need_a_variant_that_takes_them(scheduler: Scheduler, digits_bundle: Path) -> None:
    models = Models(scheduler, OpenSettings(variants=("all",), streams=1))
    model = models.load(digits_bundle)
    assert find_endpoint(models, "digits").runner.variant.is_reference
    assert find_endpoint(models, "digits_image").takes_images
    for name in [name for name, runner in model.runners.items() if runner.variant.layout is TensorLayout.FLOAT_NCHW]:
        model.runners.pop(name).close()
    with pytest.raises(NotFoundError, match="raw tensors"):
        find_endpoint(models, "digits")
    # Whether building kept a variant that takes pixels is chance; of a model without any, both names are told.
    names = ["digits_image"] if model.runners else ["digits", "digits_image"]
    assert [name for name, _ in list_endpoints(models)] == names
    models.close()
