# SPDX-License-Identifier: Apache-2.0
"""ONNX files as sources: with Ultralytics' metadata complete without asking, others with a card file.

Leaves to others: reading the file (`_onnx_worker`, in a sandboxed child), running it (`engines`). Invariants: no runtime
of this process sees the file as it came, only what the child wrote after its checks; a card file, given or beside the
model, goes before metadata. Stable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shipsight.build.sources._onnx_metadata import Described, check_outputs, describes_itself, read_metadata
from shipsight.build.sources._process import ChildProcess
from shipsight.build.sources.card_file import example_card, find_card_file, read_card_file
from shipsight.build.sources.checkpoint import check_size
from shipsight.build.sources.contract import Source
from shipsight.build.sources.sandbox import DEFAULT_LIMITS, Limits, Sandbox
from shipsight.engines import EngineOptions, EngineSession, get_engine
from shipsight.errors import CardError, CorruptError, UnsupportedError, UsageError
from shipsight.model import (
    Card,
    Head,
    InputContract,
    Origin,
    OutputContract,
    OutputForm,
    Precision,
    TensorLayout,
    Variant,
    format_size,
)
from shipsight.model.warning import BuildWarning

__all__ = ["OnnxSource"]


class OnnxSource(Source):
    """An ONNX file.

    Args:
        path: the file.
        data: its bytes.
        card_file: a card file, None for the one beside the model or the model's own metadata.
        sha256: digest of the bytes.
        name: the model's name.
        version: the model's version.
        sandbox: whether isolation is required.
        limits: of the child process.

    Raises:
        CardError: nothing describes the model, or the description does not fit it.
        UntrustedError: data outside the file, custom operators.
        UnsupportedError: several inputs, loops, another type or operator set.
        CorruptError: damaged.
        LimitError: absurd counts or shapes, or too much memory or time.
        SandboxError: isolation is required and impossible here.
    """

    def __init__(
        self,
        path: Path,
        data: bytes,
        *,
        card_file: Path | None,
        sha256: str,
        name: str,
        version: str,
        sandbox: Sandbox = Sandbox.REQUIRED,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self.path = path
        self._limits = limits
        self._closed = False
        self._exports: dict[tuple[int, int], bytes] = {}
        chosen = card_file if card_file is not None else find_card_file(path)
        said = (
            None if chosen is None else Described(read_card_file(chosen))
        )  # a wrong card is told before anything starts
        self._child = ChildProcess("onnx", sandbox, limits)
        try:
            self._open(data, said, Origin("onnx", path.name, sha256), name=name, version=version)
        except (KeyError, TypeError, ValueError) as error:
            self._child.release()
            raise CorruptError("the model's description does not fit", where=path.name, got=error) from error
        except BaseException:
            self._child.release()
            raise

    @property
    def isolation(self) -> tuple[str, ...]:
        """The layers of isolation that held while the file was opened; empty without a sandbox."""
        return self._child.layers

    def export_onnx(self, size_hw: tuple[int, int]) -> bytes:
        """Gives the model in its canonical form; see the contract."""
        check_size(size_hw, self._stride)
        if self._static_hw is not None and size_hw != self._static_hw:
            raise UnsupportedError(
                "this ONNX file has one fixed size",
                where=self.path.name,
                expected=format_size(self._static_hw),
                got=format_size(size_hw),
                hint="Export it from its checkpoint at the other size, or with dynamic axes",
            )
        if size_hw not in self._exports:
            self._export(size_hw)
        return self._exports[size_hw]

    def open_reference(self, size_hw: tuple[int, int], *, threads: int | None = None) -> EngineSession:
        """Opens the canonical form in ONNX Runtime; see the contract."""
        model = self.export_onnx(size_hw)
        variant = Variant(
            name=f"onnxruntime-fp32-{format_size(size_hw)}",
            engine="onnxruntime",
            precision=Precision.FP32,
            size_hw=size_hw,
            layout=TensorLayout.FLOAT_NCHW,
            form=OutputForm.RAW,
            files=("model.onnx",),
            rest=Precision.FP32,
            is_reference=True,
        )
        return get_engine("onnxruntime").open({"model.onnx": model}, variant, EngineOptions(threads=threads))

    def close(self) -> None:
        """Stops the child process; open reference sessions live on."""
        if not self._closed:
            self._closed = True
            self._exports.clear()
            self._child.release()

    def _open(self, data: bytes, said: Described | None, origin: Origin, *, name: str, version: str) -> None:
        found, _ = self._child.call(
            "load",
            {"file_name": self.path.name},
            [data],
            what=f"checking {self.path.name}",
            timeout_s=self._limits.load_s,
        )
        sides: list[int | None] = found["sides"]
        self._static_hw = (sides[2], sides[3]) if sides[2] and sides[3] else None
        self._described = said or self._describe(found)
        card = self._described.card
        self._stride = card.stride
        size_hw = self._size(card.size_hw, sides)
        check_size(size_hw, self._stride)
        self._metadata = _canonical_metadata(self._described)
        shapes = self._export(size_hw)
        masks = check_outputs(card, shapes, size_hw, where=self.path.name)
        self.warnings = (
            *self._described.warnings,
            *(BuildWarning(str(code), str(text)) for code, text in found["warnings"]),
        )
        self.card = Card(
            name=name,
            version=version,
            task=card.task,
            class_names=card.names,
            input=InputContract(
                size_hw=size_hw,
                colour=card.colour,
                fit=card.fit,
                pad_value=card.pad_value,
                scale=card.scale,
                mean=card.mean,
                std=card.std,
                stride=card.stride,
            ),
            output=OutputContract(
                head=card.head,
                keypoint_shape=card.keypoint_shape,
                mask_channels=masks,
                max_detections=shapes[0][1] if card.head is Head.END2END else None,
            ),
            licence=card.licence,
            origin=Origin(origin.kind, origin.file_name, origin.sha256, card.architecture),
            training=self._described.training,
        )

    def _describe(self, found: dict[str, Any]) -> Described:
        metadata = found["metadata"]
        if describes_itself(metadata):
            return read_metadata(metadata, where=self.path.name)
        example = example_card(size_hw=self._static_hw, outputs=found["outputs"], class_count=None)
        beside = self.path.with_name(f"{self.path.stem}.card.yaml").name
        raise CardError(
            "this ONNX file does not say what it is",
            where=self.path.name,
            expected="Ultralytics' metadata, or a card file",
            hint=f"Write this to {beside} beside it, or pass it with --card, after correcting it:\n\n{example}\n",
        )

    def _size(self, said: tuple[int, int] | None, sides: list[int | None]) -> tuple[int, int]:
        if said is None and self._static_hw is None:
            raise CardError("the model's size is free and nothing says which to use", where="imgsz", hint="Add imgsz")
        height, width = said or self._static_hw or (0, 0)
        if self._static_hw is not None and (height, width) != self._static_hw:
            raise CardError(
                "the card or the metadata name another size than the model has",
                where=f"{self.path.name}: imgsz",
                expected=format_size(self._static_hw),
                got=format_size((height, width)),
            )
        if any(fixed is not None and fixed != side for fixed, side in zip(sides[2:], (height, width), strict=True)):
            raise UsageError("the model cannot take this size", where="imgsz", expected=sides[2:], got=(height, width))
        return height, width

    def _export(self, size_hw: tuple[int, int]) -> list[tuple[int, ...]]:
        answer, (model,) = self._child.call(
            "export",
            {"size_hw": list(size_hw), "metadata": self._metadata},
            what=f"preparing {self.path.name}",
            timeout_s=self._limits.export_s,
        )
        self._exports[size_hw] = model
        return [tuple(int(side) for side in shape) for shape in answer["output_shapes"]]


def _canonical_metadata(described: Described) -> dict[str, str]:
    """Returns the metadata that make the canonical file describe itself, in Ultralytics' own keys."""
    card = described.card
    metadata = {
        "task": card.task.value,
        "names": str(dict(enumerate(card.names))),
        "stride": str(card.stride),
        "license": card.licence,
        "end2end": str(card.head is Head.END2END),
    }
    return metadata if card.keypoint_shape is None else {**metadata, "kpt_shape": str(list(card.keypoint_shape))}
