# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the machine: features of the processor, threads, limits, subnormal numbers. Pure. Stable."""

from __future__ import annotations

from collections.abc import Iterable

from shipsight.doctor.environment.evidence import EnvironmentEvidence
from shipsight.doctor.finding import Finding, Severity
from shipsight.doctor.rule import Rule

__all__ = ["CpuFeaturesMissing", "CpuLimited", "DenormalsSlow", "ThreadsOversubscribed"]

_FEATURES = {
    "avx2": "vectors of 256 bits",
    "fma": "fused products",
    "avx512f": "vectors of 512 bits",
    "avx_vnni": "8-bit products",
    "avx512_vnni": "8-bit products",
    "amx_int8": "8-bit matrices",
    "amx_bf16": "bf16 matrices",
    "avx512_bf16": "bf16 products",
    "asimddp": "8-bit products",
    "i8mm": "8-bit matrices",
}
_LEAST_LOSS = 0.1
"""Least share of speed that is told: medians of the same session, timed in turns, differed by up to 0.06."""

_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

_LEAST_SUBNORMAL = 1e-3
"""Share of subnormal weights; trained models had none to 0.0002."""


class CpuFeaturesMissing(Rule[EnvironmentEvidence]):
    """The processor, or a variable that caps it, lacks features that were there when the bundle was measured."""

    id = "cpu-features-missing"
    title = "The processor lacks features"

    def look(self, evidence: EnvironmentEvidence) -> Iterable[Finding]:
        """Returns the findings, if any."""
        missing = [one for one in _FEATURES if one in evidence.built_flags and one not in evidence.flags]
        if missing and evidence.flags:
            yield Finding(
                rule=self.id,
                severity=Severity.NOTE,
                what="This processor lacks features that the one had on which the bundle was measured: it is slower, and rounds otherwise.",
                evidence=f"Missing: {', '.join(f'{one} ({_FEATURES[one]})' for one in missing)}; {evidence.cpu} here, "
                f"{evidence.built_cpu} at the build.",
                remedy="Measure the variants here, and choose anew.",
                command="shipsight bench BUNDLE",
                figures={"missing": list(missing), "cpu": evidence.cpu, "built_cpu": evidence.built_cpu},
            )
        for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
            value = evidence.caps.get(name)
            if value and value.upper() not in ("ALL", "DEFAULT"):
                yield Finding(
                    rule=self.id,
                    severity=Severity.WARNING,
                    what="The environment keeps the runtime from features that the processor has.",
                    evidence=f"{name} is {value}; processor {evidence.cpu}.",
                    remedy="Take the variable out of the server's environment.",
                    command=f"unset {name}",
                    figures={"variable": name, "value": value},
                )


class ThreadsOversubscribed(Rule[EnvironmentEvidence]):
    """More threads than cores: from what was asked, the cores, and both ways timed in one run."""

    id = "threads-oversubscribed"
    title = "More threads than cores"

    def look(self, evidence: EnvironmentEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        cores = evidence.cores if evidence.limit_cores is None else min(evidence.cores, evidence.limit_cores)
        asked = evidence.threads
        source = "--threads"
        if asked is None:
            told = {name: evidence.caps.get(name, "") for name in _POOLS}
            asked, source = max(
                ((int(text), name) for name, text in told.items() if text.isdigit()), default=(None, source)
            )
        if asked is None or asked <= cores:
            return
        loss = 0.0 if evidence.timing is None else evidence.timing.share_lost
        measured = (
            "not timed"
            if evidence.timing is None
            else f"{evidence.timing.as_is_ms:.1f} ms, with one a core {evidence.timing.other_ms:.1f} ms ({evidence.timing.runs} runs each)"
        )
        is_costly = loss >= _LEAST_LOSS
        is_likely = evidence.timing is None and asked > 2 * cores
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING if is_costly or is_likely else Severity.NOTE,
            what="The engine has more threads than there are cores: they wait for each other."
            if evidence.threads is not None
            else "The environment asks for more threads than there are cores: they wait for each other.",
            evidence=f"{source} {asked}, {cores:g} cores; {measured}.",
            remedy="Give the engine one thread a core, divided by the number of workers.",
            command=f"shipsight serve BUNDLE --threads {max(1, int(cores))}",
            weight=loss if is_costly else 0.0,
            figures={"threads": asked, "cores": float(cores), "share_lost": loss},
        )


class CpuLimited(Rule[EnvironmentEvidence]):
    """The control group allows fewer cores than the runtime sees: it starts threads for cores that it may not use."""

    id = "cpu-limited"
    title = "The container has fewer cores than it sees"

    def look(self, evidence: EnvironmentEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        limit = evidence.limit_cores
        if limit is None or limit >= evidence.cores or (evidence.threads is not None and evidence.threads <= limit):
            return
        share = evidence.throttled_share
        throttled = "" if share is None else f"; throttled in {share:.0%} of its periods"
        timing = evidence.limit_timing
        loss = 0.0 if timing is None else timing.share_lost
        if timing is not None:
            throttled += f"; {timing.as_is_ms:.1f} ms an image, with a thread a core allowed {timing.other_ms:.1f} ms ({timing.runs} runs each)"
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            what="The container may use fewer cores than the engine sees: it is stopped in the middle of an image.",
            evidence=f"{limit:g} cores are allowed, {evidence.cores} are seen{throttled}.",
            remedy="Give the engine as many threads as cores are allowed, or raise the limit.",
            command=f"shipsight serve BUNDLE --threads {max(1, int(limit))}",
            weight=(loss if loss >= _LEAST_LOSS else 0.0) if timing is not None else min(share or 0.0, 1.0),
            certainty=0.8,
            figures={"limit_cores": limit, "cores": evidence.cores, "throttled_share": share, "share_lost": loss},
        )


class DenormalsSlow(Rule[EnvironmentEvidence]):
    """Subnormal weights make products slow: from their share, and both ways timed in one run."""

    id = "denormals-slow"
    title = "Subnormal numbers"

    def look(self, evidence: EnvironmentEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        if evidence.subnormal_share < _LEAST_SUBNORMAL:
            return
        loss = 0.0 if evidence.flush_timing is None else evidence.flush_timing.share_lost
        timed = (
            "not timed"
            if evidence.flush_timing is None
            else f"{evidence.flush_timing.as_is_ms:.1f} ms, with them taken for zero {evidence.flush_timing.other_ms:.1f} ms"
        )
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING if loss >= _LEAST_LOSS else Severity.NOTE,
            what="Many weights are so small that the processor computes with them slowly, or takes them for zero.",
            evidence=f"{evidence.subnormal_share:.1%} of the float weights are subnormal; {timed}.",
            remedy="Have the runtime take subnormal numbers for zero (`session.set_denormal_as_zero`), or set such weights to zero.",
            weight=loss if loss >= _LEAST_LOSS else 0.0,
            figures={"subnormal_share": evidence.subnormal_share, "share_lost": loss},
        )
