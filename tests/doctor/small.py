# SPDX-License-Identifier: Apache-2.0
"""A small examination for tests of what stands around examinations: how much darker than a limit the images are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shipsight.build.progress import Progress
from shipsight.doctor import Case, Diagnosis, Examination, Examined, Figure, Finding, Picture, Rule, Severity, Told

__all__ = ["Levels", "LevelsExamination", "TooDark", "a_diagnosis", "a_finding"]


@dataclass(frozen=True)
class Levels:
    """Mean levels of images, 0 to 255."""

    means: tuple[float, ...]


class TooDark(Rule[Levels]):
    """Images are darker than a level of 40."""

    id = "too-dark"
    title = "too dark"

    def look(self, evidence: Levels) -> Iterable[Finding]:
        dark = [one for one in evidence.means if one < 40]
        if dark:
            share = len(dark) / len(evidence.means)
            yield a_finding(self.id, weight=share, evidence=f"{len(dark)} of {len(evidence.means)} images are dark.")


class LevelsExamination(Examination[Case, Levels]):
    """Looks at the levels of the images' pixels."""

    name = "levels"
    title = "Is there light?"
    rules = (TooDark(),)
    cost = 0.1

    def lacks(self, case: Case) -> str | None:
        return None if case.images else "No images: give them with --images."

    def collect(self, case: Case, progress: Progress) -> Levels:
        from shipsight.vision import import_cv2

        cv2 = import_cv2()
        return Levels(tuple(float(cv2.imread(str(path)).mean()) for path in case.looked_at))

    def figures(self, evidence: Levels) -> Mapping[str, Figure | list[Figure]]:
        return {"mean_level": sum(evidence.means) / len(evidence.means)}


def a_finding(
    rule: str = "too-dark",
    severity: Severity = Severity.ERROR,
    *,
    weight: float = 0.3,
    certainty: float = 1.0,
    what: str = "The images are dark.",
    evidence: str = "64 of 64 images are dark.",
    command: str | None = None,
    figures: Mapping[str, Figure | list[Figure]] | None = None,
    pictures: tuple[Picture, ...] = (),
) -> Finding:
    return Finding(
        rule=rule,
        severity=severity,
        what=what,
        evidence=evidence,
        remedy="Switch on the light.",
        command=command,
        weight=weight,
        certainty=certainty,
        figures={} if figures is None else figures,
        pictures=pictures,
    )


def a_diagnosis(
    *findings: Finding,
    class_names: tuple[str, ...] = (),
    lacks: str | None = None,
    not_told: tuple[str, ...] = (),
) -> Diagnosis:
    from shipsight.proof.environment import describe_environment

    return Diagnosis(
        about="accuracy",
        of=Told("model-of-ours", "1", "ab" * 32, "openvino-int8-640", 64, class_names),
        findings=findings,
        examined=(
            Examined(
                "levels",
                "Is there light?",
                1.25,
                not_told=not_told,
                figures={"mean_level": 31.5},
                rules=("too-dark",),
            ),
            Examined(
                "conversion", "Did the export keep the model?", lacks=lacks or "No checkpoint: give it with --against."
            ),
        ),
        environment=describe_environment(),
        took_s=1.5,
    )
