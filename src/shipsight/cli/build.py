# SPDX-License-Identifier: Apache-2.0
"""`shipsight build`: a trained model in, a bundle with its proof out."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from shipsight.cli.output import TerminalProgress, make_table, number, print_json, screen, warn
from shipsight.errors import UsageError

__all__ = ["build_command"]

_Choice = TypeVar("_Choice", bound=StrEnum)


def build_command(  # a command line is one long signature: each option is documented where it stands
    model: Annotated[Path, typer.Argument(help="Trained model: an Ultralytics .pt or an .onnx file.")],
    data: Annotated[Path | None, typer.Option(help="data.yaml of the data set, or a folder of classes.")] = None,
    images: Annotated[Path | None, typer.Option(help="Images for the golden set where there is no --data.")] = None,
    out: Annotated[Path | None, typer.Option(help="Bundle to write; default: the model's name with .bundle.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    name: Annotated[str | None, typer.Option(help="Name of the model; default: the file's stem.")] = None,
    version: Annotated[str, typer.Option(help="Version of the model.")] = "1",
    imgsz: Annotated[
        str | None, typer.Option(help="Input sizes, comma-separated: 640,512 or 384x640; default: as trained.")
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option(help="onnxruntime or openvino; repeatable; default: both.")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="fp32, fp16, bf16 or int8; repeatable; default: all.")
    ] = None,
    max_drop: Annotated[float, typer.Option(help="Most absolute mAP50-95 that INT8 may lose.")] = 0.01,
    require: Annotated[
        list[str] | None, typer.Option(help="Precision without which the answer is no (exit 1); repeatable.")
    ] = None,
    accept_undecided: Annotated[
        bool, typer.Option("--accept-undecided", help="An undecided variant may be the default.")
    ] = False,
    guard_split: Annotated[
        str | None, typer.Option(help="Split that INT8 decisions look at; default: held out of train.")
    ] = None,
    golden: Annotated[str, typer.Option(help="Golden inputs: images, synthetic or both.")] = "both",
    keep_all: Annotated[
        bool, typer.Option("--keep-all", help="Keep variants that are not the best of their kind.")
    ] = False,
    objective: Annotated[str, typer.Option(help="latency, throughput, accuracy or size.")] = "latency",
    max_latency_ms: Annotated[float | None, typer.Option(help="Limit on the default's median latency.")] = None,
    min_map: Annotated[float | None, typer.Option(help="Least accuracy of the default.")] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="Limit on the default's file size.")] = None,
    max_memory_mb: Annotated[float | None, typer.Option(help="Limit on the default's memory.")] = None,
    card: Annotated[Path | None, typer.Option(help="Card of an ONNX file that does not describe itself.")] = None,
    unsandboxed: Annotated[
        bool, typer.Option("--unsandboxed", help="Open the source even where no sandbox works.")
    ] = False,
    max_images: Annotated[int, typer.Option(help="Most images of each set that are measured.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of every choice made at random.")] = 0,
    threads: Annotated[int | None, typer.Option(help="Engine threads; default: one per core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Export, quantize, measure and verify a model; write a bundle with its proof."""
    from shipsight.build import BuildOptions, Constraints, GoldenKind, Objective, build
    from shipsight.model import Precision, parse_size

    options = BuildOptions(
        data=data,
        images=images,
        name=name,
        version=version,
        card_file=card,
        sizes_hw=tuple(dict.fromkeys(parse_size(size) for size in imgsz.split(","))) if imgsz else (),
        engines=tuple(dict.fromkeys(_split(engine))) or ("onnxruntime", "openvino"),
        precisions=tuple(dict.fromkeys(_choice(Precision, p, "--precision") for p in _split(precision)))
        or tuple(Precision),
        max_drop=max_drop,
        required=tuple(_choice(Precision, p, "--require") for p in _split(require)),
        accept_undecided=accept_undecided,
        guard_split=guard_split,
        golden=_choice(GoldenKind, golden, "--golden"),
        keep_all=keep_all,
        objective=_choice(Objective, objective, "--objective"),
        constraints=Constraints(
            max_latency_ms=max_latency_ms, min_map=min_map, max_size_mb=max_size_mb, max_memory_mb=max_memory_mb
        ),
        sandboxed=not unsandboxed,
        seed=seed,
        threads=threads,
        max_images=max_images,
        force=force,
    )
    with TerminalProgress(quiet=as_json) as progress:
        result = build(model, out=out, options=options, progress=progress)
    if as_json:
        print_json(result.to_dict())
    else:
        _print_result(result.to_dict())
    if result.unmet:
        raise typer.Exit(1)


def _split(given: list[str] | None) -> list[str]:
    return [part.strip() for item in given or [] for part in item.split(",") if part.strip()]


def _choice(kind: type[_Choice], text: str, option: str) -> _Choice:
    try:
        return kind(text)
    except ValueError:
        raise UsageError("no such choice", where=option, expected=", ".join(kind), got=repr(text)) from None


def _change(drop: dict[str, float] | None) -> str:
    """Writes what a variant gained or lost against the source, with its interval."""
    if drop is None:
        return "-"
    # Adding 0 turns the float -0.0 into 0.0.
    value, low, high = (round(-drop[key], 4) + 0.0 for key in ("value", "high", "low"))
    return f"{value:+.4f} [{low:+.4f}, {high:+.4f}]"


def _print_result(result: dict[str, Any]) -> None:
    console = screen()
    metric = "top1" if any("top1" in one for one in result["variants"]) else "map50_95"
    rows = []
    for one in result["variants"]:
        drop = one["drop"]
        rows.append(
            [
                ("* " if one["is_default"] else "  ") + one["name"],
                number(one[metric], 4),
                _change(drop),
                number(one["latency_ms"]["p50"], 2),
                number(one["latency_ms"]["p95"], 2),
                number(one["throughput_ips"], 0),
                number(one["size_mb"], 1),
                number(one["memory_mb"], 0),
                "{}/{}".format(*one["int8_layers"]) if one["precision"] == "int8" else "",
                one["outcome"],
                "kept" if one["kept"] else "dropped",
            ]
        )
    columns = ["  variant", metric, "vs source [95 %]", "p50 ms", "p95 ms", "img/s", "MB", "RSS MB", "int8 convs"]
    console.print(make_table([*columns, "accuracy", "bundle"], rows))
    dropped: dict[str, list[str]] = {}
    for one in result["variants"]:
        if not one["kept"]:
            dropped.setdefault(one["dropped_because"], []).append(one["name"])
    for reason, names in dropped.items():
        console.print(f"\nDropped, {reason}: {', '.join(names)}.", style="dim", soft_wrap=True)
    if result["source"][metric] is not None:
        console.print(f"\nSource model: {metric} {result['source'][metric]:.4f} on {result['images_measured']} images.")
    console.print(f"Default: [bold]{result['default_variant']}[/]: {result['default_reason']}.")
    for one in result["warnings"]:
        warn(one["code"], one["text"])
    for text in result["unmet"]:
        console.print(f"[red]Not met:[/] {text}")
    bundle = shlex.quote(result["bundle"])
    console.print(f"\nWrote {bundle} ({result['digest'][:12]}). Report: {bundle}/report.html\n\nNext:", soft_wrap=True)
    for line in (
        f"shipsight verify {bundle}",
        f"shipsight predict {bundle} IMAGE --draw drawn",
        f"shipsight inspect {bundle}",
        f"shipsight serve {bundle}",
    ):
        console.print(f"  {line}", soft_wrap=True, markup=False)
