# SPDX-License-Identifier: Apache-2.0
"""The symbolic machine and the archive reader, without a process around them."""

from __future__ import annotations

import io
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.build.sources.hostile_checkpoints import PROTO, STOP, archive, call, dictionary, global_, instance, text

from shipsight.build.sources._allowed import CLASSES, FUNCTIONS, family_of
from shipsight.build.sources._archive import read_archive
from shipsight.build.sources._pickle_walk import GlobalName, name_globals, walk_pickle
from shipsight.errors import CorruptError, ShipsightError, UnsupportedError, UntrustedError

MODEL = instance("ultralytics.nn.tasks", "DetectionModel")


def test_walk_returns_names_when_pickle_is_a_checkpoint() -> None:
    data = PROTO + dictionary(model=MODEL, epoch=b"K\x01", extra=call("collections", "OrderedDict")) + STOP
    assert walk_pickle(data, where="a.pt") == {
        GlobalName("ultralytics.nn.tasks", "DetectionModel"),
        GlobalName("collections", "OrderedDict"),
    }


@pytest.mark.parametrize(
    ("module", "name", "family"),
    [
        ("models.yolo", "DetectionModel", "YOLOv5"),
        ("ultralytics.nn.modules.head", "v10Detect", "YOLOv10"),
        ("ultralytics.nn.tasks", "RTDETRDetectionModel", "RT-DETR"),
        ("ultralytics.nn.tasks", "WorldModel", "YOLO-World"),
        ("ultralytics.nn.tasks", "YOLOEModel", "YOLOE"),
        ("ultralytics.nn.modules.block", "A2C2f", "YOLO12"),
        ("ultralytics.nn.modules.block", "C3", "YOLOv5"),
    ],
)
def test_walk_names_the_family_when_network_is_another(module: str, name: str, family: str) -> None:
    with pytest.raises(UnsupportedError, match=family):
        walk_pickle(PROTO + dictionary(model=instance(module, name)) + STOP, where="a.pt")


def test_walk_refuses_as_foreign_when_other_network_hides_code() -> None:
    data = PROTO + dictionary(a=instance("models.yolo", "Model"), b=call("posix", "system", text("true"))) + STOP
    with pytest.raises(UntrustedError, match=r"posix\.system"):
        walk_pickle(data, where="a.pt")


@pytest.mark.parametrize("name", ["_rebuild_tensor_v2", "_rebuild_parameter"])
def test_function_is_refused_when_made_like_a_class(name: str) -> None:
    with pytest.raises(UntrustedError, match=name):
        walk_pickle(PROTO + instance("torch._utils", name) + STOP, where="a.pt")


def test_walk_refuses_when_pickle_ends_early() -> None:
    for cut in range(len(PROTO + MODEL)):
        with pytest.raises((CorruptError, UntrustedError)):
            walk_pickle((PROTO + MODEL)[:cut], where="a.pt")


@given(st.binary(max_size=200))
def test_walk_only_raises_named_errors_when_bytes_are_random(data: bytes) -> None:
    try:
        names = walk_pickle(PROTO + data, where="a.pt")
    except ShipsightError:
        return
    assert all((name.module, name.name) in CLASSES | FUNCTIONS.keys() for name in names)


def test_no_allowed_name_is_a_known_gadget() -> None:
    modules = {module for module, _ in CLASSES | FUNCTIONS.keys()}
    assert modules.isdisjoint({"os", "posix", "nt", "subprocess", "sys", "importlib", "functools", "operator", "types"})
    assert {name for module, name in FUNCTIONS if "builtin" in module} == {"set"}
    assert family_of("os", "system") is None


def test_name_globals_lists_all_when_pickles_stand_in_a_row() -> None:
    data = PROTO + b"N" + STOP + PROTO + global_("posix", "system") + STOP
    assert name_globals(data) == [GlobalName("posix", "system")]


def test_archive_gives_pickle_and_storages_when_sound() -> None:
    found = read_archive(archive(b"N.", {"best/data/0": b"abcd", "best/byteorder": b"little"}), where="a.pt")
    assert (found.pickle, found.storages, found.byte_order) == (b"N.", {"0": b"abcd"}, "little")
    with zipfile.ZipFile(found.rewrite()) as again:
        assert again.read("archive/data/0") == b"abcd"


def _duplicate() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        file.writestr("best/data.pkl", b"N.")
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("best/data.pkl", b"K\x01.")
    return target.getvalue()


def _compressed() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("best/data.pkl", b"N" * 100_000)
    return target.getvalue()


def _flipped(offset_of: bytes, delta: int, value: int) -> bytes:
    data = bytearray(archive(b"N.", {"best/data/0": b"payload-bytes"}))
    data[data.rindex(offset_of) + delta] ^= value
    return bytes(data)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        pytest.param(_duplicate, UntrustedError, id="two-members-of-one-name"),
        pytest.param(_compressed, UntrustedError, id="compressed"),
        pytest.param(lambda: _flipped(b"payload-bytes", 0, 1), CorruptError, id="wrong-checksum"),
        pytest.param(lambda: _flipped(b"PK\x01\x02", 8, 1), CorruptError, id="encrypted-flag"),
        pytest.param(lambda: _flipped(b"PK\x01\x02", 8, 0x20), CorruptError, id="patched-flag"),
        pytest.param(lambda: archive(b"N.", {"best/../x": b""}), UntrustedError, id="leaves-folder"),
        pytest.param(lambda: archive(b"N.", {"/etc/x": b""}), UntrustedError, id="absolute"),
        pytest.param(
            lambda: archive(b"N.", {"best/data/inner.zip": archive(b"N.")}), UntrustedError, id="nested-archive"
        ),
        pytest.param(
            lambda: archive(b"N.", {"best/constants.pkl": b"", "best/code/a.py": b""}),
            UnsupportedError,
            id="torchscript",
        ),
        pytest.param(lambda: archive(b"N.")[:-30], CorruptError, id="cut-off"),
        pytest.param(lambda: b"PK\x03\x04" + bytes(100), CorruptError, id="only-magic"),
    ],
)
def test_archive_is_refused_when(make: object, error: type[ShipsightError]) -> None:
    with pytest.raises(error):
        read_archive(make(), where="a.pt")  # type: ignore[operator] # a table of functions
