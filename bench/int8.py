# SPDX-License-Identifier: Apache-2.0
"""INT8 of shipsight against Ultralytics' own INT8 OpenVINO export of the same checkpoint, made in the same run.

Both get the same square letterboxed images; both run on OpenVINO with the rest of the layers in f32, and in bf16 where
the processor has it. Reported: mAP50-95 by one label an anchor and by several, the paired 95 % interval of the
difference (ours minus theirs) a set and pooled over sets, integer convolutions as executed, and speed against OpenVINO
forced to f32 in alternating rounds. For ONNX Runtime: speed and drop of both recipes against its own float model.

    python bench/int8.py --models shared/data/models --data shared/data --set bccd --set yolo11n --out bench/results

Needs `shipsight[ultralytics]`. Timings are ratios: other load on the machine falls on all alike.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import platform
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shipsight.build.formats import onnx_to_openvino
from shipsight.build.measure import (
    Accuracy,
    PreparedImages,
    Sample,
    alternate,
    choose_calibration,
    compare,
    evaluate,
    evaluation_settings,
    load_dataset,
    pooled_interval,
    predict_samples,
)
from shipsight.build.optimize import (
    FloatLayers,
    Int8Target,
    LayerRole,
    OnnxRecipe,
    detect_target,
    map_layers,
    measure_onnx_ranges,
    quantize_onnx,
    quantize_openvino,
)
from shipsight.build.sources import open_source
from shipsight.engines import EngineOptions, EngineSession, get_engine
from shipsight.model import Card, OutputForm, Precision, TensorLayout, Variant
from shipsight.vision import decode_image, prepare, to_tensor

SETS = {
    "yolo11n": ("yolo11n.pt", "coco128/data.yaml", 640),
    "bccd": ("bccd-yolo11n.pt", "bccd/data.yaml", 320),
}
PACKAGES = ("shipsight", "openvino", "nncf", "onnxruntime", "onnx", "ultralytics-opencv-headless", "torch", "numpy")


@dataclass
class Form:
    """One quantized or float form, opened."""

    name: str
    session: EngineSession
    variant: Variant


def open_form(name: str, engine: str, files: dict[str, bytes], card: Card, rest: Precision, threads: int) -> Form:
    precision = Precision.INT8 if "int8" in name else rest
    variant = Variant(
        name=name,
        engine=engine,
        precision=precision,
        size_hw=card.input.size_hw,
        layout=TensorLayout.FLOAT_NCHW,
        form=OutputForm.RAW,
        files=tuple(files),
        rest=rest,
    )
    return Form(name, get_engine(engine).open(files, variant, EngineOptions(threads=threads)), variant)


def export_ultralytics(checkpoint: Path, data: Path, size: int, scratch: Path) -> dict[str, bytes]:
    """Lets Ultralytics make its INT8 OpenVINO export, calibrated on the training split, from copies in `scratch`."""
    from ultralytics import YOLO

    copied = scratch / checkpoint.name
    shutil.copyfile(checkpoint, copied)
    copied.chmod(0o644)
    shutil.copytree(data.parent, scratch / "data", copy_function=shutil.copyfile)
    made = YOLO(copied).export(
        format="openvino", int8=True, imgsz=size, data=str(scratch / "data" / data.name), split="train", verbose=False
    )
    xml = next(Path(str(made)).glob("*.xml"))
    return {"model.xml": xml.read_bytes(), "model.bin": xml.with_suffix(".bin").read_bytes()}


def measure(form: Form, card: Card, samples: tuple[Sample, ...], cache: PreparedImages) -> dict[str, Accuracy]:
    found = {}
    for label, several in (("best-class", False), ("multi-label", True)):
        settings = evaluation_settings(card, OutputForm.RAW, multi_label=several)
        predictions = predict_samples(form.session, card, form.variant, samples, settings, prepared_cache=cache)
        found[label] = evaluate(predictions, samples, task=card.task, class_names=card.class_names)
    return found


def ours_openvino(onnx: bytes, images: list[Any], card: Card, threads: int, rests: list[Precision]) -> list[Form]:
    layers = map_layers(onnx)
    with_outputs = layers.always_float.plus(layers.of_role(LayerRole.HEAD_OUTPUT))
    choices = [("decode float", layers.always_float, target) for target in (Int8Target.X86_VNNI, Int8Target.X86)]
    choices.append(("decode and head outputs float", with_outputs, Int8Target.X86_VNNI))
    forms = []
    for label, floating, target in choices:
        files = quantize_openvino(onnx, images, card=card, float_layers=floating, target=target)
        bits = 7 if target.reduces_weight_range else 8
        forms += [
            open_form(f"shipsight int8, {label}, {bits}-bit weights ({rest})", "openvino", files, card, rest, threads)
            for rest in rests
        ]
    return forms


def ours_onnxruntime(onnx: bytes, images: list[Any], card: Card, threads: int) -> list[Form]:
    ranges = measure_onnx_ranges(onnx, images, card=card)
    layers = map_layers(onnx)
    floating: FloatLayers = layers.always_float.plus(layers.of_role(LayerRole.HEAD_OUTPUT))
    forms = [open_form("onnxruntime fp32", "onnxruntime", {"model.onnx": onnx}, card, Precision.FP32, threads)]
    for recipe in OnnxRecipe:
        model = quantize_onnx(onnx, images, card=card, float_layers=floating, recipe=recipe, ranges=ranges)
        name = f"onnxruntime int8, {recipe}"
        forms.append(open_form(name, "onnxruntime", {"model.onnx": model}, card, Precision.FP32, threads))
    return forms


def run_set(name: str, arguments: argparse.Namespace, rests: list[Precision]) -> tuple[dict[str, Any], dict[str, Any]]:
    file, data, size = SETS[name]
    checkpoint, data_yaml = arguments.models / file, arguments.data / data
    with open_source(checkpoint) as source:
        card = source.card.with_size((size, size))
        onnx = source.export_onnx((size, size))
    dataset = load_dataset(data_yaml, card.task, class_names=card.class_names)
    samples = dataset.splits["val"]
    chosen = choose_calibration(dataset.splits["train"], arguments.calibration)
    images = [prepare(decode_image(sample.image), card.input)[0] for sample in chosen]
    files = onnx_to_openvino(onnx)
    forms = [open_form(f"openvino {rest}", "openvino", files, card, rest, arguments.threads) for rest in rests]
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
        peer = export_ultralytics(checkpoint, data_yaml, size, Path(scratch))
    forms += [
        open_form(f"ultralytics int8 ({rest})", "openvino", peer, card, rest, arguments.threads) for rest in rests
    ]
    forms += ours_openvino(onnx, images, card, arguments.threads, rests)
    forms += ours_onnxruntime(onnx, images, card, arguments.threads)
    cache = PreparedImages()
    accuracies = {form.name: measure(form, card, samples, cache) for form in forms}
    tensor = to_tensor(images[0][None], card.input, TensorLayout.FLOAT_NCHW)
    return report_set(forms, accuracies, tensor, arguments, len(images), len(samples)), accuracies


def report_set(
    forms: list[Form],
    accuracies: dict[str, dict[str, Accuracy]],
    tensor: np.ndarray[Any, Any],
    arguments: argparse.Namespace,
    calibration: int,
    images: int,
) -> dict[str, Any]:
    speeds = {}
    for engine in ("openvino", "onnxruntime"):
        calls = {
            form.name: (lambda form=form: form.session.infer(tensor)) for form in forms if form.variant.engine == engine
        }
        taken = alternate(calls, rounds=arguments.rounds, runs=arguments.runs)
        speeds.update({key: (taken.medians_ms[key], taken.speedup(key)) for key in calls})
    rows = []
    for form in forms:
        precision = form.session.precision()
        base = accuracies["openvino fp32" if form.variant.engine == "openvino" else "onnxruntime fp32"]
        row: dict[str, Any] = {
            "form": form.name,
            "int8_layers": [precision.integer_convolutions, precision.convolutions],
            "rest": precision.float_type,
            "median_ms": speeds[form.name][0],
            "speedup_over_fp32": speeds[form.name][1],
        }
        for label, accuracy in accuracies[form.name].items():
            row[label] = {"map50_95": accuracy.value, "drop": compare(base[label], accuracy).to_dict()}
        rows.append(row)
    return {"calibration_images": calibration, "report_images": images, "rows": rows}


def against_peer(all_accuracies: dict[str, dict[str, dict[str, Accuracy]]]) -> list[dict[str, Any]]:
    """Ours minus theirs, with the same rest, a set and pooled over sets."""
    found = []
    first = next(iter(all_accuracies.values()))
    for name in [name for name in first if name.startswith("shipsight int8")]:
        peer = f"ultralytics int8 ({name.rpartition('(')[2]}"
        for label in ("best-class", "multi-label"):
            pairs = {key: (value[name][label], value[peer][label]) for key, value in all_accuracies.items()}
            entry = {"form": name, "labels": label}
            entry |= {key: compare(*pair).to_dict() for key, pair in pairs.items()}
            found.append(entry | {"pooled": pooled_interval(list(pairs.values())).to_dict()})
    return found


def machine(arguments: argparse.Namespace) -> dict[str, Any]:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines.items()}
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")
    flags = fields.get("flags", "").split()
    return {
        "processor": fields.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "flags": {flag: flag in flags for flag in wanted},
        "int8_target": detect_target().value,
        "threads": arguments.threads,
        "load_average": os.getloadavg(),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
    }


def render(result: dict[str, Any]) -> str:
    info = result["machine"]
    kind = "with VNNI" if info["int8_target"] == "x86-vnni" else "without VNNI"
    plain = f"{info['processor']}, {info['cores']} cores, {kind} (target `{info['int8_target']}`), {info['threads']} threads."
    lines = [plain, "", "```json", json.dumps(info, indent=1), "```", ""]
    for name, one in result["sets"].items():
        lines += [
            f"## {name}: {one['report_images']} images, calibrated on {one['calibration_images']}",
            "",
            "| form | integer convolutions | mAP50-95 best class / multi-label | drop [95 %] (multi-label) | speed over fp32 |",
            "|---|---|---|---|---|",
        ]
        for row in one["rows"]:
            drop = row["multi-label"]["drop"]
            lines.append(
                f"| {row['form']} | {row['int8_layers'][0]} of {row['int8_layers'][1]} | "
                f"{row['best-class']['map50_95']:.4f} / {row['multi-label']['map50_95']:.4f} | "
                f"{drop['value']:+.4f} [{drop['low']:+.4f}, {drop['high']:+.4f}] | {row['speedup_over_fp32']:.2f} |"
            )
        lines.append("")
    lines += ["## Ours minus Ultralytics' INT8", "", "| form | labels | set | difference [95 %] |", "|---|---|---|---|"]
    for entry in result["against_ultralytics"]:
        for key in (*result["sets"], "pooled"):
            value = entry[key]
            lines.append(
                f"| {entry['form']} | {entry['labels']} | {key} | "
                f"{value['value']:+.4f} [{value['low']:+.4f}, {value['high']:+.4f}] |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of the checkpoints")
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--set", action="append", choices=sorted(SETS), dest="sets")
    parser.add_argument("--digits", nargs=2, type=Path, metavar=("CHECKPOINT", "DATA_YAML"), help="the sample, at 256")
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    parser.add_argument("--calibration", type=int, default=300)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.digits:
        SETS["digits"] = (str(arguments.digits[0].resolve()), str(arguments.digits[1].resolve()), 256)
    sets = (arguments.sets or ([] if arguments.digits else sorted(SETS))) + (["digits"] if arguments.digits else [])
    info = machine(arguments)
    rests = [Precision.FP32] + ([Precision.BF16] if info["flags"]["avx512_bf16"] else [])
    reports, accuracies = {}, {}
    with tempfile.TemporaryDirectory() as settings:
        os.environ["YOLO_CONFIG_DIR"], os.environ["YOLO_OFFLINE"] = settings, "true"
        for name in sets:
            begin = time.perf_counter()
            reports[name], accuracies[name] = run_set(name, arguments, rests)
            reports[name]["seconds"] = time.perf_counter() - begin
    result = {"machine": info, "sets": reports, "against_ultralytics": against_peer(accuracies)}
    arguments.out.mkdir(parents=True, exist_ok=True)
    stem = f"int8-{time.strftime('%Y-%m-%d', time.gmtime())}-{'-'.join(sets)}"
    (arguments.out / f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    text = render(result)
    (arguments.out / f"{stem}.md").write_text(f"# INT8, {time.strftime('%Y-%m-%d', time.gmtime())}\n\n" + text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
