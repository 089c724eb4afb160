# SPDX-License-Identifier: Apache-2.0
"""Machines, environments and servers in which something is wrong, each made with what makes it so in production."""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import cv2
from onnxruntime.quantization import QuantType, quantize_dynamic

from access import start
from faults import exports
from faults.bundles import spoiled, with_file
from faults.planting import STRENGTHS, Around, Plant, Planted, Scene, copied, given
from shipsight.model.bundle import open_bundle

__all__ = ["plain_server", "wrong_environments", "wrong_servers", "wrong_speed"]


# --- the environment --------------------------------------------------------------------------------------------------


def _some(scene: Scene, folder: Path, seed: int) -> list[str]:
    return given(copied(scene.some(seed, 16), folder / "images"))


def _variant(scene: Scene, start_of_name: str) -> str:
    return sorted(one.name for one in (scene.bundle / "variants").iterdir() if one.name.startswith(start_of_name))[0]


def _of_variant(start_of_name: str) -> Plant:
    return lambda scene, folder, seed: [*_some(scene, folder, seed), "--variant", _variant(scene, start_of_name)]


@functools.cache
def _installed(package: str) -> str:
    """A folder that holds another version of an engine alone; it goes before what is installed."""
    folder = tempfile.mkdtemp(prefix="shipsight-engine-")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, package]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return folder


def _half_copied(scene: Scene, folder: Path, seed: int) -> Path:
    variant = _variant(scene, "openvino-fp32")
    return spoiled(scene.bundle, f"variants/{variant}/model.bin", folder / "copied.bundle")


def wrong_environments() -> Iterator[Planted]:
    """Yields environments in which the same bundle runs otherwise."""

    def case(name: str, rule: str, plant: Plant, **more: object) -> Planted:
        return Planted(name, "environment", frozenset({rule}), plant, **more)  # type: ignore[arg-type] - its fields

    for name, rule, variable, value in (
        ("features of the processor switched off", "cpu-features-missing", "ONEDNN_MAX_CPU_ISA", "AVX2"),
        ("floats in fewer bits", "precision-not-as-built", "ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
    ):
        yield case(name, rule, _some, environment=lambda variable=variable, value=value: {variable: value})
    for name, rule, precision, version in (
        ("a version that is known to be wrong", "engine-version-known-bad", "int8", "1.21.0"),
        ("another version of the engine", "engine-version-other", "fp32", "1.22.1"),
    ):
        yield case(
            name,
            rule,
            _of_variant(f"onnxruntime-{precision}"),
            environment=lambda version=version: {"PYTHONPATH": _installed(f"onnxruntime=={version}")},
            is_noted=rule == "engine-version-other",
        )
    # The doctor refuses a file that it would run itself and that is not what the manifest says: another one is spoiled.
    spoiled_file = "a file that was copied wrongly"
    yield case(spoiled_file, "model-file-differs", _of_variant("onnxruntime-fp16"), bundle=_half_copied)


# --- what makes it slow -----------------------------------------------------------------------------------------------

_BUSY = "while True: pass"
_BURSTS = "import time\nwhile True:\n    end = time.monotonic() + 0.4\n    while time.monotonic() < end: pass\n    time.sleep(0.4)"


def _beside(count: int, code: str) -> Around:
    """Runs programs beside the doctor."""

    @contextlib.contextmanager
    def around(scene: Scene, folder: Path, seed: int) -> Iterator[None]:
        programs = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(count)]
        try:
            yield
        finally:
            for one in programs:
                one.kill()
                one.wait()

    return around


def _speed(only: str, variant: str = "openvino-fp32", *more: str) -> Plant:
    return lambda scene, folder, seed: ["speed", "--variant", _variant(scene, variant), "--only", only, *more]


def _large_pictures(scene: Scene, folder: Path, seed: int) -> list[str]:
    (folder / "images").mkdir()
    for path in scene.some(seed, 8):
        pixels = cv2.resize(cv2.imread(str(path)), (2400, 1800))
        cv2.imwrite(str(folder / "images" / f"{path.stem}.png"), pixels)
    return [
        "speed",
        "--images",
        str(folder / "images"),
        "--variant",
        _variant(scene, "openvino-int8"),
        "--only",
        "profile",
    ]


def _form(scene: Scene, name: str) -> tuple[object, object]:
    one = next(one for one in open_bundle(scene.bundle).variants if one.name == name)
    return one.layout, one.form


def _float_twin(scene: Scene, name: str) -> Path:
    """The float file of the same form as an int8 variant's."""
    names = sorted(path.name for path in (scene.bundle / "variants").glob("onnxruntime-fp32-*"))
    twin = next(one for one in names if _form(scene, one) == _form(scene, name))
    return scene.bundle / "variants" / twin / "model.onnx"


def _dynamic_variant(scene: Scene, folder: Path, seed: int) -> Path:
    name = _variant(scene, "onnxruntime-int8")
    made = folder / "dynamic.onnx"
    quantize_dynamic(
        str(_float_twin(scene, name)), str(made), weight_type=QuantType.QUInt8, op_types_to_quantize=["Conv"]
    )
    return with_file(scene.bundle, f"variants/{name}/model.onnx", made.read_bytes(), folder / "new.bundle")


def _float_for_int8(scene: Scene, folder: Path, seed: int) -> Path:
    name = _variant(scene, "onnxruntime-int8")
    content = _float_twin(scene, name).read_bytes()
    return with_file(scene.bundle, f"variants/{name}/model.onnx", content, folder / "new.bundle")


def _patched(scene: Scene, folder: Path, seed: int) -> Path:
    """Convolutions alone in 8 bits: each stands between two conversions."""
    made = exports.quantized(scene.pipeline, scene.calibration[:8], folder / "patched.onnx")
    name = scene.pipeline.model.path.parent.name
    return with_file(scene.bundle, f"variants/{name}/model.onnx", made.read_bytes(), folder / "new.bundle")


def wrong_speed() -> Iterator[Planted]:
    """Yields bundles and machines that are slower than they could be."""

    def case(name: str, rules: str, plant: Plant, **more: object) -> Planted:
        return Planted(name, "speed", frozenset(rules.split()), plant, **more)  # type: ignore[arg-type] - its fields

    for word, count in zip(STRENGTHS, (1, 2, 4), strict=True):
        yield case("other programs compute", "cpu-busy", _speed("machine"), strength=word, around=_beside(count, _BUSY))
    bursts = _beside(2 * (os.cpu_count() or 1), _BURSTS)
    yield case("another program comes and goes", "latency-unsteady", _speed("warmup"), around=bursts)
    yield case("kept to one core", "affinity-narrow", _speed("machine"), before=("taskset", "-c", "0"), is_noted=True)
    yield case("one thread on all cores", "threads-not-best", _speed("sweep", "openvino-int8", "--threads", "1"))
    yield case(
        "one request after another",
        "streams-faster batch-faster",
        _speed("sweep", "openvino-int8"),
        models=frozenset({"digits"}),
        is_noted=True,
    )
    yield case("photographs that cost more than the model", "outside-engine", _large_pictures, is_noted=True)
    yield case(
        "dynamic quantization put in service",
        "int8-slower",
        _speed("sweep", "onnxruntime-int8"),
        bundle=_dynamic_variant,
    )
    yield case(
        "the float file put in service as int8",
        "layers-in-float",
        _speed("profile", "onnxruntime-int8"),
        bundle=_float_for_int8,
    )
    yield case(
        "convolutions alone in 8 bits", "reorders-costly", _speed("profile", "onnxruntime-fp32"), bundle=_patched
    )


# --- servers ----------------------------------------------------------------------------------------------------------


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextlib.contextmanager
def _serving(scene: Scene, folder: Path) -> Iterator[str]:
    """Serves the bundle; gives the server's address."""
    options = ["--state", str(folder / "state")]
    _, running = start("own", scene.bundle, [], dict(os.environ), None, *options)
    try:
        yield running.url
    finally:
        running.stop()


Way = Callable[[str, Scene, Path], AbstractContextManager[str]]
"""From a server's address to the one that is asked."""


def _asked_over(way: Way, prefix: str = "") -> Around:
    """Serves the bundle, and has the doctor ask it over a way."""

    @contextlib.contextmanager
    def around(scene: Scene, folder: Path, seed: int) -> Iterator[str]:
        with _serving(scene, folder) as url, way(url, scene, folder) as asked:
            yield f"{asked}/{prefix}{open_bundle(scene.bundle).card.name}"

    return around


def _straight(url: str, scene: Scene, folder: Path) -> AbstractContextManager[str]:
    return contextlib.nullcontext(url)


plain_server = _asked_over(_straight)


@contextlib.contextmanager
def _closing(url: str, scene: Scene, folder: Path) -> Iterator[str]:
    """A proxy that closes each connection."""
    port, proxied = _free_port(), folder / "nginx"
    proxied.mkdir()
    behind = urlsplit(url).netloc
    (proxied / "nginx.conf").write_text(
        f"daemon off; pid {proxied}/pid; error_log {proxied}/errors;\nevents {{}}\n"
        f"http {{ access_log off; client_max_body_size 64m; client_body_temp_path {proxied}; proxy_temp_path {proxied}/out;\n"
        f"fastcgi_temp_path {proxied}/f; uwsgi_temp_path {proxied}/u; scgi_temp_path {proxied}/s;\n"
        f"server {{ listen 127.0.0.1:{port}; keepalive_timeout 0; location / {{ proxy_pass http://{behind}; }} }} }}\n"
    )
    folder.chmod(0o755)  # nginx' worker is somebody else
    process = subprocess.Popen(
        [shutil.which("nginx") or "/usr/sbin/nginx", "-c", str(proxied / "nginx.conf")], stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def _wait_for(port: int) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens at port {port}")


@contextlib.contextmanager
def _distant(url: str, scene: Scene, folder: Path, delay_s: float) -> Iterator[str]:
    """A line on which everything takes a while, either way."""
    target = urlsplit(url)
    listening = socket.create_server(("127.0.0.1", 0))

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                time.sleep(delay_s)
                sink.sendall(data)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.create_connection((target.hostname or "", target.port or 80))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=carry, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.close()


@contextlib.contextmanager
def _crowded(url: str, scene: Scene, folder: Path, count: int) -> Iterator[str]:
    """Others ask the same server without a pause."""
    over, body, name = threading.Event(), scene.images[0].read_bytes(), open_bundle(scene.bundle).card.name

    def ask() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError, http.client.HTTPException):
                line = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
                with contextlib.closing(line):
                    while not over.is_set():
                        line.request("POST", f"/v1/models/{name}/predict", body, {"Content-Type": "image/jpeg"})
                        line.getresponse().read()

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(count)]
    for one in threads:
        one.start()
    try:
        yield url
    finally:
        over.set()
        for one in threads:
            one.join()


def wrong_servers() -> Iterator[Planted]:
    """Yields servers that answer later than they could."""

    def case(name: str, rule: str, around: Around, **more: object) -> Planted:
        return Planted(name, "server", frozenset({rule}), _asked, around=around, **more)  # type: ignore[arg-type] - its fields

    yield case("a proxy that closes each connection", "connection-anew", _asked_over(_closing))
    yield case("tensors as numbers", "payload-json", _asked_over(_straight, "v2/models/"))
    for word, delay_s, count in zip(STRENGTHS, (0.01, 0.04, 0.12), (3, 8, 24), strict=True):
        far = _asked_over(functools.partial(_distant, delay_s=delay_s))
        yield case("a long way", "server-overhead", far, strength=word, may_be_unseen=word == "weak")
        full = _asked_over(functools.partial(_crowded, count=count))
        yield case("many others ask", "server-queueing", full, strength=word, may_be_unseen=word == "weak")


def _asked(scene: Scene, folder: Path, seed: int) -> list[str]:
    return ["speed", "--images", str(copied(scene.some(seed, 4), folder / "images"))]
