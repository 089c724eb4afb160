# SPDX-License-Identifier: Apache-2.0
"""`shipsight doctor`: what it prints, writes and refuses, with a small examination in place of the real ones."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from tests.doctor.small import LevelsExamination, a_diagnosis, a_finding
from typer.testing import CliRunner, Result

from shipsight.cli import make_app
from shipsight.cli.doctor_show import print_diagnosis
from shipsight.doctor import Severity, accuracy, diagnose_accuracy
from shipsight.errors import ShipsightError, UsageError

Run = Callable[..., Result]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    # A table of variants: what is tested here stands around whatever is registered in it.
    monkeypatch.setattr(accuracy, "EXAMINATIONS", (LevelsExamination(),))


@pytest.fixture
def run() -> Run:
    def go(*arguments: object) -> Result:
        return CliRunner().invoke(make_app(["doctor"]), ["doctor", *map(str, arguments)])

    return go


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    def make(*levels: int) -> Path:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for at, level in enumerate(levels):
            cv2.imwrite(str(folder / f"{at}.png"), np.full((32, 32, 3), level, dtype=np.uint8))
        return folder

    return make


def test_doctor_says_what_evidence_and_remedy_and_answers_no_when_something_is_wrong(
    run: Run, pictures: Callable[..., Path], digits_bundle: Path
) -> None:
    done = run("accuracy", digits_bundle, "--images", pictures(10, 10, 200, 200))
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert lines[0].startswith("error    The images are dark.")
    assert "costs 50 % of the accuracy" in lines[0]
    assert lines[1].strip() == "2 of 4 images are dark."
    assert lines[2].strip() == "Do this: Switch on the light."
    assert "Something is wrong that costs accuracy" in done.stdout


def test_doctor_says_what_nothing_found_does_not_mean(
    run: Run, pictures: Callable[..., Path], digits_bundle: Path
) -> None:
    done = run("accuracy", digits_bundle, "--images", pictures(200))
    assert done.exit_code == 0
    assert "Nothing was found that costs accuracy" in done.stdout
    assert "does not prove" in done.stdout


def test_doctor_prints_one_document_of_json_with_stable_keys(
    run: Run, pictures: Callable[..., Path], digits_bundle: Path
) -> None:
    done = run("accuracy", digits_bundle, "--images", pictures(10), "--json")
    told = json.loads(done.stdout)
    assert done.exit_code == 1
    assert list(told) == [
        "about", "model", "version", "bundle", "variant", "images", "class_names", "is_well", "findings", "examined",
        "environment", "took_s",
    ]  # fmt: skip
    assert list(told["findings"][0]) == [
        "rule", "severity", "what", "evidence", "remedy", "command", "weight", "certainty", "figures",
    ]  # fmt: skip
    assert list(told["examined"][0]) == ["name", "title", "took_s", "lacks", "not_told", "figures", "rules"]


def test_doctor_writes_the_page_and_does_not_replace_one(
    run: Run, pictures: Callable[..., Path], digits_bundle: Path, tmp_path: Path
) -> None:
    page = tmp_path / "doctor.html"
    options = ("accuracy", digits_bundle, "--images", pictures(10), "--report", page)
    assert run(*options).exit_code == 1
    assert "The images are dark." in page.read_text(encoding="utf-8")
    again = run(*options)
    assert isinstance(again.exception, UsageError)
    assert "--force" in str(again.exception)
    assert run(*options, "--force").exit_code == 1


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "No images"),
        (["--images", "nowhere"], "nowhere: no file or folder there"),
        (["--only", "nothing"], "no such examination; expected levels"),
        (["--only", ""], "no such examination"),
        (["--limit", "0"], "--limit: number out of range"),
        (["--seed", "-1"], "--seed: number out of range"),
        (["--threads", "0"], "--threads: number out of range"),
        (["--stages", "nowhere"], "--stages: no file"),
        (["--labels", "nowhere"], "--labels: no file"),
        (["--against", "nowhere.onnx"], "--against: no model there"),
        (["--variant", "nothing"], "nothing"),
        (["--report", "nowhere/doctor.html"], "--report: the file cannot be written"),
    ],
)
def test_doctor_names_what_it_cannot_use(run: Run, digits_bundle: Path, options: list[str], told: str) -> None:
    done = run("accuracy", digits_bundle, *options)
    assert isinstance(done.exception, ShipsightError)
    assert done.exception.exit_code == 2
    assert told in str(done.exception)


def test_doctor_refuses_a_folder_without_an_image(run: Run, digits_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    done = run("accuracy", digits_bundle, "--images", tmp_path)
    assert "no image in the folder" in str(done.exception)


def test_doctor_has_the_same_answer_in_python(pictures: Callable[..., Path], digits_bundle: Path) -> None:
    folder = pictures(10, 200, 200)
    told = diagnose_accuracy(digits_bundle, images=folder)
    assert not told.is_well
    assert told.of.images == 3
    assert [one.weight for one in told.findings] == [pytest.approx(1 / 3)]
    alone = diagnose_accuracy(digits_bundle, images=[folder / "1.png", folder / "1.png"])
    assert alone.of.images == 1
    assert alone.findings == ()


def test_doctor_looks_at_no_more_images_than_the_limit(pictures: Callable[..., Path], digits_bundle: Path) -> None:
    told = diagnose_accuracy(digits_bundle, images=pictures(*range(10, 20)), limit=4)
    assert told.of.images == 4
    assert "4 of 4 images" in told.findings[0].evidence


def test_terminal_shows_no_control_character_of_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b]0;b\x07\u202e[red]x[/red]"
    finding = a_finding(what=evil, evidence=evil + "1", command=evil)
    print_diagnosis(a_diagnosis(finding, a_finding("b", Severity.NOTE), lacks=evil, not_told=(evil,)), as_json=False)
    shown = capsys.readouterr().out
    assert not set(shown) & {"\x1b", "\x07", "\u202e"}
    assert shown.count("[red]x[/red]") == 5


def test_share_writes_an_archive_and_a_dry_run_shows_all_of_it(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "diagnosis.json"
    path.write_text(json.dumps(a_diagnosis(a_finding(command="shipsight inspect /srv/secret/best.bundle")).to_dict()))
    shown = run("share", path, "--dry-run")
    assert shown.exit_code == 0
    assert not (tmp_path / "diagnosis.zip").exists()
    assert run("share", path).exit_code == 0
    with zipfile.ZipFile(tmp_path / "diagnosis.zip") as archive:
        assert sorted(archive.namelist()) == ["README.txt", "diagnosis.json"]
        for name in archive.namelist():
            text = archive.read(name).decode()
            assert text.strip() in shown.stdout
            assert "secret" not in text
    assert isinstance(run("share", path).exception, UsageError)
    told = json.loads(run("share", path, "--force", "--json").stdout)
    assert list(told) == ["archive", "left_out", "members"]
