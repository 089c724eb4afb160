# SPDX-License-Identifier: Apache-2.0
"""What is written is what is read, from a folder and from a zip file."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shipsight.errors import CardError, CorruptError, MissingFileError, UsageError
from shipsight.model import Bundle, Card, GoldenInfo, Variant, open_bundle, write_bundle, zip_bundle
from shipsight.model.strict_yaml import dump_yaml, load_yaml

WORDS = st.text(max_size=12)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(10**29), max_value=10**29)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(WORDS.filter(lambda key: key != "<<"), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(data=st.dictionaries(WORDS.filter(lambda key: key != "<<"), PLAIN, max_size=5))
def test_yaml_reads_what_it_wrote_and_another_reader_agrees_for_any_plain_data(data):
    written = dump_yaml(data)
    assert load_yaml(written, where="x", limit_bytes=10**6) == data
    assert yaml.safe_load(written) == data
    assert dump_yaml(data) == written


@pytest.mark.parametrize("value", [float("nan"), float("inf"), b"bytes", {1: 2}, object(), "\ud800", 10**40])
def test_yaml_refuses_to_write_a_value_that_is_not_plain(value):
    with pytest.raises(CardError):
        dump_yaml({"key": value})


def test_bundle_gives_back_every_part_when_opened_as_folder_and_as_zip(bundle: Bundle, files, tmp_path: Path):
    zipped = zip_bundle(bundle.path, tmp_path / "cells.zip")
    for opened in (bundle, open_bundle(str(bundle.path)), zipped):
        opened.verify_files()
        assert opened.manifest == bundle.manifest
        assert opened.digest == bundle.digest
        assert {name: opened.read(name) for name in opened.names} == files
        assert opened.default_variant.name == "openvino-int8-32x64"
        assert list(opened.variant_files("openvino-int8-32x64")) == ["model.xml", "model.bin"]
        assert opened.read_json("proof/reference.json") == {"map50_95": 0.5}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), contents=st.lists(st.binary(max_size=200), min_size=7, max_size=7))
def test_bundle_is_the_same_bytes_whatever_the_order_of_its_files(
    tmp_path_factory, card: Card, variants: tuple[Variant, ...], files, seed, contents
):
    folder = tmp_path_factory.mktemp("order")
    shuffled = list(zip(files, contents, strict=True))
    golden = GoldenInfo(kind="images", images=1, synthetic=0)
    written = []
    for number in range(2):
        parts = dict(shuffled)
        bundle = write_bundle(
            folder / f"{number}.bundle",
            parts,
            card=card,
            variants=variants,
            default_variant="onnxruntime-fp32-32",
            golden=golden,
        )
        zipped = zip_bundle(bundle.path, folder / f"{number}.zip")
        assert {name: zipped.read(name) for name in zipped.names} == parts
        written.append((bundle.digest, zipped.path.read_bytes()))
        random.Random(seed).shuffle(shuffled)
    assert written[0] == written[1]


def test_zip_is_read_by_other_tools_and_stored_in_manifest_order(bundle: Bundle, tmp_path: Path):
    zipped = zip_bundle(bundle.path, tmp_path / "cells.zip")
    with zipfile.ZipFile(zipped.path) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["bundle.yaml", *bundle.names]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_zip_made_by_another_tool_opens_when_members_are_stored_in_manifest_order(bundle: Bundle, tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        for name in ("bundle.yaml", *bundle.names):
            archive.write(bundle.path / name, name)
    open_bundle(tmp_path / "other.zip", digest=bundle.digest).verify_files()


def test_signature_travels_with_the_bundle_and_is_not_part_of_its_identity(bundle: Bundle, tmp_path: Path):
    assert bundle.read_signature() is None
    (bundle.path / "signature.json").write_bytes(b"{}")
    zipped = zip_bundle(bundle.path, tmp_path / "signed.zip")
    assert open_bundle(bundle.path, digest=bundle.digest).read_signature() == b"{}"
    assert zipped.read_signature() == b"{}"
    (bundle.path / "signature.json").write_bytes(b"x" * (2**20 + 1))
    with pytest.raises(CorruptError, match="too large"):
        bundle.read_signature()


def test_files_to_copy_are_taken_from_their_paths(bundle: Bundle, files, tmp_path: Path):
    source = tmp_path / "weights"
    source.write_bytes(b"w" * 3_000_000)
    files["variants/onnxruntime-fp32-32/model.onnx"] = source
    manifest = bundle.manifest
    written = write_bundle(
        tmp_path / "copied.bundle",
        files,
        card=manifest.card,
        variants=manifest.variants,
        default_variant=manifest.default_variant,
        golden=manifest.golden,
    )
    assert written.read("variants/onnxruntime-fp32-32/model.onnx") == source.read_bytes()


def test_bundle_names_what_is_there_when_asked_for_something_else(bundle: Bundle):
    with pytest.raises(UsageError, match="openvino-int8-32x64"):
        bundle.variant("tensorrt-fp16-640")
    with pytest.raises(MissingFileError):
        bundle.read("../bundle.yaml")


@pytest.mark.parametrize("text", [b'{"a": NaN}', b'{"a": 1, "a": 2}', b"{", b"\xff", b"[" * 100_000])
def test_json_in_a_bundle_is_refused_when_it_means_more_or_less_than_one_thing(tmp_path, bundle, files, text):
    files["proof/reference.json"] = text
    manifest = bundle.manifest
    written = write_bundle(
        tmp_path / "json.bundle",
        files,
        card=manifest.card,
        variants=manifest.variants,
        default_variant=manifest.default_variant,
        golden=manifest.golden,
    )
    with pytest.raises(CorruptError):
        written.read_json("proof/reference.json")
