# SPDX-License-Identifier: Apache-2.0
"""Loading, predicting and verifying ask nobody: every way out of the process is refused, and all still works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.proof.tiny_network import CARD, SIDE, VARIANT, build, make_network, open_network

from shipsight.model import Precision, Variant, write_bundle
from shipsight.proof import golden_files, record, record_variant

WATCH = """
import json, os, sys

asked = []
WAYS_OUT = ("socket.connect", "socket.getaddrinfo", "socket.gethostby", "socket.sendto", "socket.sendmsg", "urllib.", "http.")

def refuse(event, arguments):
    if event.startswith(WAYS_OUT):
        asked.append(f"{event} {arguments[1:]!r}")
        raise PermissionError(f"the test refuses {event}")

sys.addaudithook(refuse)
"""

PREDICT = """
import numpy as np
import shipsight
from shipsight.model import open_bundle

image = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
counts = {}
for variant in open_bundle(sys.argv[1]).variants:
    with shipsight.load(sys.argv[1], variant=variant.name) as model:
        counts[variant.name] = len(model.predict(image, conf=0.01).images[0])
print(json.dumps({"counts": counts, "asked": asked, "telemetry": os.environ.get("ORT_DISABLE_TELEMETRY")}))
"""

VERIFY = """
import io, contextlib
from shipsight.cli import main

out = io.StringIO()
code = 0
with contextlib.redirect_stdout(out):
    try:
        main(["verify", sys.argv[1], "--json"])
    except SystemExit as leave:
        code = leave.code or 0
print(json.dumps({"code": code, "answer": json.loads(out.getvalue()), "asked": asked}))
"""

TELEMETRY = """
from shipsight.engines import EngineOptions, get_engine
from shipsight.model import open_bundle

bundle = open_bundle(sys.argv[1])
[variant] = [one for one in bundle.variants if one.engine == "onnxruntime"]
with get_engine("onnxruntime").open(bundle.variant_files(variant.name), variant, EngineOptions(threads=1)):
    print(json.dumps({"telemetry": os.environ["ORT_DISABLE_TELEMETRY"], "asked": asked}))
"""


def child(code: str, *arguments: object, telemetry: str | None = None) -> Any:
    """Runs a program that may not leave its process; returns the JSON that it prints last."""
    environment = {"PATH": "/usr/bin:/bin", **({} if telemetry is None else {"ORT_DISABLE_TELEMETRY": telemetry})}
    command = [sys.executable, "-c", WATCH + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small network of the proof tests as a bundle with one variant for each engine."""
    model = make_network()
    built = build(model)
    from shipsight.build.formats import onnx_to_openvino
    from shipsight.engines import EngineOptions, get_engine

    ir = onnx_to_openvino(model)
    openvino = Variant(
        name=f"openvino-fp32-{SIDE}",
        engine="openvino",
        precision=Precision.FP32,
        size_hw=VARIANT.size_hw,
        layout=VARIANT.layout,
        form=VARIANT.form,
        files=tuple(ir),
        rest=Precision.FP32,
    )
    recordings = {
        VARIANT.name: record_variant(lambda threads: open_network(model, threads), VARIANT, CARD, built.golden)[0],
        openvino.name: record_variant(
            lambda threads: get_engine("openvino").open(ir, openvino, EngineOptions(threads=threads)),
            openvino,
            CARD,
            built.golden,
        )[0],
    }
    files = golden_files(
        built.golden, [CARD.input], source={VARIANT.size_hw: record(built.answers)}, variants=recordings
    )
    files |= {f"variants/{VARIANT.name}/model.onnx": model}
    files |= {f"variants/{openvino.name}/{name}": content for name, content in ir.items()}
    out = tmp_path_factory.mktemp("offline") / "tiny.bundle"
    write_bundle(
        out,
        files,
        card=CARD,
        variants=(VARIANT, openvino),
        default_variant=openvino.name,
        golden=built.golden.info,
    )
    return out


def test_predicting_with_every_engine_asks_nobody(bundle: Path) -> None:
    answer = child(PREDICT, bundle)
    assert answer["asked"] == []
    assert sorted(answer["counts"]) == ["onnxruntime-fp32-96", "openvino-fp32-96"]
    assert all(count > 0 for count in answer["counts"].values())
    assert answer["telemetry"] == "1"


def test_verify_asks_nobody_and_says_yes(bundle: Path) -> None:
    answer = child(VERIFY, bundle)
    assert answer["asked"] == []
    assert (answer["code"], answer["answer"]["verified"]) == (0, True)
    assert len(answer["answer"]["replay"]) == 2


@pytest.mark.parametrize("before", [None, "", "0", "1"])
def test_onnxruntime_telemetry_is_off_whatever_the_environment_said(bundle: Path, before: str | None) -> None:
    assert child(TELEMETRY, bundle, telemetry=before) == {"telemetry": "1", "asked": []}


@pytest.mark.parametrize(
    ("code", "event"),
    [
        ("import socket\ntry: socket.create_connection(('127.0.0.1', 9))", "socket.getaddrinfo"),
        ("import socket\ntry: socket.socket().connect(('127.0.0.1', 9))", "socket.connect"),
        ("import urllib.request\ntry: urllib.request.urlopen('http://127.0.0.1:9')", "urllib.Request"),
    ],
)
def test_watch_refuses_and_reports_a_way_out(code: str, event: str) -> None:
    answer = child(code + "\nexcept OSError: pass\nprint(json.dumps(asked))")
    assert len(answer) == 1
    assert answer[0].startswith(event)
