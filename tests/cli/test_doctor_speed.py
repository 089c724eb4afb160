# SPDX-License-Identifier: Apache-2.0
"""`shipsight doctor speed`: what it prints, writes and refuses, with a small examination in place of the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
from tests.doctor.small import a_finding
from typer.testing import CliRunner, Result

from shipsight.build.progress import Progress
from shipsight.cli import make_app
from shipsight.doctor import Examination, Figure, Finding, Picture, Rule, Severity
from shipsight.doctor.speed import DEFAULT_SECONDS, SpeedCase, diagnosing
from shipsight.errors import ServiceError, ShipsightError, UsageError

Run = Callable[..., Result]
DRAWING = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><rect x="0" y="0" width="3" height="4"/></svg>'


class TooManyThreads(Rule[int]):
    """More than two threads."""

    id = "too-many-threads"
    title = "too many threads"

    def look(self, evidence: int) -> Iterable[Finding]:
        if evidence > 2:
            yield a_finding(self.id, Severity.WARNING, weight=0.5, what="Too many.", evidence=f"{evidence} threads.")


class ThreadsExamination(Examination[SpeedCase, int]):
    """Looks at the number of threads alone."""

    name = "threads"
    title = "How many threads?"
    rules = (TooManyThreads(),)

    def lacks(self, case: SpeedCase) -> str | None:
        return None if case.threads is not None else "No threads: give them with --threads."

    def collect(self, case: SpeedCase, progress: Progress) -> int:
        assert case.threads is not None
        return case.threads

    def figures(self, evidence: int) -> Mapping[str, Figure | list[Figure]]:
        return {"threads": evidence}

    def pictures(self, evidence: int) -> tuple[Picture, ...]:
        return (Picture("A bar for each thread.", svg=DRAWING),)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    # A table of variants: what is tested here stands around whatever is registered in it.
    monkeypatch.setattr(diagnosing, "SPEED_EXAMINATIONS", (ThreadsExamination(),))


@pytest.fixture
def run() -> Run:
    def go(*arguments: object) -> Result:
        return CliRunner().invoke(make_app(["doctor"]), ["doctor", "speed", *map(str, arguments)])

    return go


def test_speed_says_what_evidence_and_what_it_costs(run: Run, digits_bundle: Path) -> None:
    done = run(digits_bundle, "--threads", 8)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].startswith("warning  Too many.")
    assert "costs 50 % of the speed" in lines[0]
    assert "holds for this machine" in done.stdout


def test_speed_prints_json_without_drawings(run: Run, digits_bundle: Path) -> None:
    told = json.loads(run(digits_bundle, "--threads", 8, "--json").stdout)
    assert told["about"] == "speed"
    assert told["examined"][0]["figures"] == {"threads": 8}
    assert list(told["examined"][0]) == ["name", "title", "took_s", "lacks", "not_told", "figures", "rules"]
    assert "svg" not in json.dumps(told)


def test_page_shows_drawings_of_an_examination_that_found_nothing(
    run: Run, digits_bundle: Path, tmp_path: Path
) -> None:
    page = tmp_path / "doctor.html"
    assert run(digits_bundle, "--threads", 1, "--report", page).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert "A bar for each thread." in text
    assert "How many threads?" in text
    assert '<rect x="0"' in text
    assert isinstance(run(digits_bundle, "--threads", 1, "--report", page).exception, UsageError)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "No threads"),
        (["--threads", "0"], "--threads: number out of range"),
        (["--seconds", "1"], "--seconds: number out of range"),
        (["--seed", "-1"], "--seed: number out of range"),
        (["--only", "nothing"], "no such examination; expected threads"),
        (["--variant", "nothing"], "nothing"),
        (["--images", "nowhere"], "nowhere: no file or folder there"),
        (["--key-file", "nowhere"], "an option that is for a server"),
        (["--report", "nowhere/doctor.html"], "--report: the file cannot be written"),
    ],
)
def test_speed_names_what_it_cannot_use(run: Run, digits_bundle: Path, options: list[str], told: str) -> None:
    done = run(digits_bundle, *options)
    assert isinstance(done.exception, ShipsightError)
    assert done.exception.exit_code == 2
    assert told in str(done.exception)


@pytest.mark.parametrize(
    ("url", "options", "told"),
    [
        ("http://127.0.0.1:9", ["--threads", "2"], "an option that is for a bundle"),
        ("http://127.0.0.1:9/a/b/c", [], "not a server's model"),
        ("http://user:secret@127.0.0.1:9", [], "not a server"),
        ("http://models.example/v1/models/a", ["--key-file"], "over https alone"),
    ],
)
def test_speed_refuses_an_address_that_it_cannot_use(
    run: Run, tmp_path: Path, url: str, options: list[str], told: str
) -> None:
    key = tmp_path / "key"
    key.write_text("shs_key_of_nobody")
    done = run(url, *(options if options != ["--key-file"] else ["--key-file", key]))
    assert isinstance(done.exception, UsageError)
    assert told in str(done.exception)
    assert "secret" not in str(done.exception)
    assert "shs_key" not in str(done.exception)


def test_speed_says_that_a_server_does_not_answer(run: Run) -> None:
    done = run("http://127.0.0.1:9/v1/models/a", "--seconds", "5")
    assert isinstance(done.exception, ServiceError)


def test_default_of_the_option_is_that_of_the_library() -> None:
    from shipsight.cli import doctor_speed

    assert doctor_speed._SECONDS == DEFAULT_SECONDS
