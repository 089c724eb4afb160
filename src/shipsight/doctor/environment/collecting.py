# SPDX-License-Identifier: Apache-2.0
"""What runs here against what the proof recorded. All input, output and timing of the examination is here. Private to the room."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.measure import alternate
from shipsight.build.progress import Progress
from shipsight.doctor.case import Case
from shipsight.doctor.dataset.collecting import boxes_of
from shipsight.doctor.dataset.evidence import Boxes
from shipsight.doctor.dataset.pairing import agreement
from shipsight.doctor.environment.evidence import EnvironmentEvidence, KnownVersion, Precision, Timing
from shipsight.doctor.suspect import Suspect, SuspectKind, open_suspect
from shipsight.engines import EngineOptions, get_engine
from shipsight.engines._onnx_nodes import read_format
from shipsight.engines._onnxruntime_import import import_onnxruntime
from shipsight.engines._openvino_import import import_openvino
from shipsight.errors import ArtefactError, HashMismatchError, MissingFileError, TamperedError
from shipsight.proof import GoldenFiles, describe_environment
from shipsight.proof.control_group import read_control_group
from shipsight.proof.environment import cpu_flags
from shipsight.vision import PredictSettings, postprocess, prepare, to_tensor

__all__ = ["changed_files", "collect_environment", "read_known"]

_CAPS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "DNNL_DEFAULT_FPMATH_MODE",
)
_RUNS = 7
_SATURATION_IMAGES = 4
_VNNI = frozenset({"avx512_vnni", "avx_vnni"})
_TINY = np.float32(np.finfo(np.float32).tiny)


def read_known() -> tuple[KnownVersion, ...]:
    """Returns the table of versions known to be bad."""
    text = Path(__file__).with_name("known.json").read_text(encoding="utf-8")
    return tuple(KnownVersion(**one) for one in json.loads(text))


def changed_files(case: Case) -> tuple[str, ...]:
    """Returns the files of the case's variant that are not what the manifest promises, or not there."""
    changed = []
    for name in case.variant.files:
        path = f"variants/{case.variant.name}/{name}"
        try:
            case.bundle.read(path)
        except (HashMismatchError, MissingFileError):
            changed.append(path)
    return tuple(changed)


def collect_environment(case: Case, progress: Progress) -> EnvironmentEvidence:
    """Collects the evidence of a case.

    Raises:
        ShipsightError: the suspect cannot be opened, and its format does not say why.
    """
    here = describe_environment()
    told = case.bundle.read_json("proof/environment.json") if "proof/environment.json" in case.bundle.names else {}
    built = told if isinstance(told, Mapping) else {}
    changed = changed_files(case) if case.against is None else ()
    common: dict[str, Any] = {
        "here": here["versions"],
        "built": built.get("versions", {}),
        "flags": frozenset(here["cpu"]["flags"]),
        "built_flags": frozenset(built.get("cpu", {}).get("flags", ())),
        "cpu": str(here["cpu"]["class"]),
        "built_cpu": str(built.get("cpu", {}).get("class", "")),
        "system": platform.system(),
        "machine": platform.machine(),
        "known": read_known(),
        "caps": {name: os.environ[name] for name in _CAPS if name in os.environ},  # evidence, not settings
        "cores": int(here["cpu"]["usable_cores"]),
        "limit_cores": here["limits"]["cpu_cores"],
        "throttled_share": read_control_group().throttled_share,
        "threads": case.threads,
        "changed": changed,
    }
    if changed:
        return EnvironmentEvidence(engine=case.variant.engine, precision=case.variant.precision.value, **common)
    onnx = _onnx_file(case)
    formats = read_format(onnx) if onnx is not None else (0, 0)
    try:
        suspect = open_suspect(case)
    except TamperedError:
        raise
    except ArtefactError as error:
        if onnx is None or (formats[0] <= 10 and formats[1] <= 18):
            raise
        said = str(error)[:200]
        return EnvironmentEvidence(
            engine="onnxruntime", ir_version=formats[0], opset=formats[1], is_of_bundle=False, refused=said, **common
        )
    with suspect:
        progress.part(1, 2)
        return EnvironmentEvidence(
            ir_version=formats[0], opset=formats[1], **common, **_of_suspect(case, suspect, built, common["cores"])
        )


def _of_suspect(case: Case, suspect: Suspect, built: Mapping[str, Any], cores: int) -> dict[str, Any]:
    """Returns what is known of the suspect itself."""
    if suspect.session is None or suspect.variant is None or suspect.files is None:
        return {"is_of_bundle": None}
    is_variant = suspect.kind is SuspectKind.VARIANT
    report = suspect.session.precision()
    files = suspect.files
    found: dict[str, Any] = {
        "engine": suspect.variant.engine,
        "precision": case.variant.precision.value if is_variant else None,
        "runs": Precision(report.convolutions, report.integer_convolutions, report.float_type),
        "ran": _recorded(built, case.variant.name) if is_variant else None,
        "is_of_bundle": is_variant or suspect.kind is SuspectKind.CHECKPOINT or _is_of_bundle(case, files),
    }
    if suspect.kind is SuspectKind.CHECKPOINT:
        return found
    found["subnormal_share"] = _subnormal_share(files)
    tensors = _tensors(case, suspect)
    if case.threads is not None and case.threads > cores:
        with get_engine(suspect.variant.engine).open(files, suspect.variant, EngineOptions(threads=cores)) as other:
            found["timing"] = _time(lambda: suspect.session.infer(tensors[0]), lambda: other.infer(tensors[0]))  # type: ignore[union-attr]  # it was looked at above
    if suspect.variant.engine != "onnxruntime":
        return found
    content = files[suspect.variant.files[0]]
    if found["subnormal_share"] > 0:
        as_is, flushed = (
            _ort(content, case.threads, {}),
            _ort(content, case.threads, {"session.set_denormal_as_zero": "1"}),
        )
        found["flush_timing"] = _time(lambda: as_is(tensors[0]), lambda: flushed(tensors[0]))
    if report.integer_convolutions and platform.machine() in ("x86_64", "AMD64") and not cpu_flags() & _VNNI:
        found["saturation"] = _saturation(case, suspect, content)
        found["saturation_images"] = min(_SATURATION_IMAGES, len(GoldenFiles.of(case.bundle).keys()))
    return found


def _onnx_file(case: Case) -> bytes | None:
    if case.against is None:
        name = case.variant.files[0]
        return case.bundle.read(f"variants/{case.variant.name}/{name}") if name.endswith(".onnx") else None
    path = Path(case.against)
    return path.read_bytes() if path.suffix.lower() == ".onnx" and path.is_file() else None


def _recorded(built: Mapping[str, Any], variant: str) -> Precision | None:
    ran = built.get("precision_run", {}).get(variant)
    if not isinstance(ran, Mapping):
        return None
    return Precision(int(ran["convolutions"]), int(ran["integer_convolutions"]), str(ran["float_type"]))


def _is_of_bundle(case: Case, files: Mapping[str, bytes]) -> bool:
    import hashlib

    ours = {case.bundle.entry(name).sha256 for name in case.bundle.names if name.startswith("variants/")}
    return all(hashlib.sha256(content).hexdigest() in ours for content in files.values())


def _subnormal_share(files: Mapping[str, bytes]) -> float:
    """Returns the share of float weights that are subnormal, read by OpenVINO, which reads both formats."""
    core = import_openvino().Core()
    content = list(files.values())
    is_ir = next(iter(files)).endswith(".xml")
    weights = import_openvino().Tensor(np.frombuffer(content[1], np.uint8)) if is_ir else None
    model = core.read_model(content[0], weights) if is_ir else core.read_model(content[0])
    tiny = total = 0
    for node in model.get_ops():
        if node.get_type_name() == "Constant" and node.get_element_type().to_dtype() == np.float32:
            values = np.abs(np.asarray(node.data))
            total += values.size
            tiny += int(((values > 0) & (values < _TINY)).sum())
    return tiny / total if total else 0.0


def _tensors(case: Case, suspect: Suspect) -> list[NDArray[Any]]:
    assert suspect.card is not None
    assert suspect.variant is not None
    assert suspect.session is not None
    golden = GoldenFiles.of(case.bundle)
    tensors = []
    for key in golden.keys()[:_SATURATION_IMAGES]:
        pixels, _ = prepare(golden.image(key), suspect.card.input)
        tensor = to_tensor(pixels, suspect.card.input, suspect.variant.layout)
        tensors.append(tensor.astype(suspect.session.input.dtype, copy=False))
    return tensors


def _ort(
    content: bytes, threads: int | None, entries: Mapping[str, str]
) -> Callable[[NDArray[Any]], dict[str, NDArray[Any]]]:
    """Opens a model in ONNX Runtime with settings that the engine does not offer; returns what runs it."""
    runtime = import_onnxruntime()
    settings = runtime.SessionOptions()
    settings.log_severity_level = 3
    settings.intra_op_num_threads = threads or 0
    for key, value in entries.items():
        settings.add_session_config_entry(key, value)
    session = runtime.InferenceSession(content, settings, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    names = [one.name for one in session.get_outputs()]

    def run(tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        return dict(zip(names, session.run(names, {name: tensor}), strict=True))

    return run


def _time(as_is: Callable[[], object], other: Callable[[], object]) -> Timing:
    """Times two ways in turns, so that what else the machine does falls on both alike."""
    # A run after each change goes uncounted: threads of the other way still spin for work.
    taken = alternate({"as is": as_is, "other": other}, rounds=_RUNS, runs=1, warmup_runs=1).medians_ms
    return Timing(taken["as is"], taken["other"], _RUNS)


def _saturation(case: Case, suspect: Suspect, content: bytes) -> float:
    """Returns how far the model agrees with itself where products cannot overflow.

    ONNX Runtime offers it as `session.x64quantprecision`: weights are widened, which is slower.
    """
    assert suspect.card is not None
    assert suspect.variant is not None
    plain = _ort(content, case.threads, {})
    precise = _ort(content, case.threads, {"session.x64quantprecision": "1"})
    golden = GoldenFiles.of(case.bundle)
    answers: tuple[list[Boxes], list[Boxes]] = [], []
    for key in golden.keys()[:_SATURATION_IMAGES]:
        pixels, geometry = prepare(golden.image(key), suspect.card.input)
        tensor = to_tensor(pixels, suspect.card.input, suspect.variant.layout)
        for run, found in zip((plain, precise), answers, strict=True):
            predicted = postprocess(
                run(tensor),
                card=suspect.card,
                form=suspect.variant.form,
                geometry=geometry,
                settings=PredictSettings(conf=0.1),
            )
            found.append(boxes_of(predicted))
    return agreement(*answers)
