# SPDX-License-Identifier: Apache-2.0
"""A report's data with realistic numbers: YOLO11n on 64 images, one image size, every precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from shipsight.build.report import ReportData, WorstImage

CLASSES = [
    "person",
    "bicycle",
    "car",
    "motorcycle",
    "airplane",
    "bus",
    "train",
    "truck",
    "boat",
    "bench",
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "backpack",
    "umbrella",
    "handbag",
    "tie",
    "suitcase",
    "frisbee",
]
SOURCE = 0.4869


def _variant(name: str, accuracy: float | None, p50: float, **more: Any) -> dict[str, Any]:
    engine, precision = name.split("-")[:2]
    drop = None
    if accuracy is not None:
        value = SOURCE - accuracy
        half = 0.0002 if precision != "int8" else 0.009
        drop = {"value": value, "low": value - half, "high": value + half}
    entry = {
        "name": name,
        "engine": engine,
        "precision": precision,
        "imgsz": 640,
        "map50_95": accuracy,
        "map50": None if accuracy is None else accuracy + 0.164,
        "latency_ms": {"p50": p50, "p95": p50 * 1.12, "p99": p50 * 1.31},
        "engine_ms": {"p50": p50 * 0.9, "p95": p50, "p99": p50 * 1.2},
        "throughput_ips": 1100 / p50,
        "cold_start_ms": 412.0,
        "is_steady": True,
        "size_mb": 10.7,
        "memory_mb": 231.0,
        "int8_layers": [0, 88],
        "float_type": "f32",
        "is_default": False,
        "is_reference": False,
        "kept": True,
        "on_front": False,
        "outcome": "not measured" if accuracy is None else "passed",
        "drop": drop,
        "threshold": None if accuracy is None else 0.31,
        "dropped_because": "",
    }
    return entry | more


def _variants(*, measured: bool) -> list[dict[str, Any]]:
    def accuracy(value: float) -> float | None:
        return value if measured else None

    return [
        _variant(
            "onnxruntime-fp32-640",
            accuracy(0.4869),
            31.4,
            is_reference=True,
            outcome="reference",
            size_mb=10.9,
            drop=None,
        ),
        _variant("onnxruntime-fp32-640-u8", accuracy(0.4869), 29.6),
        _variant("onnxruntime-fp16-640-u8", accuracy(0.4866), 33.9, size_mb=5.5, kept=False, dropped_because="slower"),
        _variant(
            "onnxruntime-int8-640-u8",
            accuracy(0.4743),
            25.8,
            size_mb=3.1,
            int8_layers=[79, 88],
            outcome="undecided" if measured else "not measured",
            is_steady=False,
        ),
        _variant("openvino-fp32-640-u8", accuracy(0.4868), 21.3, on_front=measured),
        _variant(
            "openvino-int8-640-u8",
            accuracy(0.4817),
            11.2,
            size_mb=3.4,
            memory_mb=188.0,
            int8_layers=[81, 88],
            on_front=measured,
            is_default=True,
            outcome="undecided" if measured else "not measured",
            threshold=0.27 if measured else None,
        ),
    ]


def _jpeg(seed: int) -> bytes:
    import cv2

    rng = np.random.default_rng(seed)
    image = cv2.resize(rng.integers(60, 220, (5, 7, 3), dtype=np.uint8), (480, 360), interpolation=cv2.INTER_CUBIC)
    for _ in range(4):
        x, y = (int(value) for value in rng.integers(20, 260, 2))
        cv2.rectangle(image, (x, y), (x + 120, y + 80), (40, 220, 240), 3)
    return bytes(cv2.imencode(".jpg", image)[1])


def _by_class(seed: int) -> dict[str, dict[str, float]]:
    rng = np.random.default_rng(4)
    base = rng.uniform(0.15, 0.9, len(CLASSES))
    moved = np.clip(base + np.random.default_rng(seed).normal(-0.004, 0.02, len(CLASSES)) * (seed > 0), 0, 1)
    labels = rng.integers(1, 160, len(CLASSES))
    return {
        name: {"map50_95": float(moved[i]), "map50": float(min(moved[i] + 0.15, 1)), "labels": int(labels[i])}
        for i, name in enumerate(CLASSES)
    }


def _parity(variants: list[dict[str, Any]]) -> dict[str, Any]:
    noise = {"fp32": 118.0, "fp16": 61.0, "bf16": 42.0, "int8": 27.0}
    groups = [
        "stem",
        "backbone 1-4",
        "backbone 5-9",
        "attention",
        "neck",
        "head: boxes",
        "head: scores",
        "output boxes",
    ]
    rng = np.random.default_rng(3)
    return {
        "variants": {
            one["name"]: {
                "groups": [
                    {
                        "name": group,
                        "sqnr_db": float(noise[one["precision"]] - i * 1.6 + rng.normal(0, 2)),
                        "cosine": 0.9991,
                        "max_error": 0.042,
                    }
                    for i, group in enumerate(groups)
                ],
                "predictions": {
                    "expected": 126,
                    "matched": 126 if "fp32" in one["name"] else 121,
                    "worst_score": 0.041,
                    "worst_box_px": 3.2,
                },
                "passed": True,
                "gate": "at least 95 % matched",
            }
            for one in variants
        }
    }


def _statistics() -> dict[str, Any]:
    rng = np.random.default_rng(9)
    shapes = {
        "brightness": (rng.normal(118, 34, 900), "levels"),
        "contrast": (rng.gamma(8, 7, 900), "levels"),
        "sharpness": (rng.lognormal(5.5, 0.8, 900), ""),
        "width": (rng.choice([427, 480, 500, 612, 640], 900, p=[0.1, 0.15, 0.1, 0.05, 0.6]), "px"),
        "object_size": (rng.lognormal(3.8, 0.9, 900), "px"),
        "jpeg_quality": (rng.normal(88, 5, 900), ""),
    }
    histograms = {}
    for name, (values, unit) in shapes.items():
        counts, edges = np.histogram(values, 28)
        histograms[name] = {"counts": counts.tolist(), "edges": edges.tolist(), "unit": unit}
    return {
        "images": 128,
        "histograms": histograms,
        "classes": {name: 400 // (i + 1) for i, name in enumerate(CLASSES)},
    }


def make_data(*, measured: bool = True, shareable: bool = True) -> ReportData:
    variants = _variants(measured=measured)
    source = {"map50_95": SOURCE, "map50": 0.6504, "by_size": {"small": 0.261, "medium": 0.508, "large": 0.662}}
    default = {"map50_95": 0.4817, "map50": 0.6461, "by_size": {"small": 0.255, "medium": 0.503, "large": 0.659}}
    reference = {
        "data": {"name": "coco128", "split": "val", "images": 64},
        "sets": {"calibration": 96, "guard": 32, "report": 64},
        "max_drop": 0.01,
        "source": source | {"by_class": _by_class(0), "threshold": {"conf": 0.3, "f1": 0.61}},
        "variants": {"openvino-int8-640-u8": default | {"by_class": _by_class(7)}},
    }
    return ReportData(
        card={
            "name": "yolo11n",
            "version": "1",
            "task": "detect",
            "class_names": list(CLASSES),
            "input": {"size_hw": [640, 640], "colour": "rgb", "fit": "letterbox"},
            "output": {"head": "yolov8"},
            "licence": "AGPL-3.0",
            "origin": {
                "kind": "ultralytics",
                "file_name": "yolo11n.pt",
                "sha256": "ab" * 32,
                "architecture": "yolo11n",
            },
            "training": {
                "framework": "ultralytics 8.4.190",
                "date": "2026-09-14",
                "epoch": 599,
                "arguments": {"epochs": 600, "imgsz": 640, "batch": 128, "optimizer": "SGD", "lr0": 0.01},
                "metrics": {"metrics/mAP50-95(B)": 0.39456, "metrics/mAP50(B)": 0.55183, "fitness": 0.4103},
            },
            "images_shareable": shareable,
        },
        variants=variants,
        reference=reference if measured else {},
        training_stats=_statistics() if measured else {},
        environment={
            "cpu": {"model": "AMD EPYC 7B13", "cores": 2, "flags": ["avx", "avx2", "fma", "f16c", "sse4_2"]},
            "versions": {"python": "3.11.7", "numpy": "2.3.4", "onnxruntime": "1.31.1", "openvino": "2026.4.1"},
            "system": "Linux 6.1 x86_64",
            "threads": 2,
        },
        parity=_parity(variants),
        guard_steps=[
            _step(0, [], 0.4486, 87),
            _step(1, ["box decoding", "DFL"], 0.4796, 85),
            _step(2, ["head outputs"], 0.4817, 81, outcome="undecided"),
        ]
        if measured
        else [],
        worst_images=[
            WorstImage(f"00000043{i}.jpg", "2 labelled persons are missed.", _jpeg(i), _jpeg(i + 1), _jpeg(i + 2))
            for i in range(3)
        ]
        if measured
        else [],
        warnings=[
            {"code": "few-calibration-images", "text": "96 calibration images; 300 and more are better."},
            {
                "code": "undecided",
                "text": "openvino-int8-640-u8: 64 images cannot decide whether the drop is within 0.01.",
            },
        ]
        if measured
        else [{"code": "not-measured", "text": "No --data was given: accuracy was not measured, INT8 was not built."}],
        default_reason="the fastest whose drop is within the limit by its point estimate",
        images_measured=64 if measured else 0,
        shareable=shareable,
        files={
            "variants/openvino-int8-640-u8/model.bin": (3_312_004, "0f" * 32),
            "proof/reference.json": (812, "1e" * 32),
        },
    )


def _step(number: int, returned: list[str], accuracy: float, done: int, *, outcome: str = "failed") -> dict[str, Any]:
    drop = {"value": SOURCE - accuracy, "low": SOURCE - accuracy - 0.009, "high": SOURCE - accuracy + 0.009}
    return {
        "variant": "openvino-int8-640-u8",
        "step": number,
        "returned": returned,
        "accuracy": accuracy,
        "drop": drop,
        "integer_convolutions": done,
        "convolutions": 88,
        "outcome": outcome,
    }


@pytest.fixture
def full_data() -> ReportData:
    return make_data()


@pytest.fixture
def unmeasured_data() -> ReportData:
    return make_data(measured=False)


@pytest.fixture
def private_data() -> ReportData:
    return make_data(shareable=False)
