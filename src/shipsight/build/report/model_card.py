# SPDX-License-Identifier: Apache-2.0
"""Renders `MODEL_CARD.md`: what the model is, what it was measured at and what it must not be trusted with.

The headings follow the usual model card (Mitchell et al., "Model Cards for Model Reporting", 2019) as far as the facts
are known here; a fact that the source does not state reads `unknown`. Unstable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shipsight import __version__
from shipsight.build.report import numbers
from shipsight.build.report.data import ReportData
from shipsight.build.report.sections import training_rows, variant_rows
from shipsight.build.report.verdict import judge

__all__ = ["render_model_card"]

_SPECIAL = set("\\`*_{}[]<>()#+!|~&")
_MOST_CLASSES = 100


def _plain(value: object) -> str:
    """Writes any value so that Markdown shows it letter by letter, on one line."""
    text = " ".join(numbers.plain(value).split())
    return "".join("\\" + letter if letter in _SPECIAL else letter for letter in text)


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return [*lines, *(f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows), ""]


def _model(data: ReportData) -> list[str]:
    card = data.card
    given, origin = card["input"], card.get("origin") or {}
    names = list(card["class_names"])
    listed = ", ".join(_plain(name) for name in names[:_MOST_CLASSES])
    more = f" and {len(names) - _MOST_CLASSES} more" if len(names) > _MOST_CLASSES else ""
    facts = [
        ("task", card["task"]),
        ("architecture", origin.get("architecture")),
        ("made from", origin.get("file_name")),
        ("SHA-256 of that file", origin.get("sha256")),
        ("licence of the weights", card.get("licence")),
        (
            "input",
            f"{given['size_hw'][0]} x {given['size_hw'][1]} pixels (height x width), {given.get('colour', 'rgb')}",
        ),
        ("fit", given.get("fit")),
    ]
    return ["## Model", "", *_table(("fact", "value"), facts), f"{len(names)} classes: {listed}{more}.", ""]


def _training(data: ReportData) -> list[str]:
    training = training_rows(data)
    rows = [*training["facts"], *((f"reported {row['name']}", row["reported"]) for row in training["rows"])]
    return ["## Training", "", "As the source states it; not checked here.", "", *_table(("fact", "value"), rows)]


def _evaluation(data: ReportData) -> list[str]:
    if data.source_accuracy is None:
        accuracy = "Accuracy was not measured: the bundle was built without labelled images."
    else:
        where = data.reference.get("data") or {}
        accuracy = (
            f"Source model: {data.metric} {numbers.accuracy(data.source_accuracy)} on {data.images_measured} images of "
            f"{_plain(where.get('name'))} (split {_plain(where.get('split'))}). Changes are paired differences to it, "
            "with 95 % bootstrap intervals over images."
        )
    head = ("variant", data.metric, data.second_metric, "change", "outcome", "latency p50 ms", "size MB", "threshold")
    rows = [
        (
            row["name"] + (" (default)" if "default" in row["marks"] else ""),
            row["accuracy_text"],
            row["second_text"],
            row["change"],
            row["outcome"] or "not measured",
            row["latency"][0],
            row["size_text"],
            row["threshold"],
        )
        for row in variant_rows(data)
        if row["kept"]
    ]
    return ["## Evaluation", "", accuracy, "", *_table(head, rows)]


def _limits(data: ReportData) -> list[str]:
    lines = [
        "- Accuracy holds for images like those it was measured on; the distribution of the training images is in "
        "`proof/training-stats.json`.",
        "- Latency, throughput and memory hold for the machine in `proof/environment.json` alone.",
    ]
    if not data.card.get("images_shareable", False):
        lines.append("- Golden images made from user data may be private: do not pass `proof/golden` on unchecked.")
    lines += [f"- {_plain(warning['code'])}: {_plain(warning['text'])}" for warning in data.warnings]
    return ["## Limits", "", *lines, ""]


def render_model_card(data: ReportData) -> str:
    """Renders the model card.

    Returns:
        Markdown (CommonMark with tables), to be written as UTF-8; the same data gives the same text.
    """
    verdict = judge(data)
    lines = [
        f"# {_plain(data.card['name'])}, version {_plain(data.card['version'])}",
        "",
        f"**{verdict.word}.** {_plain(verdict.sentence)} {_plain(data.default_reason) if data.default_reason else ''}".rstrip(),
        "",
        *_model(data),
        *_evaluation(data),
        *_training(data),
        *_limits(data),
        f"Written by shipsight {__version__} from the numbers in `proof/`.",
    ]
    return "\n".join(lines) + "\n"
