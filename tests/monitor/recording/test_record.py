# SPDX-License-Identifier: Apache-2.0
"""Sealed recordings come back whole, or not at all."""

from __future__ import annotations

import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipsight.errors import CorruptError
from shipsight.monitor.recording.record import (
    Label,
    Recording,
    new_id,
    open_recording,
    read_time,
    seal_recording,
    write_time,
)

KEY = secrets.token_bytes(32)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
times = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001 - given a zone there
    lambda at: read_time(write_time(at))
)
labels = st.builds(
    Label,
    id=st.builds(new_id),
    at=times,
    model=texts,
    version=texts,
    variant=texts,
    reasons=st.lists(texts, max_size=3).map(tuple),
    redacted=st.lists(texts, max_size=3).map(tuple),
    policy=texts,
    media_type=st.none() | texts,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
predictions = st.dictionaries(texts, values, max_size=4)


@settings(deadline=None)
@given(label=labels, told=predictions, image=st.binary(max_size=300))
def test_recording_comes_back_as_it_was(label: Label, told: dict[str, object], image: bytes) -> None:
    one = Recording(label, told, None if label.media_type is None else image)
    assert open_recording(seal_recording(one, KEY, store="s"), KEY, label, store="s") == one


RECORDING = Recording(
    Label(
        new_id(), datetime(2026, 11, 23, 12, tzinfo=UTC), "gate", "1", "v", ("chance",), ("face",), "p", "image/jpeg"
    ),
    {"width": 4},
    b"image",
)


def test_any_changed_byte_is_refused() -> None:
    sealed = seal_recording(RECORDING, KEY, store="s")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(CorruptError):
            open_recording(bytes(changed), KEY, RECORDING.label, store="s")


def test_any_cut_is_refused() -> None:
    sealed = seal_recording(RECORDING, KEY, store="s")
    for length in range(len(sealed)):
        with pytest.raises(CorruptError):
            open_recording(sealed[:length], KEY, RECORDING.label, store="s")
    with pytest.raises(CorruptError):
        open_recording(sealed + b"\0", KEY, RECORDING.label, store="s")


@pytest.mark.parametrize(
    "label",
    [
        replace(RECORDING.label, id=new_id()),
        replace(RECORDING.label, at=RECORDING.label.at + timedelta(days=1)),
        replace(RECORDING.label, at=RECORDING.label.at + timedelta(milliseconds=1)),
        replace(RECORDING.label, policy="another"),
        replace(RECORDING.label, model="another"),
        replace(RECORDING.label, redacted=()),
        replace(RECORDING.label, reasons=()),
    ],
    ids=["id", "day", "time", "policy", "model", "redacted", "reasons"],
)
def test_recording_under_another_label_is_refused(label: Label) -> None:
    sealed = seal_recording(RECORDING, KEY, store="s")
    with pytest.raises(CorruptError):
        open_recording(sealed, KEY, label, store="s")


def test_recording_of_another_store_or_key_is_refused() -> None:
    sealed = seal_recording(RECORDING, KEY, store="s")
    with pytest.raises(CorruptError):
        open_recording(sealed, KEY, RECORDING.label, store="t")
    with pytest.raises(CorruptError):
        open_recording(sealed, secrets.token_bytes(32), RECORDING.label, store="s")


def test_same_recording_is_sealed_to_other_bytes_each_time() -> None:
    assert seal_recording(RECORDING, KEY, store="s") != seal_recording(RECORDING, KEY, store="s")
