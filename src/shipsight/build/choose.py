# SPDX-License-Identifier: Apache-2.0
"""Which variants stay, which lie on the Pareto front, which is the default: decisions on measurements, no I/O.

Rules, in order: a variant whose accuracy outcome is `failed` stays only where a stated least accuracy (`min_map`) is met; an `int8` variant that is not faster than
the fastest float variant of its engine and size never stays; the reference always stays; of the rest the best of each engine and
precision by the objective stays, or all with `keep_all`. The default is the best by the objective among those that
passed, or are undecided with a point estimate within the limit, and meet the constraints. Private to `build`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from shipsight.build.options import BuildOptions, Constraints, Objective
from shipsight.build.result import VariantResult
from shipsight.model.warning import BuildWarning

__all__ = ["choose", "mark_front"]

_NOT_WORSE = 1e-9


def choose(
    results: Sequence[VariantResult], options: BuildOptions
) -> tuple[list[VariantResult], str, list[BuildWarning], list[str]]:
    """Decides what is kept, what lies on the front and what is the default.

    Returns:
        The results with `kept`, `on_front`, `is_default` and `dropped_because` set, the reason of the default, warnings,
        and the requirements that nothing meets.
    """
    marked = _drop_slow_int8(_drop_failed(list(results), options))
    candidates = [one for one in marked if one.kept]
    if not options.keep_all:
        marked = _keep_best_of_each(marked, options)
    marked = mark_front(marked)
    default, reason, warnings = _choose_default(marked, options)
    # The default stays even where another of its engine and precision is better by the objective but breaks a constraint.
    marked = [
        replace(one, is_default=True, kept=True, dropped_because="") if one.variant.name == default else one
        for one in marked
    ]
    unmet = _find_unmet(candidates, marked, options)
    return marked, reason, warnings, unmet


def mark_front(results: Sequence[VariantResult]) -> list[VariantResult]:
    """Marks the variants that no other beats in latency and accuracy at once; without accuracy, the fastest alone."""

    def is_beaten(one: VariantResult) -> bool:
        metric = one.main_metric or 0.0
        return any(
            (other.main_metric or 0.0) >= metric
            and other.latency_ms <= one.latency_ms
            and ((other.main_metric or 0.0) > metric + _NOT_WORSE or other.latency_ms < one.latency_ms)
            for other in results
            if other.outcome != "failed"
        )

    return [replace(one, on_front=one.outcome != "failed" and not is_beaten(one)) for one in results]


def _drop_failed(results: list[VariantResult], options: BuildOptions) -> list[VariantResult]:
    return [
        replace(one, kept=False, dropped_because="loses more accuracy than --max-drop allows")
        if one.outcome == "failed" and not one.variant.is_reference and not _is_acceptable(one, options)
        else one
        for one in results
    ]


_TOO_SLOW = "not faster than float on this engine and machine"


def _drop_slow_int8(results: list[VariantResult]) -> list[VariantResult]:
    return [
        replace(one, kept=False, dropped_because=_TOO_SLOW)
        if one.kept and one.float_ratio is not None and one.float_ratio <= 1
        else one
        for one in results
    ]


def _keep_best_of_each(results: list[VariantResult], options: BuildOptions) -> list[VariantResult]:
    best: dict[tuple[str, str], VariantResult] = {}
    for one in results:
        if not one.kept or one.variant.is_reference:
            continue
        key = (one.variant.engine, one.variant.precision.value)
        if key not in best or _rank(one, options) < _rank(best[key], options):
            best[key] = one
    stay = {one.variant.name for one in best.values()}
    return [
        one
        if not one.kept or one.variant.is_reference or one.variant.name in stay
        else replace(one, kept=False, dropped_because="another of its engine and precision is better")
        for one in results
    ]


def _rank(one: VariantResult, options: BuildOptions) -> tuple[bool, bool, float]:
    """Orders variants: acceptable first, constraints met first, then by the objective."""
    return (not _is_acceptable(one, options), bool(_broken(one, options.constraints)), _cost(one, options.objective))


def _cost(one: VariantResult, objective: Objective) -> float:
    match objective:
        case Objective.LATENCY:
            return one.latency_ms
        case Objective.THROUGHPUT:
            return -float(one.speed["throughput_ips"])
        case Objective.ACCURACY:
            return -(one.main_metric or 0.0)
        case Objective.SIZE:
            return one.size_mb


def _is_acceptable(one: VariantResult, options: BuildOptions) -> bool:
    least = options.constraints.min_map
    if one.outcome == "failed":
        # Who states the accuracy that is needed has decided what a smaller input may cost.
        return least is not None and one.main_metric is not None and one.main_metric >= least
    if one.outcome != "undecided":
        return True
    within = one.drop is not None and one.drop["value"] <= options.max_drop
    return options.accept_undecided or within


def _broken(one: VariantResult, limits: Constraints) -> list[str]:
    broken = []
    if limits.max_latency_ms is not None and one.latency_ms > limits.max_latency_ms:
        broken.append(f"latency {one.latency_ms:.2f} ms > {limits.max_latency_ms:g} ms")
    if limits.min_map is not None and (one.main_metric is None or one.main_metric < limits.min_map):
        measured = "not measured" if one.main_metric is None else f"{one.main_metric:.4f}"
        broken.append(f"accuracy {measured} < {limits.min_map:g}")
    if limits.max_size_mb is not None and one.size_mb > limits.max_size_mb:
        broken.append(f"size {one.size_mb:.1f} MB > {limits.max_size_mb:g} MB")
    memory_mb = one.speed["memory_mb"]
    if limits.max_memory_mb is not None and memory_mb > limits.max_memory_mb:
        broken.append(f"memory {memory_mb:.0f} MB > {limits.max_memory_mb:g} MB")
    return broken


_OBJECTIVE_WORDS = {
    Objective.LATENCY: "the lowest latency",
    Objective.THROUGHPUT: "the highest throughput",
    Objective.ACCURACY: "the highest accuracy",
    Objective.SIZE: "the smallest files",
}


def _choose_default(results: list[VariantResult], options: BuildOptions) -> tuple[str, str, list[BuildWarning]]:
    eligible = [one for one in results if one.dropped_because != _TOO_SLOW]
    acceptable = [one for one in eligible if _is_acceptable(one, options)]
    meeting = [one for one in acceptable if not _broken(one, options.constraints)]
    pool = meeting or acceptable
    best = min(pool, key=lambda one: (_cost(one, options.objective), one.variant.name))
    words = _OBJECTIVE_WORDS[options.objective]
    asked = " and meets the constraints" if options.constraints != Constraints() else ""
    if meeting:
        state = {
            "passed": "its accuracy outcome is passed",
            "undecided": f"its measured drop is within {options.max_drop:g}, though these images cannot decide it",
            "reference": "it is the reference",
            "failed": "it meets --min-map, though it loses more than --max-drop",
        }.get(best.outcome, "accuracy was not measured")
        return best.variant.name, f"{words} of {len(meeting)} acceptable variants{asked}; {state}", []
    closest = "; ".join(_broken(best, options.constraints))
    warning = BuildWarning("constraints-unmet", f"No variant meets the constraints; {best.variant.name}: {closest}.")
    return best.variant.name, f"{words}; no variant meets the constraints ({closest})", [warning]


def _find_unmet(
    candidates: Sequence[VariantResult], results: Sequence[VariantResult], options: BuildOptions
) -> list[str]:
    unmet = [
        f"no {precision.value} variant is acceptable"
        for precision in options.required
        if not any(one.variant.precision is precision and _is_acceptable(one, options) for one in candidates)
    ]
    default = next(one for one in results if one.is_default)
    return unmet + _broken(default, options.constraints)
