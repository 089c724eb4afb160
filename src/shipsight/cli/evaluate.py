# SPDX-License-Identifier: Apache-2.0
"""`shipsight evaluate`: a bundle's accuracy on a labelled data set, here and now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from shipsight.cli.output import TerminalProgress, make_table, number, print_json, screen
from shipsight.errors import UsageError

__all__ = ["evaluate_command"]


def evaluate_command(
    bundle: Annotated[Path, typer.Argument(help="Bundle: a folder or a zip file.")],
    data: Annotated[Path, typer.Option(help="data.yaml of the data set, or a folder of classes.")],
    variant: Annotated[list[str] | None, typer.Option(help="Variant; repeatable; default: the bundle's own.")] = None,
    split: Annotated[str, typer.Option(help="Split to measure on.")] = "val",
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="Several classes an anchor, as `val` measures; needs raw outputs.")
    ] = False,
    threads: Annotated[int | None, typer.Option(help="Engine threads; default: one per core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Measure the accuracy of a bundle's variants: mAP, or top-1 and top-5 for classification."""
    from shipsight.build.measure import load_dataset
    from shipsight.build.measuring import Evaluator, open_variant
    from shipsight.model.bundle import open_bundle

    opened = open_bundle(bundle)
    chosen = [opened.variant(name) for name in variant] if variant else [opened.default_variant]
    dataset = load_dataset(data, opened.card.task, class_names=opened.card.class_names)
    dataset.check_card(opened.card)
    if split not in dataset.splits:
        raise UsageError("no such split", where="--split", expected=sorted(dataset.splits), got=split)
    evaluator = Evaluator(opened.card, dataset.splits[split])
    answers: list[dict[str, Any]] = []
    with TerminalProgress(quiet=as_json) as progress:
        progress.plan(len(chosen))
        for one in chosen:
            if multi_label and not evaluator.has_multi_label(one):
                raise UsageError(
                    "several classes an anchor need raw outputs",
                    where=one.name,
                    hint=f"Use --variant {next((v.name for v in opened.variants if v.is_reference), 'REFERENCE')}.",
                )
            progress.step(f"measuring {one.name}")
            with open_variant(opened.variant_files(one.name), one, threads=threads) as session:
                accuracy = evaluator.accuracy(session, one, multi_label=multi_label, on_progress=progress.part)
            answers.append({"name": one.name, "images": len(evaluator.samples), **accuracy.to_dict()})
    if as_json:
        print_json({"bundle": str(bundle), "split": split, "multi_label": multi_label, "variants": answers})
    else:
        _print(answers)


def _print(answers: list[dict[str, Any]]) -> None:
    names = [name for name in ("map50_95", "map50", "map75", "top1", "top5") if answers[0].get(name) is not None]
    rows = [
        [one["name"], *(number(one[name], 4) for name in names), number(one["best_confidence"], 3), str(one["images"])]
        for one in answers
    ]
    screen().print(make_table(["variant", *names, "best-F1 conf", "images"], rows))
