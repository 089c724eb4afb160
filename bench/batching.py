# SPDX-License-Identifier: Apache-2.0
"""Does batching pay? Images a second of a bundle's variants at batch 1, 2, 4 and 8, in one stream and in one a core.

Each variant's graph is rewritten for the larger batch and must answer each image as it does alone. One stream is the engine's
form for latency on all cores, several streams its form for throughput, both opened as `shipsight serve` opens them. A caller
more than streams keeps the engine busy. Forms take turns; the ratio of the best batch to the best of batch 1 is taken round
by round.

    python bench/batching.py --bundle yolo11n.bundle --bundle digits.bundle --out bench/results/batching.md

Needs `shipsight[build]`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino
from numpy.typing import NDArray

from shipsight.engines import EngineOptions, EngineSession, get_engine
from shipsight.model import Precision, Variant
from shipsight.model.bundle import Bundle, open_bundle
from shipsight.proof.environment import cpu_class
from shipsight.proof.scenes import make_scene
from shipsight.vision import prepare, to_tensor

BATCHES = (1, 2, 4, 8)
MARGIN = 1.05


@dataclass
class Form:
    """One way to run a variant: images a run, runs side by side."""

    batch: int
    streams: int
    session: EngineSession
    tensor: NDArray[Any]
    rates: list[float] = field(default_factory=list)
    core_ms: list[float] = field(default_factory=list)


def with_batch(files: dict[str, bytes], batch: int) -> dict[str, bytes]:
    """Returns a variant's files for another batch than 1."""
    if "model.onnx" in files:
        return {"model.onnx": _onnx_with_batch(files["model.onnx"], batch)}
    return _ir_with_batch(files, batch)


def _onnx_with_batch(content: bytes, batch: int) -> bytes:
    model = onnx.load_from_string(content)
    graph = model.graph
    constants = {one.name: one for one in graph.initializer}
    constants |= {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    for node in graph.node:
        if node.op_type not in ("Reshape", "Expand") or node.input[1] not in constants:
            continue
        shape = onnx.numpy_helper.to_array(constants[node.input[1]]).copy()
        if shape[0] == 1:
            shape[0] = batch
            name = f"{node.output[0]}_batched"
            graph.initializer.append(onnx.numpy_helper.from_array(shape, name))
            node.input[1] = name
    del graph.value_info[:]
    for port in (*graph.input, *graph.output):
        port.type.tensor_type.shape.dim[0].dim_value = batch
    return model.SerializeToString()


def _ir_with_batch(files: dict[str, bytes], batch: int) -> dict[str, bytes]:
    weights = openvino.Tensor(np.frombuffer(files["model.bin"], np.uint8).copy())
    graph = openvino.Core().read_model(files["model.xml"], weights)
    parameter = graph.get_parameters()[0]
    parameter.set_partial_shape(openvino.PartialShape([batch, *list(graph.input(0).shape)[1:]]))
    for node in graph.get_ops():
        shape = node.input_value(1).get_node() if node.get_type_name() in ("Reshape", "Broadcast") else None
        if shape is None or shape.get_type_name() != "Constant":
            continue
        values = shape.data.copy()
        if values.size and values[0] == 1:
            values[0] = batch
            node.input(1).replace_source_output(openvino.opset13.constant(values).output(0))
    graph.validate_nodes_and_infer_types()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.xml"
        openvino.save_model(graph, path, compress_to_fp16=False)
        return {"model.xml": path.read_bytes(), "model.bin": path.with_suffix(".bin").read_bytes()}


def images_of(bundle: Bundle, variant: Variant) -> NDArray[Any]:
    """Returns eight different images as the variant takes them."""
    sized = bundle.card.with_size(variant.size_hw)
    scenes = [prepare(make_scene(subject), sized.input)[0] for subject in range(max(BATCHES))]
    return np.concatenate([to_tensor(scene, sized.input, variant.layout) for scene in scenes])


def open_forms(bundle: Bundle, variant: Variant) -> list[Form]:
    """Opens a variant in all forms.

    Raises:
        SystemExit: a batch answers otherwise than its images alone, or runs in other precisions.
    """
    files = {name: bytes(content) for name, content in bundle.variant_files(variant.name).items()}
    images, forms = images_of(bundle, variant), []
    for batch in BATCHES:
        made = files if batch == 1 else with_batch(files, batch)
        for streams in sorted({1, len(os.sched_getaffinity(0))}):
            session = get_engine(variant.engine).open(made, variant, EngineOptions(requests=streams))
            forms.append(Form(batch, streams, session, images[:batch].copy()))
    alone = forms[0].session
    expected = [alone.infer(image[None]) for image in images]
    precision = alone.precision().integer_convolutions
    for form in forms:
        together = form.session.infer(form.tensor)
        for name, values in together.items():
            single = np.concatenate([one[name] for one in expected[: form.batch]])
            # Sums in another order differ in the last bits, and a class id may flip where two scores tie.
            far = np.abs(values.astype(np.float64) - single) > 1e-3 * np.abs(single).max()
            if far.mean() > 1e-3:
                raise SystemExit(f"{variant.name}: batch {form.batch} answers otherwise in {name}: {far.mean():.4f}")
        if form.session.precision().integer_convolutions != precision:
            raise SystemExit(f"{variant.name}: batch {form.batch} runs in other precisions")
    return forms


def measure(form: Form, seconds: float) -> None:
    """Adds a round: images a second of the runs completed after the first `streams` and before any caller stopped.

    And the processor time that an image took, which other work on the machine disturbs less.
    """
    form.session.infer(form.tensor)
    ends: list[float] = []
    runs = 0
    closed = threading.Event()
    stop = time.perf_counter() + seconds

    def call() -> None:
        nonlocal runs
        while not closed.is_set():
            form.session.infer(form.tensor)
            runs += 1
            if not closed.is_set():
                ends.append(time.perf_counter())
                if ends[-1] >= stop and len(ends) >= 4 * form.streams:
                    closed.set()

    callers = [threading.Thread(target=call) for _ in range(form.streams + 1)]
    begin = time.process_time()
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    form.core_ms.append((time.process_time() - begin) * 1e3 / (runs * form.batch))
    ends.sort()
    form.rates.append(form.batch * (len(ends) - form.streams) / (ends[-1] - ends[form.streams - 1]))


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def rows(model: str, variant: Variant, forms: list[Form]) -> list[str]:
    """Returns the lines of one variant."""
    single = [form for form in forms if form.batch == 1]
    batched = [form for form in forms if form.batch > 1]
    # The best of each is chosen by its median over all rounds, then compared within each round.
    one = max(single, key=lambda form: statistics.median(form.rates))
    many = max(batched, key=lambda form: statistics.median(form.rates))
    ratios = [b / a for a, b in zip(one.rates, many.rates, strict=True)]
    pays = statistics.median(ratios) > MARGIN
    head = f"| {model} {variant.size_hw[0]} | {variant.name} "
    cheaper = [b / a for a, b in zip(one.core_ms, many.core_ms, strict=True)]
    verdict = (
        f"{spread(ratios)}; core-ms {spread(cheaper)} (batch {many.batch} in {many.streams} streams, to {one.streams})"
    )
    lines = []
    for streams in sorted({form.streams for form in forms}):
        cells = [f"{spread(form.rates)}; {spread(form.core_ms)}" for form in forms if form.streams == streams]
        lines.append(f"{head}| {streams} | {' | '.join(cells)} | ")
    return [f"{line}|" for line in lines[:-1]] + [f"{lines[-1]}{verdict}{'; **pays**' if pays else ''} |"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, action="append", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = [
        "| model, size | variant | streams | "
        + " | ".join(f"batch {batch}: images/s; core-ms an image" for batch in BATCHES)
        + " | best batch / best of batch 1 |",
        "|---|---|---|" + "---|" * (len(BATCHES) + 1),
    ]
    busy = []
    for path in arguments.bundle:
        bundle = open_bundle(path)
        for variant in bundle.variants:
            if variant.is_reference or variant.precision not in (Precision.FP32, Precision.INT8):
                continue
            forms = open_forms(bundle, variant)
            for _ in range(arguments.rounds):
                busy.append(os.getloadavg()[0])
                for form in forms:
                    measure(form, arguments.seconds)
            for form in forms:
                form.session.close()
            lines += rows(bundle.card.name, variant, forms)
            print("\n".join(lines[-2:]), flush=True)
    text = "\n".join(lines) + (
        f"\n\n{arguments.rounds} alternating rounds of {arguments.seconds:g} s a form; medians with least and most. "
        f"Machine: {cpu_class()}, {len(os.sched_getaffinity(0))} cores. Load average at the rounds' beginnings: {spread(busy)}.\n\n"
        f"Versions: openvino {get_engine('openvino').version()}, onnxruntime {get_engine('onnxruntime').version()}.\n"
    )
    print(text)
    if arguments.out:
        arguments.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
