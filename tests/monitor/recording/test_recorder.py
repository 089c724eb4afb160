# SPDX-License-Identifier: Apache-2.0
"""The recorder: beside the requests, never in their way; what it cannot make unrecognizable it does not keep."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from tests.monitor.recording.recordings import Place, answer, jpeg, pixels, sampling

from shipsight.errors import EnvironmentLackError, UsageError
from shipsight.model import ImagePredictions
from shipsight.monitor.recording import Answered, Enforcement, Recorder, open_redactor
from shipsight.monitor.recording.policy import ImageForm, Mode, Redaction, Retention
from shipsight.predictor import load

CAR = answer(("car", 0.9, (1.0, 1.0, 9.0, 9.0)))
FACE = answer(("face", 0.9, (8.0, 8.0, 56.0, 40.0)))


def answered(seed: int = 0, found: ImagePredictions = CAR, **more: Any) -> Answered:
    return Answered(jpeg(seed), found, "gate", "1", "onnxruntime-fp32-64", **more)


def finder(found: ImagePredictions) -> Callable[[str], Callable[[object, float], ImagePredictions]]:
    return lambda _: lambda image, score: found


def test_answers_are_recorded_with_what_is_told_of_them(place: Place) -> None:
    store = place.open()
    with Recorder(store, events=place.events) as recorder:
        assert recorder.offer(answered(1, subject="ada"))
        assert recorder.flush()
        assert recorder.state.recorded == 1
    (entry,) = store.entries()
    label = entry.label
    assert (label.model, label.version, label.variant) == ("gate", "1", "onnxruntime-fp32-64")
    assert (label.at, label.reasons, label.redacted) == (place.clock(), ("chance",), ())
    assert (label.policy, label.media_type) == (store.policy.digest, "image/jpeg")
    found = store.open(entry)
    assert found.predictions == {**CAR.to_dict(), "source": None}  # the file's name may be a person's
    assert found.image is not None
    assert simplejpeg.decode_jpeg(found.image, "RGB").shape == (48, 64, 3)
    assert [one.id for one in store.keys.places(tag=store.keys.tag("ada"))] == [label.id]


def with_exif(image: bytes) -> bytes:
    body = b"Exif\x00\x00" + b"GPS 51.5 N" * 4
    return image[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + image[2:]


@pytest.mark.parametrize(
    ("form", "keeps_exif"), [(ImageForm.REENCODED, False), (ImageForm.RECEIVED, True), (ImageForm.NONE, None)]
)
def test_image_is_kept_in_the_form_that_the_policy_names(
    place: Place, form: ImageForm, keeps_exif: bool | None
) -> None:
    store = place.open(sampling(image=form))
    image = with_exif(jpeg())
    with Recorder(store, events=place.events) as recorder:
        recorder.offer(replace(answered(), image=image))
    (entry,) = store.entries()
    found = store.open(entry).image
    if keeps_exif is None:
        assert found is None
        assert entry.label.media_type is None
    else:
        assert found is not None
        assert (b"GPS 51.5 N" in found) is keeps_exif
        assert (found == image) is keeps_exif


def test_view_of_a_request_is_recorded_as_it_was_when_it_was_taken(place: Place) -> None:
    store = place.open(sampling(image=ImageForm.RECEIVED))
    image = jpeg()
    body = bytearray(b"--part" + image + b"--part")
    with Recorder(store, events=place.events) as recorder:
        recorder.offer(replace(answered(), image=memoryview(body)[6:-6]))
        body[:] = bytes(len(body))  # the server takes the memory for another request
    assert store.open(store.entries()[0]).image == image


def test_pixels_are_recorded_like_files(place: Place) -> None:
    store = place.open(sampling(image=ImageForm.RECEIVED))
    with Recorder(store, events=place.events) as recorder:
        recorder.offer(replace(answered(), image=pixels()))
    assert store.entries()[0].label.media_type == "image/jpeg"


def test_policy_without_samples_records_nothing(place: Place) -> None:
    store = place.open(replace(sampling(), mode=Mode.STATISTICS))
    with Recorder(store, events=place.events) as recorder:
        assert not recorder.offer(answered())
    assert store.entries() == []


# --- redaction


def redacting() -> Any:
    return replace(sampling(), redaction=Redaction(("face",), margin=0.0))


def test_what_is_redacted_is_unrecognizable_in_what_is_kept(place: Place) -> None:
    store = place.open(redacting())
    with Recorder(store, find=finder(FACE), events=place.events) as recorder:
        recorder.offer(answered(found=FACE))
    (entry,) = store.entries()
    assert entry.label.redacted == ("face",)
    found = store.open(entry).image
    assert found is not None
    kept = simplejpeg.decode_jpeg(found, "RGB")[12:36, 12:52].astype(float)
    assert kept.var(axis=(0, 1)).max() < 200 < pixels()[12:36, 12:52].astype(float).var(axis=(0, 1)).min()


def fails(_: object, __: float) -> ImagePredictions:
    raise EnvironmentLackError("the redactor is out of memory")


@pytest.mark.parametrize("find", [None, lambda _: None, lambda _: fails], ids=["none", "not-of-model", "fails"])
def test_image_that_cannot_be_redacted_is_not_kept(place: Place, find: Any) -> None:
    store = place.open(redacting())
    with Recorder(store, find=find, events=place.events) as recorder:
        assert recorder.offer(answered(found=FACE))
        assert recorder.flush()
        state = recorder.state
    assert (state.recorded, state.failed) == (0, 1)
    assert state.last_error
    assert store.entries() == []
    assert not list((place.path).rglob("*.sealed"))


def test_redactor_of_a_bundle_finds_its_classes_and_refuses_others(
    place: Place, digits_bundle: Path, digit_scenes: Callable[[int, int], tuple[Any, Any]]
) -> None:
    policy = replace(sampling(), redaction=Redaction(("3",)))
    with (
        pytest.raises(UsageError, match="has no class to redact"),
        open_redactor(Enforcement(replace(policy, redaction=Redaction(("face",)))), digits_bundle),
    ):
        pass
    image, digits = digit_scenes(3, 128)
    with open_redactor(Enforcement(policy), digits_bundle) as find:
        found = find(np.ascontiguousarray(image), 0.25)
    assert len(digits) > 0
    assert len(found) > 0


def test_digits_of_production_are_in_no_image_that_is_kept(
    place: Place, digits_bundle: Path, digit_scenes: Callable[[int, int], tuple[Any, Any]]
) -> None:
    """From the request to what is opened again: the detector that found them finds at most what it had missed before."""
    policy = replace(sampling(), redaction=Redaction(tuple("0123456789"), score=0.02))
    store = place.open(policy)
    before = after = 0
    with load(digits_bundle, threads=1) as predictor, open_redactor(store.enforcement, digits_bundle) as find:
        with Recorder(store, find=lambda _: find, events=place.events) as recorder:
            for seed in range(12):
                image = np.ascontiguousarray(digit_scenes(seed, 128)[0])
                found = predictor.predict(image, conf=0.5)
                before += len(found[0])
                assert recorder.offer(Answered(image, found[0], found.model, found.version, found.variant))
        assert recorder.state.recorded == 12
        for entry in store.entries():
            kept = store.open(entry).image
            assert kept is not None
            after += len(predictor.predict(kept, conf=0.5)[0])
    assert before >= 12
    assert after == 0


# --- never in the way


def test_full_queue_drops_and_counts_and_makes_nobody_wait(place: Place) -> None:
    store = place.open()
    begun, goes_on = threading.Event(), threading.Event()
    add = store.add

    def slow(new: Any) -> int:
        begun.set()
        assert goes_on.wait(30)
        return add(new)

    store.add = slow  # type: ignore[method-assign]
    with Recorder(store, events=place.events, most=4) as recorder:
        assert recorder.offer(answered())
        assert begun.wait(30)
        longest, taken = 0.0, 0
        for seed in range(50):
            one = answered(seed)
            begin = time.perf_counter()
            taken += recorder.offer(one)
            longest = max(longest, time.perf_counter() - begin)
        assert taken == 4
        assert recorder.state.dropped == 46
        assert longest < 0.1  # of a disk that takes as long as it likes
        goes_on.set()
    assert len(store.entries()) == 5


def test_queue_is_bounded_in_bytes_too(place: Place) -> None:
    store = place.open()
    goes_on = threading.Event()
    store.add = lambda new: goes_on.wait(30) and 0  # type: ignore[method-assign]
    size = len(jpeg())
    with Recorder(store, events=place.events, most_bytes=2 * size + size // 2) as recorder:
        taken = [recorder.offer(answered(0)) for _ in range(20)]
        assert 2 <= sum(taken) <= 2 + 16 * 2  # what the thread has taken out already makes room
        assert recorder.state.waiting <= 2
        goes_on.set()


def test_disk_that_fails_loses_a_batch_and_not_the_next(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    store = place.open()
    with Recorder(store, events=place.events) as recorder:
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", _refuses)
            recorder.offer(answered(0))
            assert recorder.flush()
        assert recorder.state.failed == 1
        assert "cannot be written" in str(recorder.state.last_error)
        recorder.offer(answered(1))
    assert len(store.entries()) == 1
    assert len(store.keys.places()) == 1


def _refuses(_: int) -> None:
    raise OSError(5, "Input/output error")


def test_image_that_cannot_be_decoded_costs_no_other(place: Place) -> None:
    store = place.open()
    with Recorder(store, events=place.events) as recorder:
        recorder.offer(replace(answered(), image=b"no image, ada"))
        recorder.offer(answered(1))
        assert recorder.flush()
        assert (recorder.state.recorded, recorder.state.failed) == (1, 1)
        assert "ada" not in str(recorder.state.last_error)


# --- over time


def test_restart_gives_no_new_quota(place: Place) -> None:
    for expected in (2, 2):
        store = place.open(sampling(most_day=2))
        with Recorder(store, events=place.events) as recorder:
            for seed in range(3):
                recorder.offer(answered(seed))
        assert len(store.entries()) == expected
    place.clock.time += timedelta(days=1)
    with Recorder(store, events=place.events) as recorder:
        assert recorder.offer(answered())


def test_one_recorder_writes(place: Place) -> None:
    with Recorder(place.open(), events=place.events), pytest.raises(UsageError, match="another process"):
        Recorder(place.open(), events=place.events)
    Recorder(place.open(), events=place.events).close()


def test_recorder_sweeps_when_it_starts(place: Place) -> None:
    store = place.open()
    place.keep(store, 2, days_ago=31)
    with Recorder(store, events=place.events):
        deadline = time.monotonic() + 30
        while store.keys.places() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert store.keys.places() == []
    assert [one.asked_by for one in store.index.erasures()] == ["server:this server"]


def test_recorder_keeps_to_the_bytes_of_the_policy(place: Place) -> None:
    store = place.open(replace(sampling(image=ImageForm.RECEIVED), retention=Retention(most_bytes=1 << 20)))
    image = jpeg(0, (480, 640))
    with Recorder(store, events=place.events) as recorder:
        for _ in range((3 << 20) // len(image)):
            recorder.offer(replace(answered(), image=image))
            assert recorder.flush()
            place.clock.time += timedelta(seconds=1)
            assert store.index.total_bytes() <= (1 << 20) + len(image) + 200
        newest = recorder.state.recorded
    left = store.entries()
    assert newest > len(left) > 0
    assert left[-1].label.at == place.clock() - timedelta(seconds=1)
    assert store.index.total_bytes() <= 1 << 20


def test_flush_ends_also_while_others_are_recorded(place: Place) -> None:
    store = place.open()
    with Recorder(store, events=place.events) as recorder:
        ends = threading.Event()

        def record_on() -> None:
            while not ends.wait(0.001):
                recorder.offer(answered())

        busy = threading.Thread(target=record_on)
        busy.start()
        try:
            recorder.offer(answered(1, subject="ada"))
            assert recorder.flush(30)
            assert len(store.keys.places(tag=store.keys.tag("ada"))) == 1
        finally:
            ends.set()
            busy.join()


def test_end_drops_and_counts_what_there_is_no_time_for(place: Place) -> None:
    store = place.open()
    begun, add = threading.Event(), store.add

    def slow(new: Any) -> int:
        begun.set()
        time.sleep(0.5)
        return add(new)

    store.add = slow  # type: ignore[method-assign]
    recorder = Recorder(store, events=place.events)
    recorder.offer(answered())
    assert begun.wait(30)
    for seed in range(5):
        assert recorder.offer(answered(seed))
    recorder.close(0.01)
    assert (recorder.state.recorded, recorder.state.dropped, recorder.state.waiting) == (1, 5, 0)
    assert len(store.entries()) == 1


def test_state_tells_bytes_and_the_oldest(place: Place) -> None:
    store = place.open()
    with Recorder(store, events=place.events) as recorder:
        recorder.offer(answered())
        assert recorder.flush()
        place.clock.time += timedelta(seconds=5)
        recorder.offer(answered(1))
        assert recorder.flush()
        state = recorder.state
    assert state.kept_bytes == store.index.total_bytes() > 0
    assert state.oldest == place.clock() - timedelta(seconds=5)
