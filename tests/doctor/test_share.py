# SPDX-License-Identifier: Apache-2.0
"""The archive for others holds findings and figures, and nothing that somebody planted in any field of a diagnosis."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.doctor.small import a_diagnosis, a_finding

from shipsight.doctor.redacting import Redactor
from shipsight.doctor.share import pack, read_diagnosis, redact
from shipsight.errors import UsageError

SECRETS = {
    "posix": "/home/zacharias/projects/hall7/frame_0001.jpg",
    "posix-two": "/srv/zq",
    "home": "~/zacharias/weights.pt",
    "relative": "hall7/night/frame.png",
    "windows": r"C:\Users\Zacharias\Desktop\plant.onnx",
    "windows-slashes": "D:/Werk/Kamera",
    "share": r"\\fileserver\freigabe\bilder",
    "file-url": "file:///mnt/nas/bilder",
    "url": "https://inference.zinnober.example:8443/v2/models?token=s3cr3tt0ken",
    "file": "kamera-12_2026-11-22.jpeg",
    "user": "zacharias",
    "unicode-user": "zacharías-müller",
    "mail": "zacharias@zinnober.example",
    "host": "gpu-box-17.zinnober.example",
    "short-host": "gpubox17",
    "ipv4": "192.168.17.23",
    "ipv4-port": "10.11.12.13:8000",
    "ipv6": "fe80::5054:ff:fe12:3456",
    "mac": "52:54:00:12:34:56",
    "variable": "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMIK7MDENG",
    "key": "hunter2-Tr0ub4dor",
    "digest": "d41d8cd98f00b204e9800998ecf8427e",
    "pixels": base64.b64encode(bytes(range(7, 187))).decode(),
    "class-name": "Rothirschkuh",
    "class-name-of-two": "kaputter Zahnriemen",
    "escape": "\x1b]0;zacharias\x07",
}
FIELDS = [
    "model", "version", "bundle", "variant", "about", "unknown_key", "rule", "severity", "what", "evidence", "remedy", "command",
    "figure-key", "figure-value", "figure-list", "figure-deep", "examined-name", "examined-title", "examined-lacks", "examined-not-told", "examined-rules",
    "examined-figure", "environment-key", "environment-version", "environment-cpu", "environment-os", "environment-deep", "number",
]  # fmt: skip
FRAMES = ["{}", "of 64 images {} is dark", "costs 0.31 ({}), more", "shipsight predict '{}' --json", "{}{}", '"{}":']


@cache
def whole() -> str:
    names = ("person", "Rothirschkuh", "kaputter Zahnriemen")
    return json.dumps(a_diagnosis(a_finding(figures={"mean_level": 31.5}), class_names=names).to_dict())


# Long, since it names every place in which a text can stand.
def planted(field: str, text: str) -> dict[str, Any]:
    """Returns a diagnosis with a text in one field."""
    document = json.loads(whole())
    finding, examined, environment = document["findings"][0], document["examined"][0], document["environment"]
    if field in finding and field != "figures":
        finding[field] = text
    elif field in ("model", "version", "bundle", "variant", "about", "unknown_key"):
        document[field] = text
    elif field == "figure-key":
        finding["figures"][text] = 1
    elif field == "figure-value":
        finding["figures"]["level"] = text
    elif field == "figure-list":
        finding["figures"]["levels"] = [1, text]
    elif field == "figure-deep":
        finding["figures"]["levels"] = [{text: text}, [text]]
    elif field == "examined-name":
        examined["name"] = text
    elif field == "examined-title":
        examined["title"] = text
    elif field == "examined-lacks":
        examined["lacks"] = text
    elif field == "examined-not-told":
        examined["not_told"] = [text]
    elif field == "examined-rules":
        examined["rules"] = [text]
    elif field == "examined-figure":
        examined["figures"] = {text: text, "level": text}
    elif field == "environment-key":
        environment[text] = text
    elif field == "environment-version":
        environment["versions"] = {"numpy": f"2.0+{text}", text: "1.0", "torch": text}
    elif field == "environment-cpu":
        environment["cpu"] = {"model": text, "class": text, "flags": [text], "usable_cores": text}
    elif field == "environment-os":
        environment["os"] = {"system": text, "kernel": text, "distribution": text, "machine": text}
    elif field == "environment-deep":
        environment["limits"] = {"cpu_cores": text, text: {"deep": text}}
    else:
        assert field == "number"
        document["took_s"] = finding["weight"] = int.from_bytes(text.encode(), "big")
    return document


def bytes_of(document: dict[str, Any], *, with_class_names: bool = False) -> bytes:
    """Returns all bytes of the archive: as it is, its members, and its names and comments."""
    packed = pack(redact(document, with_class_names=with_class_names).members())
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.testzip() is None
        inside = [archive.read(one) + one.encode() + archive.getinfo(one).comment for one in archive.namelist()]
        return b"\n".join([packed, archive.comment, *inside])


def holds(archive: bytes, secret: str) -> bool:
    spellings = {secret, secret.replace("\\", "\\\\"), json.dumps(secret)[1:-1], secret.replace("\\", "/")}
    number = str(int.from_bytes(secret.encode(), "big"))
    return any(one.lower().encode() in archive.lower() for one in (*spellings, number))


@pytest.mark.parametrize("field", FIELDS)
def test_archive_holds_no_secret_that_was_planted_in_a_field(field: str) -> None:
    for secret, frame in product(SECRETS.values(), FRAMES):
        text = frame.format(secret, secret)
        document = planted(field, text)
        assert field == "number" or json.dumps(secret)[1:-1] in json.dumps(document), "planted nowhere"
        assert not holds(bytes_of(document), secret), (secret, frame)


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), min_size=1, max_size=30)
NAMES = st.from_regex(r"[a-z]{1,8}[0-9]{1,4}(\.[a-z]{2,9}){1,3}", fullmatch=True)
PATHS = st.lists(st.from_regex(r"[A-Za-z0-9_. -]{1,12}", fullmatch=True), min_size=2, max_size=6).flatmap(
    lambda parts: st.sampled_from(["/" + "/".join(parts), "C:\\" + "\\".join(parts), "\\\\" + "\\".join(parts)])
)
ADDRESSES = st.one_of(st.ip_addresses().map(str), st.emails(), NAMES)


@given(
    secret=st.one_of(PATHS, ADDRESSES),
    before=WORDS,
    after=WORDS,
    field=st.sampled_from(["what", "command", "examined-lacks", "examined-not-told"]),
)
@settings(max_examples=60, deadline=None)
def test_archive_holds_no_path_and_no_address_whatever_stands_around_it(
    secret: str, before: str, after: str, field: str
) -> None:
    document = planted(field, f"{before} {secret} {after}")
    if not holds(bytes_of(planted(field, "")), secret):
        assert not holds(bytes_of(document), secret)


@given(data=st.binary(min_size=24, max_size=300), field=st.sampled_from(FIELDS))
@example(data=b"\0" * 23 + b"\1", field="examined-figure")
@settings(max_examples=40, deadline=None)
def test_archive_holds_no_pixels_in_whatever_field(data: bytes, field: str) -> None:
    for secret in (base64.b64encode(data).decode(), data.hex()):
        # Zeros alone are a number that anything may hold.
        if any(one not in "0A=" for one in secret):
            assert not holds(bytes_of(planted(field, secret)), secret)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=True) | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=12,
)


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("findings", "examined", "environment", "class_names", "took_s", "images", "about"), JSON
        ),
    )
)
@settings(max_examples=60, deadline=None)
def test_archive_is_json_of_known_keys_for_whatever_was_given(document: dict[str, Any]) -> None:
    told = json.loads(redact(document).members()["diagnosis.json"])
    assert set(told) == {
        "about", "images", "is_well", "variant", "classes", "findings", "examined", "environment", "took_s",
    }  # fmt: skip


def test_archive_keeps_what_was_found_and_its_numbers() -> None:
    finding = a_finding("images-darker", figures={"share_lost": 0.31, "images": 64, "strength": [0.4, 0.5]})
    told = redact(a_diagnosis(finding).to_dict()).document
    [kept] = told["findings"]
    assert kept["rule"] == "images-darker"
    assert kept["severity"] == "error"
    assert kept["weight"] == 0.3
    assert kept["figures"] == {"share_lost": 0.31, "images": 64, "strength": [0.4, 0.5]}
    assert told["variant"] == "openvino-int8-640"
    assert told["environment"]["versions"]["numpy"]


def test_archive_leaves_the_sentences_of_a_registered_rule_as_they_are() -> None:
    from shipsight.doctor.data.rules_shifts import ImagesDarker

    redactor = Redactor(["person"])
    for text in (
        ImagesDarker.what,
        ImagesDarker.remedy,
        "median brightness 47.4 here, 116 in training (levels), 64 images",
    ):
        assert redactor.text(text) == text
    assert redactor.taken == 0


def test_classes_are_told_by_their_ids_unless_names_are_asked_for() -> None:
    document = planted("what", "images of Rothirschkuh, of kaputter Zahnriemen and of person")
    told = redact(document).document["findings"][0]["what"]
    assert "class 1" in told
    assert "class 2" in told
    assert "class 0" in told
    kept = redact(document, with_class_names=True).document
    assert "Rothirschkuh" in kept["findings"][0]["what"]
    assert kept["class_names"] == ["person", "Rothirschkuh", "kaputter Zahnriemen"]


def test_archive_has_the_same_bytes_for_the_same_diagnosis() -> None:
    document = a_diagnosis(a_finding()).to_dict()
    assert pack(redact(document).members()) == pack(redact(document).members())


@pytest.mark.parametrize("text", ["", "[]", "{}", "no", '{"findings": 1}', "[" * 5000])
def test_file_is_refused_when_it_is_no_diagnosis(tmp_path: Path, text: str) -> None:
    path = tmp_path / "diagnosis.json"
    path.write_text(text)
    with pytest.raises(UsageError, match="no diagnosis"):
        read_diagnosis(path)
