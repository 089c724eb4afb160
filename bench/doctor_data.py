# SPDX-License-Identifier: Apache-2.0
"""How often the examination of the data finds something in healthy images: random subsets of validation images.

    python bench/doctor_data.py BUNDLE IMAGES [--subsets 240] [--sizes 16,32,64] [--costs 12]

Every image is measured and looked at once. Then subsets of each size are drawn without replacement, and the tests of measures, classes,
sizes and features are made on each, as the examination makes them. Those in which something deviates (and as many healthy ones as
`--costs` asks for) go through the whole examination, with its costs: only that says whether anything of weight is found.
Subsets of one set overlap; sizes that reach the whole set are drawn with two images left out at least.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from shipsight.build.progress import Silent
from shipsight.doctor import Case, Severity
from shipsight.doctor.data import DataExamination
from shipsight.doctor.data.collecting import read_training
from shipsight.doctor.data.content import Objects, compare_mix, compare_sizes, how_strange
from shipsight.doctor.data.deviations import deviate
from shipsight.doctor.data.eye import Eye
from shipsight.doctor.data.reading import read_files
from shipsight.model.bundle import open_bundle
from shipsight.proof.image_measures import measure_image

CONF = 0.25


def measure_all(case: Case) -> tuple[list[dict[str, float]], list[Objects], list[np.ndarray | None]]:
    """Returns measures, objects and features of every image."""
    eye = Eye(case, case.bundle.read_json("proof/training-stats.json")["embedding"]["tensor"])
    measures, objects, vectors = [], [], []
    for one in read_files(case.images).images:
        quality = {} if one.quality is None else {"jpeg_quality": one.quality}
        measures.append({**measure_image(one.image_rgb), **quality})
        look = eye.look(one.image_rgb)
        found = look.predictions
        kept = found.scores >= CONF
        spans = (
            np.ptp(found.corners_xy[kept], axis=1)
            if found.corners_xy is not None
            else found.boxes_xyxy[kept][:, 2:] - found.boxes_xyxy[kept][:, :2]
        )
        sizes = np.sqrt(spans.astype(np.float64).prod(axis=1) / (found.width * found.height))
        objects.append(Objects(found.class_ids[kept], sizes))
        vectors.append(look.vector)
    eye.close()
    return measures, objects, vectors


def main() -> None:
    """Draws the subsets and prints a line of JSON for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path)
    parser.add_argument("--subsets", type=int, default=240)
    parser.add_argument("--sizes", default="16,32,64")
    parser.add_argument(
        "--costs", type=int, default=12, help="most subsets a size that go through the whole examination"
    )
    options = parser.parse_args()
    bundle = open_bundle(options.bundle)
    paths = sorted(path for path in options.images.rglob("*") if path.suffix in (".jpg", ".png"))
    case = Case(bundle, bundle.default_variant, tuple(paths))
    training = read_training(case)
    assert training is not None
    measures, objects, vectors = measure_all(case)
    names = bundle.card.class_names
    for size in (min(int(text), len(paths) - 2) for text in options.sizes.split(",")):
        found: Counter[str] = Counter()
        farthest, mixes, sizes = [], [], []
        amiss: list[tuple[int, ...]] = []
        for seed in range(options.subsets):
            drawn = tuple(int(at) for at in np.random.default_rng(seed).choice(len(paths), size, replace=False))
            values: dict[str, list[float]] = {}
            for at in drawn:
                for name, value in measures[at].items():
                    values.setdefault(name, []).append(value)
            clear = [one.measure for one in deviate(values, training.measures) if one.is_clear]
            found.update(clear)
            mix = compare_mix([objects[at] for at in drawn], names, training.classes)
            extent = compare_sizes([objects[at] for at in drawn], training.measures.get("object_size"))
            if mix is not None and mix.changed:
                found["class-mix-changed"] += 1
            mixes.append(
                0.0 if mix is None else max((abs(one.here - one.training) for one in mix.changed), default=0.0)
            )
            sizes.append(0.0 if extent is None else extent.shift)
            own = [vector for at in drawn if (vector := vectors[at]) is not None]
            if training.embedding is not None and own:
                farthest.append(how_strange(np.array(own), training.embedding).middle)
            if clear:
                amiss.append(drawn)
        weighed = [_has_weight(case, [paths[at] for at in drawn]) for drawn in amiss[: options.costs]]
        line = {
            "bundle": bundle.card.name,
            "images": len(paths),
            "size": size,
            "subsets": options.subsets,
            "subsets_with_a_clear_measure": len(amiss),
            "of_these_examined": len(weighed),
            "with_a_finding_above_note": sum(weighed),
            "clear": dict(found),
            "largest_features_distance": round(max(farthest, default=0.0), 4),
            "object_size_shift": [round(min(sizes), 3), round(max(sizes), 3)],
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def _has_weight(case: Case, paths: list[Path]) -> bool:
    examination = DataExamination()
    own = Case(case.bundle, case.variant, tuple(sorted(paths)))
    evidence = examination.collect(own, Silent())
    return any(one.severity is not Severity.NOTE for rule in examination.rules for one in rule.look(evidence))


if __name__ == "__main__":
    main()
