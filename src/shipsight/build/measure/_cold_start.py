# SPDX-License-Identifier: Apache-2.0
"""What a fresh process does when cold start and memory are measured: import, open a variant, predict one image.

Run by its path by `speed.measure_cold_start`, so that it imports what serving imports and nothing more. Reads one JSON
request from standard input, writes one marked line with its largest resident memory. Private.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

__all__ = ["main", "peak_memory_mb"]


def peak_memory_mb() -> float:
    """Returns the largest resident memory of this process in 10^6 bytes.

    Linux' VmHWM is preferred: `ru_maxrss` of a child includes the parent's memory from before exec.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def main() -> None:
    """Serves the request on standard input."""
    request = json.load(sys.stdin)

    from shipsight.engines import EngineOptions, get_engine
    from shipsight.model import Card, Variant
    from shipsight.vision import PredictSettings, decode_image, postprocess, prepare, to_tensor

    variant = Variant.from_dict(request["variant"])
    card = Card.from_dict(request["card"]).with_size(variant.size_hw)
    cache_dir = None if request["cache_dir"] is None else Path(request["cache_dir"])
    options = EngineOptions(device=request["device"], threads=request["threads"], cache_dir=cache_dir)
    with get_engine(variant.engine).open(Path(request["folder"]), variant, options) as session:
        prepared, geometry = prepare(decode_image(Path(request["image"])), card.input)
        outputs = session.infer(to_tensor(prepared, card.input, variant.layout))
        postprocess(outputs, card=card, form=variant.form, geometry=geometry, settings=PredictSettings())
        sys.stdout.write(f"shipsight-cold-start {json.dumps({'memory_mb': peak_memory_mb()})}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
