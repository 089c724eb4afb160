# SPDX-License-Identifier: Apache-2.0
"""Collects what the rules of the conversion look at: opens the suspect and the source, and asks both on the golden inputs. Private."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.build.optimize.cpu_target import detect_target
from shipsight.build.progress import Progress
from shipsight.doctor.case import Case
from shipsight.doctor.conversion.evidence import Agreement, ConversionEvidence, GraphFacts, Layer, Repair, Weight
from shipsight.doctor.conversion.graphs import read_facts
from shipsight.doctor.conversion.parts import Pair, Part, find_pairs, find_parts, in_float
from shipsight.doctor.conversion.weights import compare_weights, read_ir_weights, read_weights
from shipsight.doctor.suspect import SuspectKind, open_suspect
from shipsight.doctor.task_limits import uncompared
from shipsight.engines import EngineOptions, get_engine
from shipsight.engines._onnxruntime_import import import_onnxruntime
from shipsight.errors import ArtefactError, InternalError, TensorError
from shipsight.model import Card, TensorLayout, Variant
from shipsight.proof import GoldenFiles, MatchCriteria
from shipsight.proof.answers import answer_one
from shipsight.proof.layers import compare_layers, import_onnx, read_tensors
from shipsight.proof.matching import Found, match
from shipsight.proof.subject import Subject
from shipsight.vision import prepare, to_tensor

__all__ = ["collect"]

_MOST_INPUTS, _LAYER_INPUTS = 24, 2
_REPAIRS_S, _PART_S = 12.0, 1.5
_LOOSE = {"iou": 0.5, "score": 0.2}
_HALF_MOST = 65504.0


@dataclass(frozen=True, eq=False)
class _Golden:
    """Golden inputs at a suspect's size, and what the source found in each."""

    keys: tuple[str, ...]
    found: list[Found]
    tensors: list[NDArray[np.uint8]]
    geometries: list[Any]
    criteria: MatchCriteria

    def every(self, step: int) -> _Golden:
        """Returns each of so many inputs."""
        parts = (self.keys[::step], self.found[::step], self.tensors[::step], self.geometries[::step])
        return _Golden(*parts, self.criteria)


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a model found, None for an input on which it gave numbers that are not finite."""

    found: list[Found | None]

    def every(self, step: int) -> _Asked:
        """Returns the answers to each of so many inputs."""
        return _Asked(self.found[::step])


def collect(case: Case, progress: Progress) -> ConversionEvidence:
    """Collects the evidence of a case.

    Raises:
        ShipsightError: something that was given cannot be used.
    """
    onnx = import_onnx()
    reference = next(one for one in case.bundle.variants if one.is_reference)
    source = case.bundle.variant_files(reference.name)[reference.files[0]]
    try:
        suspect = open_suspect(case)
    except ArtefactError as error:
        return _refused(case, error)
    with suspect:
        if suspect.variant is None or suspect.session is None or suspect.files is None or suspect.card is None:
            raise InternalError("a suspect without a graph", where="conversion")
        variant, card = suspect.variant, suspect.card
        progress.part(1, 6)
        golden = _golden(case, reference, card, variant)
        begin_s = time.monotonic()
        asked = _ask(Subject.of(suspect.session, variant, card), golden)
        # each part is measured on so many inputs that it takes about as long on a large model as on a small one
        every = max(1, round((time.monotonic() - begin_s) / _PART_S))
        agreement = _agreement(golden, asked, seed=case.seed)
        progress.part(2, 6)
        precision = suspect.session.precision()
        model = None
        if variant.engine == "onnxruntime":
            model = onnx.load_model_from_string(suspect.files[variant.files[0]])
        facts, weights, compared = _weights(source, suspect.files, variant, model)
        progress.part(3, 6)
        evidence = ConversionEvidence(
            kind=str(suspect.kind),
            precision=str(variant.precision),
            float_type=precision.float_type,
            executed=precision.integer_convolutions,
            agreement=agreement,
            facts=replace(facts, says_nms=facts.says_nms),
            layers=_layers(source, suspect.files, variant, reference, card, golden),
            weights=tuple(weights),
            compared=compared,
            not_finite=any(one is None for one in asked.found),
            has_integer_dot=not detect_target().reduces_weight_range,
            classes=len(card.class_names),
            below_baked=_below(golden, facts),
            scores=tuple(_score_pairs(golden, asked))[:400],
            is_own=suspect.kind is SuspectKind.VARIANT,
            not_told=uncompared(card.task),
        )
        if not evidence.layers:
            evidence = replace(evidence, not_told=(*evidence.not_told, _why_no_layers(variant, reference)))
        evidence = replace(
            evidence, largest=_largest(source, suspect.files, variant, reference, card, golden, evidence)
        )
    progress.part(4, 6)
    if model is not None and evidence.is_integer and not evidence.weights and suspect.kind is not SuspectKind.VARIANT:
        unmeasured: list[str] = []
        repairs = _repairs(case, source, model, variant, card, golden.every(every), asked.every(every), unmeasured)
        evidence = replace(
            evidence, repairs=tuple(repairs), not_told=(*evidence.not_told, *map(_no_time, dict.fromkeys(unmeasured)))
        )
    return evidence


def _no_time(rule: str) -> str:
    return f"There was no time left to measure what {rule} costs: nothing is told of it."


def _why_no_layers(variant: Variant, reference: Variant) -> str:
    if variant.size_hw != reference.size_hw:
        return "Layers are not compared: the model runs at another size than the bundle's float reference."
    return "Layers are not compared: the graph bears none of the names of the source's layers."


def _subject(session: Any, variant: Variant, card: Card) -> Subject:  # noqa: ANN401 - only its infer is used
    return Subject.of(session, variant, card)


class _Unfused:
    """A session of ONNX Runtime that fuses nothing, so that each quantized layer is computed in float between its conversions."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - onnx has no types
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        self._session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def infer(self, batch: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Runs it on one batch."""
        names = [one.name for one in self._session.get_outputs()]
        given = self._session.run(names, {self._session.get_inputs()[0].name: batch})
        return dict(zip(names, given, strict=True))


def _refused(case: Case, error: ArtefactError) -> ConversionEvidence:
    """Returns what can be told of a graph that no engine opens; raises the error again where that is nothing."""
    path = Path(case.against or "")
    if path.suffix.lower() != ".onnx":
        raise error
    from google.protobuf.message import DecodeError

    try:
        model = import_onnx().load_model_from_string(path.read_bytes())
    except DecodeError:
        raise error from None
    return ConversionEvidence("onnx", "", "", 0, None, read_facts(model), refused=str(error)[:300])


def _golden(case: Case, reference: Variant, card: Card, variant: Variant) -> _Golden:
    files = GoldenFiles.of(case.bundle)
    keys = files.keys()[:_MOST_INPUTS]
    size = variant.size_hw if any(one.size_hw == variant.size_hw for one in case.bundle.variants) else reference.size_hw
    recorded = files.source(size)
    # prepared as the bundle prepares: how another pipeline does is not this examination's question
    contract = case.card.with_size(variant.size_hw).input
    made = [prepare(files.image(key), contract) for key in keys]
    criteria = MatchCriteria(conf=files.criteria.conf, **_LOOSE)
    return _Golden(keys, [recorded[key].found for key in keys], [a for a, _ in made], [b for _, b in made], criteria)


def _ask(subject: Subject, golden: _Golden) -> _Asked:
    found: list[Found | None] = []
    for key, tensor, geometry in zip(golden.keys, golden.tensors, golden.geometries, strict=True):
        try:
            found.append(answer_one(subject, key, tensor, geometry, conf=golden.criteria.low_conf).found)
        except TensorError as error:
            if "not finite" not in str(error):
                raise
            found.append(None)
    return _Asked(found)


def _counts(golden: _Golden, asked: _Asked) -> NDArray[np.float64]:
    """Returns (inputs, 2): predictions that should match, and those that do."""
    rows = []
    for ours, theirs in zip(golden.found, asked.found, strict=True):
        if theirs is None:
            rows.append((int((ours.scores >= golden.criteria.conf).sum()), 0))
        else:
            report = match([ours], [theirs], golden.criteria)
            rows.append((report.confident, report.matched))
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _agreement(golden: _Golden, asked: _Asked, *, seed: int) -> Agreement:
    counts = _counts(golden, asked)
    shares = _bootstrap(counts, seed)
    pairs = np.array(list(_score_pairs(golden, asked))).reshape(-1, 2)
    shift = float((pairs[:, 1] - pairs[:, 0]).mean()) if len(pairs) else 0.0
    total = counts[:, 0].sum()
    share = float(counts[:, 1].sum() / total) if total else 1.0
    low, high = float(np.quantile(shares, 0.05)), float(np.quantile(shares, 0.95))
    return Agreement(share, low, high, int(total), len(counts), shift)


def _draws(count: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, count, size=(400, count))


def _share(counts: NDArray[np.float64]) -> float:
    total = counts[:, 0].sum()
    return float(counts[:, 1].sum() / total) if total else 1.0


def _bootstrap(counts: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    if not len(counts):
        return np.ones(1)
    return _shares(counts, _draws(len(counts), seed))


def _shares(counts: NDArray[np.float64], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    sums = counts[draws].sum(axis=1)
    shares: NDArray[np.float64] = np.where(sums[:, 0] > 0, sums[:, 1] / np.maximum(sums[:, 0], 1), 1.0)
    return shares


def _score_pairs(golden: _Golden, asked: _Asked) -> Any:  # noqa: ANN401 - an iterator of pairs
    """Yields (source, suspect) scores of confident predictions, the suspect's best of that class near the same middle."""
    for ours, theirs in zip(golden.found, asked.found, strict=True):
        if theirs is None or not len(theirs.scores):
            continue
        middles, others = ours.corners_xy.mean(axis=1), theirs.corners_xy.mean(axis=1)
        sides = np.ptp(ours.corners_xy, axis=1).max(axis=1)
        for number in np.flatnonzero(ours.scores >= golden.criteria.conf):
            near = np.abs(others - middles[number]).max(axis=1) <= 0.25 * max(float(sides[number]), 1e-6)
            near &= theirs.class_ids == ours.class_ids[number]
            if near.any():
                yield float(ours.scores[number]), float(theirs.scores[near].max())


def _below(golden: _Golden, facts: GraphFacts) -> float:
    baked = max((one.conf or 0.0 for one in facts.nms), default=0.0)
    scores = np.concatenate([one.scores for one in golden.found]) if golden.found else np.zeros(0)
    return float((scores < baked).mean()) if len(scores) else 0.0


def _weights(
    source: bytes,
    files: Mapping[str, bytes],
    variant: Variant,
    model: Any,  # noqa: ANN401 - onnx has no types
) -> tuple[GraphFacts, list[Weight], int]:
    ours = read_weights(import_onnx().load_model_from_string(source))
    skips_scale = variant.layout is TensorLayout.UINT8_NHWC
    if model is not None:
        found, compared = compare_weights(ours, read_weights(model), skips_scale=skips_scale)
        return read_facts(model), found, compared
    from shipsight.proof.layers import _read_ir

    ir = _read_ir(files, variant)
    theirs = read_ir_weights(ir)
    found, compared = compare_weights(ours, theirs, skips_scale=skips_scale)
    return _ir_facts(ir, theirs), found, compared


def _ir_facts(ir: Any, weights: Sequence[Any]) -> GraphFacts:  # noqa: ANN401 - OpenVINO has no types
    kinds = [one.get_type_name() for one in ir.get_ordered_ops()]
    return GraphFacts(
        has_free_shape=any(one.get_partial_shape().is_dynamic for one in ir.inputs),
        layers=sum(kind in ("Convolution", "GroupConvolution", "MatMul") for kind in kinds),
        quantized=sum(one.step is not None for one in weights) if "FakeQuantize" in kinds else 0,
        is_half=any(one.is_half for one in weights),
    )


def _layers(
    source: bytes, files: Mapping[str, bytes], variant: Variant, reference: Variant, card: Card, golden: _Golden
) -> tuple[Layer, ...]:
    if variant.size_hw != reference.size_hw:
        return ()
    rows = compare_layers(source, files, variant, card, golden.tensors[:_LAYER_INPUTS])
    return tuple(Layer(row["name"], row["stage"], _finite(row["sqnr_db"]), _finite(row["cosine"])) for row in rows)


def _finite(value: float) -> float:
    return float(value) if np.isfinite(value) else -200.0


def _largest(
    source: bytes,
    files: Mapping[str, bytes],
    variant: Variant,
    reference: Variant,
    card: Card,
    golden: _Golden,
    evidence: ConversionEvidence,
) -> tuple[tuple[str, float], ...]:
    """Returns the largest activations of the source's layers and of the suspect's own, where it has FP16 in it."""
    if not (evidence.facts.is_half or evidence.float_type == "f16") or variant.size_hw != reference.size_hw:
        return ()
    most = _peaks(source, TensorLayout.FLOAT_NCHW, card, golden)
    if variant.engine == "onnxruntime":
        # What is scaled up and down again within the suspect is in no layer of the source.
        own = _peaks(files[variant.files[0]], variant.layout, card, golden)
        most |= {name: max(value, most.get(name, 0.0)) for name, value in own.items() if value >= _HALF_MOST}
    return tuple(sorted(most.items(), key=lambda one: -one[1])[:8])


def _peaks(model_onnx: bytes, layout: TensorLayout, card: Card, golden: _Golden) -> dict[str, float]:
    """Returns the largest activation of each layer, FP16's largest for what is not finite."""
    model = import_onnx().load_model_from_string(model_onnx)
    names = [node.output[0] for node in model.graph.node if node.op_type in ("Conv", "MatMul", "Add", "Mul")]
    run = read_tensors(model_onnx, names)
    most = dict.fromkeys(names, 0.0)
    for tensor in golden.tensors[:_LAYER_INPUTS]:
        for name, values in run(to_tensor(tensor, card.input, layout)).items():
            size = np.nan_to_num(np.abs(values), nan=_HALF_MOST, posinf=_HALF_MOST)
            most[name] = max(most[name], float(size.max(initial=0.0)))
    return most


def _clipped(source: bytes, pairs: Sequence[Pair], card: Card, golden: _Golden) -> dict[str, float]:
    """Returns the share of each activation's energy in the source that lies beyond its range."""
    graph = import_onnx().load_model_from_string(source).graph
    fed = graph.input[0].name
    known = {fed, *(name for node in graph.node for name in node.output)}
    wanted = [one for one in pairs if one.tensor in known]
    if not wanted:
        return {}
    run = read_tensors(source, sorted({one.tensor for one in wanted} - {fed}))
    lost = dict.fromkeys((one.tensor for one in wanted), 0.0)
    total = dict.fromkeys(lost, 1e-30)
    for tensor in golden.tensors[:_LAYER_INPUTS]:
        given_in = to_tensor(tensor, card.input, TensorLayout.FLOAT_NCHW)
        values = {**run(given_in), fed: given_in}
        for one in wanted:
            given = values[one.tensor]
            lost[one.tensor] += float(((given - np.clip(given, one.low, one.high)) ** 2).sum(dtype=np.float64))
            total[one.tensor] += float((given**2).sum(dtype=np.float64))
    return {name: lost[name] / total[name] for name in lost}


def _repairs(
    case: Case,
    source: bytes,
    model: Any,  # noqa: ANN401 - onnx has no types
    variant: Variant,
    card: Card,
    golden: _Golden,
    asked: _Asked,
    unmeasured: list[str],
) -> Any:  # noqa: ANN401 - an iterator of repairs
    """Yields what each part costs, as long as there is time; the rules of the others are added to `unmeasured`."""
    pairs = find_pairs(model)
    parts: list[Part] = find_parts(model, pairs, _clipped(source, pairs, card, golden))
    weights = {one.name: one for one in read_weights(import_onnx().load_model_from_string(source))}
    draws = _draws(len(golden.keys), case.seed)
    before = _counts(golden, asked)
    end_s = time.monotonic() + _REPAIRS_S
    if detect_target().reduces_weight_range:
        # the same integers added in floats: what a processor without the narrow sums gives
        after = _counts(golden, _ask(_subject(_Unfused(model), variant, card), golden))
        gains = _shares(after, draws) - _shares(before, draws)
        gain = _share(after) - _share(before)
        yield Repair("int8-saturation", len(pairs), _share(after), gain, float(np.quantile(gains, 0.05)))
    for part in parts:
        if time.monotonic() > end_s:
            unmeasured.append(part.rule)
            continue
        files = {variant.files[0]: in_float(model, part, weights)}
        with get_engine(variant.engine).open(files, variant, EngineOptions(threads=case.threads)) as session:
            after = _counts(golden, _ask(Subject.of(session, variant, card), golden))
        gains = _shares(after, draws) - _shares(before, draws)
        share = _share(after)
        gain = share - _share(before)
        low = float(np.quantile(gains, 0.05))
        yield Repair(part.rule, len(part.pairs), share, gain, low, part.is_defect, part.detail)
