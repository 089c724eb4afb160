# SPDX-License-Identifier: Apache-2.0
"""Asks a server with KServe's clients and prints what they were told, as JSON. Runs in KServe's own environment.

python kserve_client.py URL GRPC_ADDRESS IMAGE
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

SHAPE = [1, 3, 256, 256]


def raw_request(*, as_bytes: bool) -> InferRequest:
    array = np.random.default_rng(0).random(SHAPE, np.float32)
    given = InferInput("images", SHAPE, "FP32")
    given.set_data_from_numpy(array, binary_data=as_bytes)
    parameters = {"binary_data_output": True} if as_bytes else None
    return InferRequest("digits", [given], request_id="mine", parameters=parameters)


def image_request(image: bytes, conf: float | str, **parameters: bool) -> InferRequest:
    given = InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(np.array([image], np.object_), binary_data=True)
    return InferRequest("digits_image", [given], request_id="mine", parameters={"conf": conf, **parameters})


async def ask_rest(url: str, image: bytes) -> dict[str, object]:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        raw = await client.infer(url, raw_request(as_bytes=True), model_name="digits")
        numbers = await client.infer(url, raw_request(as_bytes=False), model_name="digits")
        found = await client.infer(url, image_request(image, 0.01, binary_data_output=True), model_name="digits_image")
        return {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model": await client.is_model_ready(url, "digits"),
            "other": await client.is_model_ready(url, "gone"),
            "id": raw.id,
            "raw": checked(raw),
            "numbers": checked(numbers),
            "predictions": json.loads(found.outputs[0].as_numpy()[0]),
        }


async def ask_grpc(address: str, image: bytes) -> dict[str, object]:
    async with InferenceGRPCClient(address) as client:
        raw = await client.infer(raw_request(as_bytes=True))
        numbers = await client.infer(raw_request(as_bytes=False))
        found = await client.infer(image_request(image, "0.01"))
        try:
            other = await client.is_model_ready("gone")
        except grpc.RpcError as error:
            other = error.code().name
        return {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "model": await client.is_model_ready("digits"),
            "other": other,
            "id": raw.id,
            "raw": checked(raw),
            "numbers": checked(numbers),
            "predictions": json.loads(found.outputs[0].as_numpy()[0]),
        }


def checked(answer: object) -> list[float]:
    """The first numbers of an answer's first output and their sum."""
    array = answer.outputs[0].as_numpy()
    return [*map(float, array.ravel()[:8]), float(array.sum(dtype=np.float64))]


async def main(url: str, address: str, image: bytes) -> None:
    told = {"rest": await ask_rest(url, image), "grpc": await ask_grpc(address, image)}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_bytes()))
