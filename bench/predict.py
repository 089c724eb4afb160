# SPDX-License-Identifier: Apache-2.0
"""JPEG file to predictions, batch 1: a bundle's default variant against Ultralytics, in one run.

    python bench/predict.py --bundle yolo11n.bundle --checkpoint yolo11n.pt \
        --openvino yolo11n_int8_openvino_model --images coco128/images/val2017 --data coco128/data.yaml

Peers answer through their own `predict(file)`, each warmed up on every image once, then in alternating rounds over all
images; the figure is the median over images and rounds. Accuracy of the OpenVINO export and of the bundle's variant is
measured alike: same square letterbox, one class an anchor, conf 0.001, iou 0.7, at most 300 predictions.
Ultralytics writes settings: point YOLO_CONFIG_DIR at a scratch folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

COLD_START = """
import time; begin = time.perf_counter()
import shipsight
shipsight.load({bundle!r}).predict({image!r})
print(time.perf_counter() - begin)
"""


def time_peers(
    peers: dict[str, Callable[[str], object]], images: list[str], rounds: int
) -> dict[str, list[list[float]]]:
    """Returns seconds by peer, round and image; peers take turns image by image."""
    for predict in peers.values():
        for image in images:
            predict(image)
    seconds: dict[str, list[list[float]]] = {name: [] for name in peers}
    for _ in range(rounds):
        for name in peers:
            seconds[name].append([])
        for image in images:
            for name, predict in peers.items():
                begin = time.perf_counter()
                predict(image)
                seconds[name][-1].append(time.perf_counter() - begin)
    return seconds


def cold_starts(bundle: Path, image: str, runs: int = 5) -> list[float]:
    """Returns seconds of import plus first prediction in fresh processes, files warm in the page cache."""
    code = COLD_START.format(bundle=str(bundle), image=image)
    return [
        float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
        for _ in range(runs)
    ]


def accuracy_of_export(folder: Path, data: Path, bundle: Path) -> dict[str, float]:
    """Returns mAP50-95 of an Ultralytics OpenVINO export and of the bundle's default variant, measured alike."""
    from shipsight.build.measure import PreparedImages, evaluate, load_dataset, predict_samples
    from shipsight.engines import get_engine
    from shipsight.model import OutputForm, Precision, TensorLayout, Variant
    from shipsight.predictor import load
    from shipsight.vision import PredictSettings

    settings = PredictSettings(conf=0.001, iou=0.7, max_det=300)
    with load(bundle) as ours:
        samples = load_dataset(data, ours.card.task).splits["val"]
        height, width = ours.card.input.size_hw
        xml = next(folder.glob("*.xml"))
        peer = Variant(
            name="peer",
            engine="openvino",
            precision=Precision.INT8,
            size_hw=(height, width),
            layout=TensorLayout.FLOAT_NCHW,
            form=OutputForm.RAW,
            files=(xml.name, xml.with_suffix(".bin").name),
            rest=Precision.FP32,
        )
        found = {}
        with get_engine("openvino").open(folder, peer) as session:
            cache = PreparedImages()
            for name, opened, variant in (
                ("openvino export", session, peer),
                ("shipsight", ours.session, ours.variant),
            ):
                answers = predict_samples(opened, ours.card, variant, samples, settings, prepared_cache=cache)
                found[name] = evaluate(
                    answers, samples, task=ours.card.task, class_names=ours.card.class_names
                ).map50_95
    return found


def read_options() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--openvino", type=Path, required=True, help="an Ultralytics INT8 OpenVINO export")
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="data.yaml whose val split measures accuracy")
    parser.add_argument("--count", type=int, default=32, help="images (default 32)")
    parser.add_argument("--rounds", type=int, default=5, help="alternating rounds (default 5)")
    return parser.parse_args()


def main() -> None:
    """Measures and prints."""
    options = read_options()

    import openvino
    import ultralytics
    from ultralytics import YOLO

    import shipsight

    images = [str(path) for path in sorted(options.images.glob("*.jpg"))[: options.count]]
    checkpoint = YOLO(str(options.checkpoint))
    export = YOLO(str(options.openvino), task="detect")
    ours = shipsight.load(options.bundle)
    height, _ = ours.card.input.size_hw
    peers: dict[str, Callable[[str], object]] = {
        "YOLO(.pt)": lambda image: checkpoint.predict(image, imgsz=height, verbose=False, device="cpu"),
        "YOLO(int8 openvino)": lambda image: export.predict(image, imgsz=height, verbose=False, device="cpu"),
        "shipsight": ours.predict,
    }
    seconds = time_peers(peers, images, options.rounds)
    median_ms = {
        name: statistics.median(itertools.chain.from_iterable(rounds)) * 1e3 for name, rounds in seconds.items()
    }
    by_round = {name: [statistics.median(one) * 1e3 for one in rounds] for name, rounds in seconds.items()}
    ratios = {
        name: [a / b for a, b in zip(by_round[name], by_round["shipsight"], strict=True)]
        for name in peers
        if name != "shipsight"
    }
    cold = cold_starts(options.bundle, images[0])
    result = {
        "machine": platform.processor() or platform.machine(),
        "versions": {
            "shipsight": shipsight.__version__,
            "ultralytics": ultralytics.__version__,
            "openvino": openvino.__version__,
        },
        "variant": ours.variant.name,
        "images": len(images),
        "rounds": options.rounds,
        "median_ms": median_ms,
        "ratio_to_shipsight": {
            name: {"median": statistics.median(all_), "min": min(all_), "max": max(all_)}
            for name, all_ in ratios.items()
        },
        "import_and_first_prediction_s": {"median": statistics.median(cold), "min": min(cold), "max": max(cold)},
        "map50_95": accuracy_of_export(options.openvino, options.data, options.bundle),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
