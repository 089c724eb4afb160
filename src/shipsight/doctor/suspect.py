# SPDX-License-Identifier: Apache-2.0
"""What stands in production, whatever it is: a bundle's variant, an exported model, a checkpoint, a server; each behind one contract.

Leaves to others: what is asked of it, and what is wrong with it. Invariants: a suspect predicts through its own whole pipeline, as
its own card describes it; what it cannot tell is None, never guessed from the bundle without saying so (`is_described`). Stable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.case import Case
from shipsight.engines import EngineSession
from shipsight.errors import UsageError
from shipsight.model import Card, ImagePredictions, Variant

__all__ = ["Suspect", "SuspectKind", "open_suspect"]


class SuspectKind(StrEnum):
    """What a suspect is."""

    VARIANT = "variant"
    """Of the bundle itself."""
    ONNX = "onnx"
    OPENVINO = "openvino"
    CHECKPOINT = "checkpoint"
    SERVER = "server"


class Suspect(ABC):
    """What stands in production, opened.

    Attributes:
        kind: what it is.
        card: as the suspect itself has it: class names, input size, head; None where it does not tell (some servers).
        is_described: whether the class names on the card come from the suspect; False where they are the bundle's for want of any.
        files: of the model by name, None where they cannot be had (a server).
        variant: how it is run: engine, tensor layout, form of the outputs; None for a server.
        session: the opened engine, None for a server; closed with the suspect.
        baked: thresholds that are part of the model or of its server, as far as it tells: `conf`, `iou`, `max_det`.
        digest: of the manifest of the bundle that it comes from, in hexadecimal; None where that is not known.
    """

    kind: SuspectKind
    card: Card | None
    is_described: bool = True
    files: Mapping[str, bytes] | None = None
    variant: Variant | None = None
    session: EngineSession | None = None
    baked: Mapping[str, float] = {}
    digest: str | None = None

    @abstractmethod
    def predict(
        self, image_rgb: NDArray[np.uint8], *, conf: float = 0.25, iou: float = 0.7, max_det: int = 300
    ) -> ImagePredictions:
        """Predicts on one image, through the suspect's whole pipeline.

        Args:
            image_rgb: (height, width, 3) uint8 RGB.
            conf: least score, 0 to 1; what is baked in goes before it.
            iou: overlap above which the lower-scored box is suppressed, 0 to 1; likewise.
            max_det: most predictions; likewise.

        Raises:
            ShipsightError: the suspect cannot answer.
        """

    @abstractmethod
    def raw(self, batch: NDArray[Any]) -> Mapping[str, NDArray[Any]] | None:
        """Runs the graph alone on prepared tensors.

        Args:
            batch: (N, height, width, 3) uint8 RGB as `vision.prepare` makes it, whatever the graph takes; or (N, 3, height, width)
                float32 as its input contract says, where it takes floats.

        Returns:
            Output name -> (N, ...) array; None where it cannot be fed tensors.

        Raises:
            TensorError: the batch has another shape or type.
        """

    @abstractmethod
    def close(self) -> None:
        """Gives back what it holds; calling it twice is harmless."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_suspect(case: Case) -> Suspect:
    """Opens what stands in production: what `case.against` names, else the case's variant.

    Raises:
        UsageError: nothing is there, or it is of no kind that is handled.
        ArtefactError: the file is damaged, not handled, or not to be trusted.
        CardError: nothing says what the model is, and the bundle's card does not fit it.
        MissingDependencyError: a package is missing; the hint names the extra.
        ServiceError: the server does not answer.
    """
    if case.against is None:
        from shipsight.doctor.suspect_models import open_variant

        return open_variant(case)
    if case.against.startswith(("http://", "https://")):
        from shipsight.doctor.suspect_server import open_server

        return open_server(case)
    from shipsight.doctor.suspect_models import open_checkpoint, open_onnx, open_openvino

    path = Path(case.against)
    if path.is_dir():
        path = _model_in(path)
    openers = {".onnx": open_onnx, ".xml": open_openvino, ".pt": open_checkpoint, ".pth": open_checkpoint}
    opener = openers.get(path.suffix.lower())
    if opener is None or not path.is_file():
        raise UsageError(
            "nothing to compare with",
            where="--against",
            expected="a model file (.onnx, .xml, .pt), a folder with one, or http[s]://HOST[:PORT]/MODEL",
            got=case.against,
        )
    return opener(case, path)


def _model_in(folder: Path) -> Path:
    """Returns the one model of a folder, as OpenVINO's exports are."""
    found = sorted(one for suffix in ("xml", "onnx") for one in folder.glob(f"*.{suffix}"))
    if len(found) != 1:
        got = ", ".join(one.name for one in found) or "none"
        raise UsageError("not a folder with one model", where="--against", expected="one .xml or .onnx file", got=got)
    return found[0]
