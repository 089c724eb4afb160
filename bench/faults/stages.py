# SPDX-License-Identifier: Apache-2.0
"""Pipelines that recorded their stages, one of which is wrong, and a model that answers otherwise each time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from faults import exports
from faults.bundles import with_file
from faults.pipeline import Pipeline
from faults.planting import Planted, Scene, copied, given

__all__ = ["wrong_stages"]


def record(pipeline: Pipeline, path: Path, folder: Path) -> None:
    """Keeps what one image was at each stage, as somebody does who has NumPy alone."""
    session = pipeline.model.session
    tensor = pipeline.tensor(path)
    raw = session.run(None, {session.get_inputs()[0].name: tensor})[0]
    found = pipeline.predictions(path)
    folder.mkdir(exist_ok=True)
    np.savez(
        folder / f"{path.name}.npz",
        **{
            "decoded": pipeline.pixels(path),
            "prepared": tensor[0],
            f"outputs/{session.get_outputs()[0].name}": raw,
            "boxes_xyxy": np.float32([one["box_xyxy"] for one in found]).reshape(-1, 4),
            "scores": np.float32([one["score"] for one in found]),
            "class_ids": np.int64([one["class_id"] for one in found]),
        },
    )


@dataclass(frozen=True)
class _Recorded:
    """A pipeline with one stage that is wrong."""

    changes: dict[str, object]
    share: float = 0.0  # by which weights are changed

    def __call__(self, scene: Scene, folder: Path, seed: int) -> list[str]:
        pipeline = dataclasses.replace(scene.pipeline, **self.changes, geometry={})  # type: ignore[arg-type] - its fields
        if self.share:
            file = exports.other_weights(scene.pipeline, folder / "model.onnx", strength=self.share, seed=seed)
            pipeline = dataclasses.replace(pipeline, model=dataclasses.replace(pipeline.model, path=file))
        images = scene.some(seed, 12)
        for path in images:
            record(pipeline, path, folder / "stages")
        float_variant = scene.pipeline.model.path.parent.name
        return given(copied(images, folder / "images"), "--stages", folder / "stages", "--variant", float_variant)


def _restless_bundle(scene: Scene, folder: Path, seed: int) -> Path:
    path = scene.pipeline.model.path
    made = exports.restless(scene.pipeline, folder / "restless.onnx", share=0.3)
    return with_file(scene.bundle, f"variants/{path.parent.name}/model.onnx", made.read_bytes(), folder / "new.bundle")


def wrong_stages() -> Iterator[Planted]:
    """Yields pipelines with one stage that is wrong, told by what they recorded."""
    for name, rule, recorded in (
        ("recorded: bgr", "stage-decode-differs", _Recorded({"channels": "bgr"})),
        ("recorded: levels of video", "stage-decode-differs", _Recorded({"decoded": "video"})),
        ("recorded: not divided by 255", "stage-prepare-differs", _Recorded({"scale": 1.0})),
        ("recorded: scaled to -1 and 1", "stage-prepare-differs", _Recorded({"scale": 2 / 255, "offset": -1.0})),
        ("recorded: weights of another epoch", "stage-engine-differs", _Recorded({}, share=0.05)),
        ("recorded: threshold of 0.6", "stage-postprocess-differs", _Recorded({"conf": 0.6})),
        ("recorded: boxes of the model's pixels", "stage-postprocess-differs", _Recorded({"maps_back": False})),
    ):
        # Pixels of the model are those of the image where nothing is resized.
        models = frozenset({"bccd"}) if "pixels" in name else frozenset()
        yield Planted(name, "stages", frozenset({rule}), recorded, models=models)
    yield Planted(
        "noise of training in the graph",
        "stages",
        frozenset({"stage-nondeterministic"}),
        lambda scene, folder, seed: given(
            copied(scene.some(seed, 12), folder / "images"), "--variant", scene.pipeline.model.path.parent.name
        ),
        bundle=_restless_bundle,
    )
