# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the software and the file: versions, precision, format, identity. Pure. Stable."""

from __future__ import annotations

import re
from collections.abc import Iterable

from shipsight.doctor.environment.evidence import EnvironmentEvidence
from shipsight.doctor.finding import Finding, Severity
from shipsight.doctor.rule import Rule

__all__ = [
    "EngineVersionKnownBad",
    "EngineVersionOther",
    "Int8Saturates",
    "ModelFileDiffers",
    "PrecisionNotAsBuilt",
    "RuntimeNewerFormat",
    "version_key",
]

_PACKAGES = {"onnxruntime": ("onnxruntime", "onnxruntime-gpu"), "openvino": ("openvino",), "pytorch": ("torch",)}
_MOST_OPSET, _MOST_IR = 18, 10
"""What runtimes of the last years read everywhere, and what `shipsight build` writes at most."""

_SATURATES_BELOW = 0.97
"""Agreement with itself: both ways gave 1.0 where weights had 7 bits, since no product overflows then."""


class EngineVersionKnownBad(Rule[EnvironmentEvidence]):
    """A version here stands in the table of versions known to be wrong or slow (`known.json`, with sources)."""

    id = "engine-version-known-bad"
    title = "A version known to be bad"

    def look(self, evidence: EnvironmentEvidence) -> Iterable[Finding]:
        """Returns a finding a package."""
        relevant = {*_PACKAGES.get(evidence.engine, ()), "pnnx"}
        for one in evidence.known:
            version = evidence.here.get(one.package)
            if version is None or one.package not in relevant:
                continue
            is_in = version_key(one.first) <= version_key(version) <= version_key(one.last)
            wanted = (
                (one.system, evidence.system),
                (one.machine, evidence.machine),
                (one.precision, evidence.precision),
            )
            if not is_in or any(need is not None and need != has for need, has in wanted):
                continue
            yield Finding(
                rule=self.id,
                severity=Severity.WARNING,
                what=f"{one.package} runs in a version that is known to be {one.effect}.",
                evidence=f"{one.package} {version}: {one.what} Told on {one.date}: {one.source}.",
                remedy="Install the version that the proof was made with.",
                command=_install(evidence, one.package),
                certainty=0.6,
                figures={"package": one.package, "version": version, "effect": one.effect},
            )


class EngineVersionOther(Rule[EnvironmentEvidence]):
    """The engine's version is another than the one that was measured."""

    id = "engine-version-other"
    title = "Another version of the engine"

    def look(self, evidence: EnvironmentEvidence) -> Iterable[Finding]:
        """Returns a note, if any."""
        for package in _PACKAGES.get(evidence.engine, ()):
            here, built = evidence.here.get(package), evidence.built.get(package)
            if here is None or built is None or here == built:
                continue
            yield Finding(
                rule=self.id,
                severity=Severity.NOTE,
                what="The engine is of another version than the one that the proof was made with.",
                evidence=f"{package} {here} here, {built} when the bundle was built and measured.",
                remedy="Replay the proof on this machine, or install the version that was measured.",
                command=_install(evidence, package),
                figures={"package": package, "version": here, "built": built},
            )


class PrecisionNotAsBuilt(Rule[EnvironmentEvidence]):
    """The graph runs in another precision than when it was built (rule P9): from the runtime's own compiled graph."""

    id = "precision-not-as-built"
    title = "Another precision runs"

    def look(self, evidence: EnvironmentEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        mode = evidence.caps.get("ONEDNN_DEFAULT_FPMATH_MODE", evidence.caps.get("DNNL_DEFAULT_FPMATH_MODE"))
        runs, ran = evidence.runs, evidence.ran
        if runs is not None and ran is not None and ran.convolutions:
            lost = ran.integer_convolutions - runs.integer_convolutions
            is_other = runs.float_type != ran.float_type
            if lost > 0.02 * ran.convolutions or is_other:
                # An honest bf16 run costs next to nothing; integers that became floats cost the speed they were made for.
                severity = Severity.WARNING if lost > 0.02 * ran.convolutions else Severity.NOTE
                yield Finding(
                    rule=self.id,
                    severity=severity,
                    what="The model runs in another precision here than when it was measured.",
                    evidence=f"{runs.integer_convolutions} of {runs.convolutions} convolutions in integers, the rest in {runs.float_type}; "
                    f"when it was built {ran.integer_convolutions} of {ran.convolutions}, the rest in {ran.float_type}.",
                    remedy="Ask the runtime for the precision that was measured, or build on a machine of this class.",
                    command="shipsight verify BUNDLE",
                    figures={
                        "integer_convolutions": runs.integer_convolutions,
                        "built_integer_convolutions": ran.integer_convolutions,
                        "float_type": runs.float_type,
                        "built_float_type": ran.float_type,
                    },
                )
        if mode is not None and mode.upper() not in ("STRICT", ""):
            yield Finding(
                rule=self.id,
                severity=Severity.WARNING,
                what="The environment asks oneDNN to compute floats in less than 32 bits.",
                evidence=f"ONEDNN_DEFAULT_FPMATH_MODE is {mode}.",
                remedy="Take the variable out of the server's environment.",
                command="unset ONEDNN_DEFAULT_FPMATH_MODE DNNL_DEFAULT_FPMATH_MODE",
                figures={"mode": mode},
            )


class Int8Saturates(Rule[EnvironmentEvidence]):
    """8-bit products overflow on processors without VNNI (rule Q7): the same file, run so that they cannot, answers otherwise."""

    id = "int8-saturates"
    title = "INT8 overflows on this processor"

    def look(self, evidence: EnvironmentEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        if evidence.saturation is None or evidence.saturation >= _SATURATES_BELOW:
            return
        weight = 1 - evidence.saturation
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR,
            what="8-bit products overflow on this processor: it has no VNNI, and the model's weights use all 8 bits.",
            evidence=f"Agreement of the model with itself, run so that nothing overflows: {evidence.saturation:.2f} over "
            f"{evidence.saturation_images} images; processor {evidence.cpu}.",
            remedy="Build here, where weights get 7 bits, or set `session.x64quantprecision` to 1, which is slower.",
            command="shipsight build MODEL --data DATA",
            weight=weight,
            figures={"share_lost": weight, "images": evidence.saturation_images, "cpu": evidence.cpu},
        )


class ModelFileDiffers(Rule[EnvironmentEvidence]):
    """The file that runs is not the one that was measured: by its hash."""

    id = "model-file-differs"
    title = "The model file is another"

    def look(self, evidence: EnvironmentEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        if evidence.changed:
            yield Finding(
                rule=self.id,
                severity=Severity.ERROR,
                what="The model's files are not those that were measured: they were changed or replaced.",
                evidence=f"{len(evidence.changed)} files differ from the manifest's hashes: {', '.join(evidence.changed[:3])}.",
                remedy="Put the bundle in place anew from where it was built.",
                command="shipsight verify BUNDLE",
                weight=1.0,
                figures={"files": len(evidence.changed)},
            )
        elif evidence.is_of_bundle is False:
            yield Finding(
                rule=self.id,
                severity=Severity.NOTE,
                what="The file that runs is none of the bundle's: no measurement in the proof is of it.",
                evidence="Its hash is that of none of the bundle's variants.",
                remedy="Put a variant of the bundle in service.",
                command="shipsight serve BUNDLE",
                figures={"files": 1},
            )


class RuntimeNewerFormat(Rule[EnvironmentEvidence]):
    """The file's format is newer than runtimes read (rule P13): opset and IR version, and whether the runtime here refused it."""

    id = "runtime-newer-format"
    title = "The file is newer than the runtime"

    def look(self, evidence: EnvironmentEvidence) -> Iterable[Finding]:
        """Returns the finding, if any."""
        if evidence.opset <= _MOST_OPSET and evidence.ir_version <= _MOST_IR:
            return
        is_refused = evidence.refused is not None
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR if is_refused else Severity.NOTE,
            what="The model's file format is newer than "
            + ("the runtime here reads." if is_refused else "many runtimes read; the one here does."),
            evidence=f"Opset {evidence.opset} and IR version {evidence.ir_version}; {_MOST_OPSET} and {_MOST_IR} are read everywhere."
            + (f" The runtime says: {evidence.refused}" if is_refused else ""),
            remedy="Export with an older opset.",
            command="yolo export model=best.pt format=onnx opset=18",
            weight=1.0 if is_refused else 0.0,
            figures={"opset": evidence.opset, "ir_version": evidence.ir_version},
        )


def version_key(version: str) -> tuple[int, ...]:
    """Returns what versions are compared by: their leading numbers."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    parts = [] if found is None else [int(one) for one in found[0].split(".")]
    return tuple(parts + [0] * (4 - len(parts)))


def _install(evidence: EnvironmentEvidence, package: str) -> str:
    built = evidence.built.get(package)
    return f"pip install --upgrade {package}" if built is None else f"pip install {package}=={built}"
