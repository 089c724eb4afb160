# SPDX-License-Identifier: Apache-2.0
"""The real Triton Inference Server around `detector`. Run by `bench/serve.py`.

The server is the binary in NVIDIA's wheel `nvidia-pytriton`, with its own HTTP front and its Python backend; the wheel has no
backend for OpenVINO itself. The backend needs libpython of this version (Debian: apt-get install libpython3.11). One instance a core. HTTP alone is open, metrics are off.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

CONFIG = """
backend: "python"
max_batch_size: 0
input [{ name: "image" data_type: TYPE_STRING dims: [1] }]
output [{ name: "predictions" data_type: TYPE_STRING dims: [1] }]
instance_group [{ count: %(instances)d kind: KIND_CPU }]
parameters { key: "model" value: { string_value: "%(model)s" } }
parameters { key: "instances" value: { string_value: "%(instances)d" } }
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    here, packages = Path(__file__).parent, Path(sysconfig.get_path("purelib"))
    triton = packages / "pytriton" / "tritonserver"
    folder = Path(tempfile.mkdtemp(prefix="triton-", dir=os.environ.get("BENCH_SCRATCH")))
    model = folder / "models" / "detector" / "1" / "model.py"
    model.parent.mkdir(parents=True)
    shutil.copy(here / "triton_model.py", model)
    values = {"model": arguments.model, "instances": len(os.sched_getaffinity(0))}
    model.parent.with_name("config.pbtxt").write_text(CONFIG % values, encoding="utf-8")
    # The wheel keeps one stub for each version of Python beside the backend, which looks for it in its own folder.
    python_version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(triton / "backends" / "python", folder / "backends" / "python")
    stub = triton / "python_backend_stubs" / python_version / "triton_python_backend_stub"
    shutil.copy(stub, folder / "backends" / "python")
    libraries = [
        triton / "lib",
        packages / "nvidia_pytriton.libs",
        packages / "pytriton.libs",
        triton / "external_libs",
    ]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(str(path) for path in libraries if path.is_dir()),
        "BENCH_PYTHONPATH": os.pathsep.join([str(here), str(packages)]),
    }
    command = [str(triton / "bin" / "tritonserver"), f"--model-repository={folder / 'models'}"]
    command += [f"--backend-directory={folder / 'backends'}", "--disable-auto-complete-config", "--exit-timeout-secs=5"]
    command += ["--http-address=127.0.0.1", f"--http-port={arguments.port}", "--allow-grpc=false"]
    command += ["--allow-metrics=false", "--log-info=false"]
    os.execve(command[0], command, environment)


if __name__ == "__main__":
    main()
