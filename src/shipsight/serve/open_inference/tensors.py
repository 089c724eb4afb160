# SPDX-License-Identifier: Apache-2.0
"""Tensors of the Open Inference Protocol as bytes, and what is checked of them whatever they came in.

The bytes are the same behind REST's JSON (Triton's binary tensor data extension) and in gRPC's raw contents: elements in
row-major order, little-endian; each element of BYTES follows its length as four bytes. Stable.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shipsight.errors import TensorError
from shipsight.serve.open_inference.endpoints import DATATYPES, TensorShape

__all__ = [
    "NUMPY_TYPES",
    "Tensor",
    "check_complete",
    "check_finite",
    "check_name",
    "check_parameters",
    "check_tensor",
    "choose_outputs",
    "describe_tensor",
    "join_tensor",
    "split_tensor",
]

Tensor = NDArray[Any] | list[bytes]
"""Numbers, or the byte strings of BYTES."""

NUMPY_TYPES: Mapping[str, np.dtype[Any]] = {wire: np.dtype(name).newbyteorder("<") for name, wire in DATATYPES.items()}
"""The protocol's name of a type -> NumPy's."""

_LONGEST_SIDE = 2**31


def check_name(name: object, expected: Mapping[str, TensorShape], given: Collection[str]) -> TensorShape:
    """Returns the input that a name stands for.

    Args:
        name: as the client wrote it.
        expected: what the endpoint takes, by name.
        given: names that came already.

    Raises:
        TensorError: there is no such input, or it came already.
    """
    if not isinstance(name, str) or name not in expected or name in given:
        raise TensorError("not an input, or given twice", where="inputs", expected=list(expected), got=repr(name)[:100])
    return expected[name]


def check_complete(expected: Mapping[str, TensorShape], given: Collection[str]) -> None:
    """Checks that no input is missing.

    Raises:
        TensorError: one is.
    """
    if len(given) != len(expected):
        raise TensorError("an input is missing", where="inputs", expected=list(expected), got=list(given))


def check_parameters(where: str, given: Iterable[str], allowed: Collection[str]) -> None:
    """Checks that a tensor asks for nothing that would be left undone: shared memory, a classification.

    Raises:
        TensorError: it does.
    """
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise TensorError(
            "a parameter that is not offered here",
            where=where[:100],
            expected=", ".join(sorted(allowed)) or "none",
            got=", ".join(unknown)[:200],
        )


def check_tensor(expected: TensorShape, datatype: object, shape: object) -> list[int]:
    """Checks type and shape of an input.

    Returns:
        The shape.

    Raises:
        TensorError: either differs from what the endpoint takes.
    """
    if datatype != expected.datatype:
        raise TensorError("another type", where=expected.name, expected=expected.datatype, got=repr(datatype)[:40])
    if not isinstance(shape, list) or not all(type(side) is int and 0 < side < _LONGEST_SIDE for side in shape):
        raise TensorError("not a shape", where=expected.name, expected=list(expected.shape), got=repr(shape)[:100])
    fits = len(shape) == len(expected.shape) and all(
        want in (-1, side) for side, want in zip(shape, expected.shape, strict=True)
    )
    if expected.datatype == "BYTES":
        # Clients send images as [n] and as [n, 1].
        fits = fits or (len(shape) == 2 and shape[1] == 1)
    if not fits:
        raise TensorError("another shape", where=expected.name, expected=list(expected.shape), got=repr(shape)[:100])
    return shape


def check_finite(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Returns an array of finite numbers, the only ones that JSON has a form for.

    Raises:
        TensorError: it holds NaN or infinity.
    """
    if not np.isfinite(array).all():
        raise TensorError("not all are finite numbers", where=name, expected="finite numbers of its type")
    return array


def split_tensor(raw: bytes | memoryview, expected: TensorShape, shape: Sequence[int]) -> Tensor:
    """Reads a tensor from its bytes; numbers are not copied.

    Raises:
        TensorError: the bytes do not fill the shape.
    """
    count = math.prod(shape)
    view = memoryview(raw)
    if expected.datatype == "BYTES":
        return _split_strings(view, count, expected.name)
    kind = NUMPY_TYPES[expected.datatype]
    if view.nbytes != count * kind.itemsize:
        raise TensorError(
            "another number of bytes", where=expected.name, expected=count * kind.itemsize, got=view.nbytes
        )
    return np.frombuffer(view, kind).reshape(shape)


def _split_strings(raw: memoryview, count: int, name: str) -> list[bytes]:
    found: list[bytes] = []
    while raw.nbytes and len(found) <= count:
        size = int.from_bytes(raw[:4], "little")
        if raw.nbytes < 4 + size:
            break
        found.append(bytes(raw[4 : 4 + size]))
        raw = raw[4 + size :]
    if raw.nbytes or len(found) != count:
        raise TensorError("byte strings that do not fill the shape", where=name, expected=count, got=len(found))
    return found


def join_tensor(tensor: Tensor) -> bytes:
    """Returns a tensor's bytes."""
    if isinstance(tensor, list):
        return b"".join(len(one).to_bytes(4, "little") + one for one in tensor)
    return np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<")).tobytes()


def describe_tensor(tensor: Tensor) -> tuple[str, list[int]]:
    """Returns a tensor's type, as the protocol calls it, and its shape."""
    return ("BYTES", [len(tensor)]) if isinstance(tensor, list) else (DATATYPES[tensor.dtype.name], list(tensor.shape))


def choose_outputs(outputs: Mapping[str, Tensor], asked: Sequence[str]) -> dict[str, Tensor]:
    """Returns the outputs that are asked for, in that order; all where none is named.

    Raises:
        TensorError: there is no such output.
    """
    missing = [name[:100] for name in asked if name not in outputs]
    if missing:
        raise TensorError("no such output", where="outputs", expected=list(outputs), got=missing[:10])
    return {name: outputs[name] for name in asked or outputs}
