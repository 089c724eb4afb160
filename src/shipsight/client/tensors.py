# SPDX-License-Identifier: Apache-2.0
"""Tensors as the Open Inference Protocol's binary extension has them: JSON, then the bytes of each, little-endian.

Private to the room. Source: Triton's binary tensor data extension; `docs/protocols/open-inference.md`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import CorruptError, TensorError

__all__ = ["HEADER", "read_tensors", "write_tensors"]

HEADER = "Inference-Header-Content-Length"
_TYPES = {
    "BOOL": "?",
    **{f"INT{bits}": f"<i{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": f"<u{bits // 8}" for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}
_NAMES = {np.dtype(code): name for name, code in _TYPES.items()}


def write_tensors(tensors: Mapping[str, NDArray[Any]]) -> tuple[bytes, int]:
    """Returns the body of a request, and how long its JSON is.

    Args:
        tensors: by the input's name; numbers or truth values.

    Raises:
        TensorError: one has another type.
    """
    described, contents = [], []
    for name, tensor in tensors.items():
        array = np.asarray(tensor)
        kind = _NAMES.get(array.dtype.newbyteorder("<"))
        if kind is None:
            raise TensorError("no such type in the protocol", where=name, expected=", ".join(_TYPES), got=array.dtype)
        contents.append(array.astype(_TYPES[kind], copy=False).tobytes())
        parameters = {"binary_data_size": len(contents[-1])}
        described.append({"name": name, "shape": array.shape, "datatype": kind, "parameters": parameters})
    head = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
    return b"".join((head, *contents)), len(head)


def read_tensors(body: bytes, header_size: str | None) -> dict[str, NDArray[Any]]:
    """Returns the tensors of an answer.

    Args:
        body: of it.
        header_size: how long its JSON is, as that header says it.

    Raises:
        CorruptError: it is none.
    """
    try:
        size = len(body) if header_size is None else int(header_size)
        at, read = size, {}
        for one in json.loads(body[:size])["outputs"]:
            kind, shape = np.dtype(_TYPES[one["datatype"]]), tuple(one["shape"])
            if "data" in one:
                read[one["name"]] = np.array(one["data"], kind).reshape(shape)
                continue
            count = math.prod(shape)
            length = one["parameters"]["binary_data_size"]
            if length != count * kind.itemsize or min(shape, default=0) < 0:
                raise ValueError("a tensor of another size")
            read[one["name"]] = np.frombuffer(body, kind, count, at).reshape(shape)
            at += length
        if at != len(body):
            raise ValueError("bytes are left")
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise CorruptError("not tensors", got=f"{type(error).__name__}: {error}"[:200]) from error
    return read
