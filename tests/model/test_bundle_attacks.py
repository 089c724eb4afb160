# SPDX-License-Identifier: Apache-2.0
"""Bundles that were changed, or made to reach outside themselves, are refused, each with its own error."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shipsight.errors import (
    CorruptError,
    EscapingPathError,
    HashMismatchError,
    LimitError,
    LinkError,
    MissingFileError,
    ShipsightError,
    UnnamedFileError,
    UnsupportedError,
    UsageError,
)
from shipsight.model import Bundle, open_bundle, parse_manifest, zip_bundle

CHANGED = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@CHANGED
@given(data=st.data())
def test_any_changed_byte_in_any_file_is_refused(bundle: Bundle, data):
    name = data.draw(st.sampled_from([n for n in bundle.names if bundle.read(n)]))
    path = bundle.path / name
    honest = path.read_bytes()
    position = data.draw(st.integers(0, len(honest) - 1))
    bit = data.draw(st.integers(0, 7))
    changed = bytearray(honest)
    changed[position] ^= 1 << bit
    path.write_bytes(changed)
    try:
        with pytest.raises(HashMismatchError, match=path.name):
            open_bundle(bundle.path).verify_files()
        with pytest.raises(HashMismatchError):
            bundle.read(name)
    finally:
        path.write_bytes(honest)


@CHANGED
@given(data=st.data())
def test_any_changed_byte_in_the_manifest_is_refused_where_the_digest_is_known(bundle: Bundle, data):
    path = bundle.path / "bundle.yaml"
    honest = path.read_bytes()
    changed = bytearray(honest)
    changed[data.draw(st.integers(0, len(honest) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    try:
        with pytest.raises(HashMismatchError):
            open_bundle(bundle.path, digest=bundle.digest)
        with pytest.raises(HashMismatchError):
            bundle.verify_files()
        with suppress(ShipsightError):  # without the digest: refused with one of our errors, or another bundle
            assert open_bundle(bundle.path).digest != bundle.digest
    finally:
        path.write_bytes(honest)


@CHANGED
@given(data=st.data())
def test_any_changed_byte_in_a_zip_is_refused_or_changes_nothing_that_is_read(bundle: Bundle, tmp_path, data):
    if not (tmp_path / "honest.zip").exists():
        zip_bundle(bundle.path, tmp_path / "honest.zip")
    changed = bytearray((tmp_path / "honest.zip").read_bytes())
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (tmp_path / "changed.zip").write_bytes(changed)
    try:
        opened = open_bundle(tmp_path / "changed.zip", digest=bundle.digest)
        opened.verify_files()
    except ShipsightError:
        return
    assert all(opened.read(name) == bundle.read(name) for name in bundle.names)


@pytest.mark.parametrize("cut", [0, 1, 21, 22, 100, -1, -22, -23, -200])
def test_truncated_zip_is_refused(bundle: Bundle, tmp_path, cut):
    data = zip_bundle(bundle.path, tmp_path / "honest.zip").path.read_bytes()
    (tmp_path / "cut.zip").write_bytes(data[:cut])
    with pytest.raises(CorruptError):
        open_bundle(tmp_path / "cut.zip")


def test_unnamed_file_is_refused_wherever_it_lies(bundle: Bundle):
    for name in ("extra.bin", "variants/openvino-int8-32x64/extra.bin", ".hidden", "proof/golden/set.npz~"):
        (bundle.path / name).write_bytes(b"x")
        with pytest.raises(UnnamedFileError, match=Path(name).name):
            open_bundle(bundle.path)
        with pytest.raises(UnnamedFileError):
            bundle.verify_files()
        (bundle.path / name).unlink()
    (bundle.path / "empty").mkdir()
    with pytest.raises(UnnamedFileError, match="empty"):
        open_bundle(bundle.path)


def test_missing_file_is_refused(bundle: Bundle):
    (bundle.path / "report.html").unlink()
    with pytest.raises(MissingFileError, match=r"report\.html"):
        open_bundle(bundle.path)
    with pytest.raises(MissingFileError):
        bundle.read("report.html")


@pytest.mark.parametrize("grow", [-1, 1])
def test_file_of_another_size_is_refused_when_opened_and_when_read(bundle: Bundle, grow):
    path = bundle.path / "variants/openvino-int8-32x64/model.bin"
    os.truncate(path, path.stat().st_size + grow)
    with pytest.raises(HashMismatchError, match="size"):
        open_bundle(bundle.path)
    with pytest.raises(HashMismatchError, match="size"):
        bundle.read("variants/openvino-int8-32x64/model.bin")


def symlink_file(folder: Path, outside: Path) -> None:
    (outside / "report.html").write_bytes((folder / "report.html").read_bytes())
    (folder / "report.html").unlink()
    (folder / "report.html").symlink_to(outside / "report.html")


def symlink_folder(folder: Path, outside: Path) -> None:
    shutil.move(folder / "proof", outside / "proof")
    (folder / "proof").symlink_to(outside / "proof")


def hard_link(folder: Path, outside: Path) -> None:
    os.link(folder / "report.html", outside / "second-name")


def fifo(folder: Path, outside: Path) -> None:
    (folder / "report.html").unlink()
    os.mkfifo(folder / "report.html")


def unix_socket(folder: Path, outside: Path) -> None:
    (folder / "report.html").unlink()
    here = os.open(folder, os.O_RDONLY)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"/proc/self/fd/{here}/report.html")  # a socket's path must be short
    listener.close()
    os.close(here)


def dangling_link(folder: Path, outside: Path) -> None:
    (folder / "signature.json").symlink_to(outside / "nowhere")


def manifest_link(folder: Path, outside: Path) -> None:
    shutil.move(folder / "bundle.yaml", outside / "bundle.yaml")
    (folder / "bundle.yaml").symlink_to(outside / "bundle.yaml")


@pytest.mark.parametrize(
    "attack", [symlink_file, symlink_folder, hard_link, fifo, unix_socket, dangling_link, manifest_link]
)
def test_link_or_special_file_is_refused(bundle: Bundle, tmp_path, attack):
    outside = tmp_path / "outside"
    outside.mkdir()
    attack(bundle.path, outside)
    with pytest.raises(LinkError):
        open_bundle(bundle.path)
    if attack in (symlink_file, symlink_folder, fifo, hard_link):  # swapped in after it was opened
        with pytest.raises(LinkError):
            bundle.read("proof/reference.json" if attack is symlink_folder else "report.html")


def test_bundle_folder_itself_may_be_reached_through_a_link(bundle: Bundle, tmp_path):
    (tmp_path / "current").symlink_to(bundle.path)
    assert open_bundle(tmp_path / "current", digest=bundle.digest).read("report.html")


ESCAPES = [
    "../evil",
    "a/../../evil",
    "/etc/passwd",
    "a\\b",
    "..\\evil",
    "C:evil",
    "c:/evil",
    "a\0b",
    "a/./b",
    "./a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/..",
    "\u2025/evil",
    "\uff0e\uff0e/evil",
    "e\u0301",
    "nul",
    "COM1.txt",
    "trailing.",
    "trailing ",
    "-option",
    "~root",
    "a" * 101,
    "/".join(["a"] * 9),
    "",
    "report.HTML",
    "PROOF/golden/x",
    "report.html/x",
]


@pytest.mark.parametrize("name", ESCAPES)
def test_manifest_naming_a_path_that_leaves_or_clashes_is_refused(bundle: Bundle, name):
    text = (bundle.path / "bundle.yaml").read_text()
    escaped = name.replace("\\", "\\\\").replace("\0", "\\0")
    old = "MODEL_CARD.md" if name < "proof" else "variants/openvino-int8-32x64/model.xml"
    with pytest.raises((EscapingPathError, CorruptError)) as caught:
        parse_manifest(text.replace(f'"{old}"', f'"{escaped}"').encode())
    if name not in ("report.HTML", "PROOF/golden/x", "report.html/x"):
        assert isinstance(caught.value, EscapingPathError)


@pytest.mark.parametrize("names", [("A/x", "a/y"), ("Report", "report"), ("a", "a/b"), ("x/A/1", "x/a/1")])
def test_names_that_are_one_where_case_does_not_count_are_refused(names):
    from shipsight.model.manifest import check_paths

    with pytest.raises(EscapingPathError, match="case"):
        check_paths(names)


def rewritten(path: Path, names: list[str], source: Path, *, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name in names:
            archive.writestr(name, (source / name).read_bytes() if (source / name).is_file() else b"x")
    return path


@pytest.mark.parametrize("name", ["../evil", "/evil", "a\\evil", "C:evil", "a/../../evil"])
def test_zip_member_that_leaves_the_folder_is_refused_and_writes_nothing(bundle: Bundle, tmp_path, name):
    inner = tmp_path / "inner"
    inner.mkdir()
    path = rewritten(inner / "evil.zip", ["bundle.yaml", *bundle.names, name], bundle.path)
    with pytest.raises(EscapingPathError):
        open_bundle(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cells.bundle", "inner"]
    assert [p.name for p in inner.iterdir()] == ["evil.zip"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_zip_that_holds_a_name_twice_is_refused(bundle: Bundle, tmp_path):
    path = rewritten(tmp_path / "twice.zip", ["bundle.yaml", *bundle.names, "report.html"], bundle.path)
    with pytest.raises(EscapingPathError, match="twice"):
        open_bundle(path)


def test_zip_with_members_in_another_order_or_not_named_or_missing_is_refused(bundle: Bundle, tmp_path):
    honest = ["bundle.yaml", *bundle.names]
    for names, error in (
        ([*honest[1:], "bundle.yaml"], CorruptError),
        ([honest[0], *reversed(honest[1:])], CorruptError),
        ([*honest, "extra"], UnnamedFileError),
        ([*honest, "proof/"], UnnamedFileError),
        (honest[:-1], MissingFileError),
        (honest[1:], UsageError),
    ):
        with pytest.raises(error):
            open_bundle(rewritten(tmp_path / "x.zip", names, bundle.path))


def test_zip_holding_a_link_is_refused(bundle: Bundle, tmp_path):
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.write(bundle.path / "bundle.yaml", "bundle.yaml")
        for name in bundle.names:
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = (0o120777 if name == "report.html" else 0o100644) << 16
            archive.writestr(info, b"/etc/passwd")
    with pytest.raises(LinkError):
        open_bundle(tmp_path / "link.zip")


def test_zip_bomb_is_refused_before_it_is_read(bundle: Bundle, tmp_path):
    path = rewritten(tmp_path / "b.zip", ["bundle.yaml", *bundle.names], bundle.path, method=zipfile.ZIP_DEFLATED)
    with pytest.raises(CorruptError, match="stored"):
        open_bundle(path)


def test_zip_with_lying_sizes_is_refused(bundle: Bundle, tmp_path):
    data = bytearray(zip_bundle(bundle.path, tmp_path / "honest.zip").path.read_bytes())
    central = data.index(b"PK\1\2")
    for size in (0, 1, 2**31, 2**32 - 1):
        lying = bytearray(data)
        for header, offset in ((0, 18), (central, 20)):  # both headers, both sizes
            struct.pack_into("<II", lying, header + offset, size, size)
        (tmp_path / "lying.zip").write_bytes(lying)
        with pytest.raises((CorruptError, LimitError)):
            open_bundle(tmp_path / "lying.zip")


def test_zip_with_too_many_members_is_refused_by_its_count(tmp_path):
    names = 12_000
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(names):
            archive.writestr(f"f{number}", b"")
    with pytest.raises(LimitError, match="too many"):
        open_bundle(tmp_path / "many.zip")


def test_zip_with_bytes_before_between_or_behind_is_refused(bundle: Bundle, tmp_path):
    data = zip_bundle(bundle.path, tmp_path / "honest.zip").path.read_bytes()
    for wrong in (b"#!/bin/sh\n" + data, data + b"\0", data + data):
        (tmp_path / "wrong.zip").write_bytes(wrong)
        with pytest.raises(CorruptError):
            open_bundle(tmp_path / "wrong.zip")


def test_file_swapped_between_check_and_use_is_never_handed_out(bundle: Bundle):
    name = "variants/onnxruntime-fp32-32/model.onnx"
    bundle.verify_files()
    (bundle.path / name).write_bytes(b"evil")
    with pytest.raises(HashMismatchError):
        bundle.read(name)
    with pytest.raises(HashMismatchError):
        bundle.variant_files("onnxruntime-fp32-32")


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("schema_version: 1", "schema_version: 0", CorruptError),
        ("schema_version: 1", "schema_version: true", CorruptError),
        ("schema_version: 1", 'schema_version: "1"', CorruptError),
        ("schema_version: 1", "schema_version: 1\nextra: 2", CorruptError),
        ("schema_version: 1", "schema_version: 1\nschema_version: 1", CorruptError),
        ("default_variant: ", "default_variant: null #", CorruptError),
        ('default_variant: "openvino-int8-32x64"', 'default_variant: "x"', CorruptError),
        ('kind: "both"', 'kind: "none"', CorruptError),
        ("images: 2", "images: -1", CorruptError),
        ("images: 2", "images: 2.0", CorruptError),
        ("size: 4\n", "size: 4294967296\n", CorruptError),
        ("size: 4\n", "size: 4\n    mode: 7\n", CorruptError),
        ('precision: "int8"', 'precision: "int3"', CorruptError),
        ('task: "detect"', 'task: "guess"', CorruptError),
        ('licence: "unknown"', 'licence: "unknown"\n  secret: 1', CorruptError),
        ("empty: {}", "empty: &a {}\n      other: *a", CorruptError),
        ("empty: {}", "empty: *a", CorruptError),
        ("empty: {}", "empty: !!python/object/apply:os.system [ls]", CorruptError),
        ("empty: {}", "empty: !!str x", CorruptError),
        ("empty: {}", "<<: {a: 1}", CorruptError),
        ("empty: {}", "empty: 2024-01-01", CorruptError),
        ("empty: {}", "empty: .nan", CorruptError),
        ("empty: {}", "empty: 0x10", CorruptError),
        ("empty: {}", "empty: yes", CorruptError),
        ("empty: {}", "1: 2", CorruptError),
        ("empty: {}", "[a]: 2", CorruptError),
        ("empty: {}", "empty: " + "[" * 200, LimitError),
        ("empty: {}", "empty: [" + "1," * 600_000 + "]", LimitError),
        ("golden:", "---\ngolden:", CorruptError),
        ("schema_version: 1", "%YAML 1.1\n---\nschema_version: 1", CorruptError),
        ('name: "cells"', 'name: "\xe9', CorruptError),
    ],
)
def test_manifest_outside_the_format_is_refused(bundle: Bundle, old, new, error):
    text = (bundle.path / "bundle.yaml").read_text()
    assert old in text
    with pytest.raises(error):
        parse_manifest(text.replace(old, new, 1).encode())


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"\0", b"- 1\n", b"x", b"a: b: c", b"\t", b"# only a comment\n"])
def test_manifest_that_is_no_mapping_is_refused(data):
    with pytest.raises(CorruptError):
        parse_manifest(data)


def test_manifest_larger_than_the_limit_is_refused_without_reading_it_whole(bundle: Bundle):
    with (bundle.path / "bundle.yaml").open("r+b") as file:
        file.truncate(2**36)  # sparse: reading it whole would end this process
    with pytest.raises(LimitError):
        open_bundle(bundle.path)


def test_newer_schema_is_refused_naming_the_release_that_is_needed():
    with pytest.raises(UnsupportedError, match=r"schema version 1; got 2\. Install shipsight 1\.4 or newer"):
        parse_manifest(b'schema_version: 2\nneeds_shipsight: "1.4"\nnew_key: [1]\n')
    with pytest.raises(UnsupportedError, match="reads bundle schema version 7"):
        parse_manifest(b"schema_version: 7\n")


def test_what_is_no_bundle_is_named_as_such(tmp_path):
    for path in (tmp_path, tmp_path / "absent", Path(os.devnull)):
        with pytest.raises(UsageError):
            open_bundle(path)
    (tmp_path / "text").write_text("hello, this is not a zip file at all")
    with pytest.raises(CorruptError):
        open_bundle(tmp_path / "text")
