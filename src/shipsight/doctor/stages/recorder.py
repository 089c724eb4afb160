# SPDX-License-Identifier: Apache-2.0
"""Records what another pipeline does, stage by stage: a few lines in anybody's own loop. Needs numpy alone. Stable; docs/doctor/stages.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import CorruptError

__all__ = ["Recorded", "StageRecorder", "read_stages"]


@dataclass(frozen=True, eq=False)
class Recorded:
    """What was kept of one image; a stage that was not told is None.

    Attributes:
        name: of the image's file.
        decoded: (H, W, 3) uint8 RGB.
        prepared: (h, w, 3) uint8 RGB, or (3, h, w) or (1, 3, h, w) float32 as the model was fed.
        outputs: output name -> array as it left the model.
        boxes_xyxy: (N, 4) float32 in pixels of the image.
        scores: (N,) float32.
        class_ids: (N,) int64.
    """

    name: str
    decoded: NDArray[np.uint8] | None = None
    prepared: NDArray[Any] | None = None
    outputs: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    boxes_xyxy: NDArray[np.float32] | None = None
    scores: NDArray[np.float32] | None = None
    class_ids: NDArray[np.int64] | None = None


class StageRecorder:
    """Writes one `.npz` file an image to a folder, without pickle.

    Args:
        folder: made where it is missing.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)

    def record(self, name: str, **stages: Any) -> None:  # noqa: ANN401 - arrays of any type
        """Keeps the stages of one image.

        Args:
            name: of the image's file, as in the folder that is given to the doctor.
            **stages: any of `decoded`, `prepared`, `outputs` (a mapping), `boxes_xyxy`, `scores`, `class_ids`; see `Recorded`.

        Raises:
            TypeError: a stage has another name.
        """
        unknown = set(stages) - {"decoded", "prepared", "outputs", "boxes_xyxy", "scores", "class_ids"}
        if unknown:
            raise TypeError(f"no such stages: {', '.join(sorted(unknown))}")
        arrays = {f"outputs/{key}": np.asarray(one) for key, one in dict(stages.pop("outputs", {})).items()}
        arrays |= {key: np.asarray(one) for key, one in stages.items()}
        np.savez_compressed(self._folder / f"{Path(name).name}.npz", **arrays)  # type: ignore[arg-type]  # stub of savez


def read_stages(folder: Path) -> tuple[Recorded, ...]:
    """Reads what a recorder wrote, by name.

    Raises:
        CorruptError: a file is none of its, or holds another array.
    """
    found = []
    for path in sorted(folder.glob("*.npz")):
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
        except (ValueError, OSError, EOFError) as error:
            raise CorruptError("not a recording of stages", where=path.name, got=error) from error
        outputs = {key.partition("/")[2]: arrays.pop(key) for key in list(arrays) if key.startswith("outputs/")}
        try:
            found.append(Recorded(path.name.removesuffix(".npz"), outputs=outputs, **arrays))
        except TypeError as error:
            raise CorruptError("not a recording of stages", where=path.name, got=error) from error
    return tuple(found)
