# SPDX-License-Identifier: Apache-2.0
"""A suspect that is a running server: ours over its native protocol, any other over the Open Inference Protocol.

A server of ours decodes and predicts itself. Another takes the raw tensor: then what comes before and after is done here, as the
model's card says, and what is examined is the model that the server runs. Needs the extra `client`. Private to the room.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from shipsight.doctor.case import Case
from shipsight.doctor.suspect import Suspect, SuspectKind
from shipsight.errors import (
    CardError,
    CorruptError,
    NotFoundError,
    ServiceError,
    ShipsightError,
    TensorError,
    UnsupportedError,
    UsageError,
)
from shipsight.model import Card, Head, ImagePredictions, OutputContract, OutputForm, Task, TensorLayout
from shipsight.vision import PredictSettings, postprocess, prepare, to_tensor

if TYPE_CHECKING:
    from shipsight.client import Client

__all__ = ["NativeServer", "TensorServer", "open_server", "read_address"]

_FLOATS = {"FP32": np.float32, "FP16": np.float16}
_VERBS = ("predict", "infer", "config", "ready", "stats", "rollout")


class NativeServer(Suspect):
    """A model of a server that speaks shipsight's own protocol.

    Args:
        client: of the server; closed with the suspect.
        model: its name.
        version: of it, None for the one that answers.
        card: of the model, as far as the server tells it.
        is_described: whether it tells the class names.
        digest: of the bundle that it serves, None where it does not tell.
    """

    kind = SuspectKind.SERVER

    def __init__(
        self,
        client: Client,
        model: str,
        version: str | None,
        card: Card,
        *,
        is_described: bool,
        digest: str | None = None,
    ) -> None:
        self._client, self._model, self._version = client, model, version
        self.card: Card = card
        self.is_described = is_described
        self.digest = digest

    def predict(
        self, image_rgb: NDArray[np.uint8], *, conf: float = 0.25, iou: float = 0.7, max_det: int = 300
    ) -> ImagePredictions:
        """Predicts; see the contract. The pixels are sent as PNG, which loses nothing."""
        names = self.card.class_names
        answer: ImagePredictions = self._client.predict(
            image_rgb, model=self._model, version=self._version, conf=conf, iou=iou, max_det=max_det, class_names=names
        )[0]
        return _complete(answer, self.card.task)

    def raw(self, batch: NDArray[Any]) -> None:
        """It takes images alone."""
        return

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()


class TensorServer(Suspect):
    """A model of any server that speaks the Open Inference Protocol and takes the raw tensor.

    Args:
        client: of the server; closed with the suspect.
        model: its name.
        version: of it, None for the one that answers.
        card: how its tensors are made and read.
        told: the protocol's metadata of the model.
        is_described: whether the card's class names are the server's own.
    """

    kind = SuspectKind.SERVER

    def __init__(
        self,
        client: Client,
        model: str,
        version: str | None,
        card: Card,
        told: Mapping[str, Any],
        *,
        is_described: bool,
    ) -> None:
        self._client, self._model, self._version = client, model, version
        self._input, self._layout, size_hw = _read_input(told, card, model)
        self._dtype = str(told["inputs"][0]["datatype"])
        self._card = _fit_head(card.with_size(size_hw), told["outputs"], model)
        self.card = self._card
        self.is_described = is_described
        names = {str(one["name"]) for one in told["outputs"]}
        self._form = OutputForm.BEST_CLASS if {"boxes", "scores", "class_ids"} <= names else OutputForm.RAW

    def predict(
        self, image_rgb: NDArray[np.uint8], *, conf: float = 0.25, iou: float = 0.7, max_det: int = 300
    ) -> ImagePredictions:
        """Predicts; see the contract."""
        prepared, geometry = prepare(image_rgb, self._card.input)
        outputs = self._run(to_tensor(prepared, self._card.input, self._layout))
        settings = PredictSettings(conf=conf, iou=iou, max_det=max_det)
        return postprocess(outputs, card=self._card, form=self._form, geometry=geometry, settings=settings, source=None)

    def raw(self, batch: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
        """Runs the graph; see the contract."""
        tensors = to_tensor(batch, self._card.input, self._layout) if batch.dtype == np.uint8 else batch
        if not len(tensors):
            raise TensorError("no tensors to run", where="batch", expected="one or more")
        answers = [self._run(tensors[number : number + 1]) for number in range(len(tensors))]
        return {name: np.concatenate([one[name] for one in answers]) for name in answers[0]}

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def _run(self, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        tensor = tensor.astype(_FLOATS.get(self._dtype, np.uint8), copy=False)
        answer = self._client.infer({self._input: tensor}, model=self._model, version=self._version)
        return {
            name: one.astype(np.float32) if one.dtype in (np.float16, np.float64) else one
            for name, one in sorted(answer.items())
        }


def open_server(case: Case) -> Suspect:
    """Opens a model of a server: whichever protocol it speaks, the native one first."""
    from shipsight.client import Client

    assert case.against is not None
    url, model, version = read_address(case.against, case.card.name)
    client = Client(url, key=case.key)
    try:
        # Who names the protocol's own path means it.
        is_tensors = urlsplit(case.against).path.startswith("/v2/")
        suspect = None if is_tensors else _open_native(case, client, model, version)
        return _open_tensors(case, client, model, version) if suspect is None else suspect
    except BaseException:
        client.close()
        raise


def _open_native(case: Case, client: Client, model: str, version: str | None) -> NativeServer | None:
    """Returns the model over the native protocol, None where the server does not speak it."""
    try:
        listed = client.models()
    except ShipsightError as error:
        if isinstance(error, ServiceError) and not _answers(client):
            raise
        return None
    known = [one for one in listed if one.get("name") == model and version in (None, str(one.get("version")))]
    if not known:
        got = ", ".join(sorted({str(one.get("name")) for one in listed})) or "none"
        raise NotFoundError("the server has no such model", where="--against", expected=model, got=got)
    names = known[0].get("class_names")
    card = case.card if version is None else replace(case.card, version=version)
    is_described = False
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        card, is_described = replace(card, class_names=tuple(names)), True
    task = known[0].get("task")
    if task is not None and task != card.task.value:
        raise CardError("the server's model has another task", where=model, expected=card.task.value, got=task)
    digest = known[0].get("digest")
    return NativeServer(
        client, model, version, card, is_described=is_described, digest=digest if isinstance(digest, str) else None
    )


def _answers(client: Client) -> bool:
    """Whether there is a server of the Open Inference Protocol; one of ours answers on both."""
    try:
        return bool(client.open_inference())
    except ShipsightError:
        return False


def _open_tensors(case: Case, client: Client, model: str, version: str | None) -> TensorServer:
    told = client.metadata(model, version=version)
    try:
        card, is_described = _read_config(case.card, client.config(model, version=version))
    except (NotFoundError, ServiceError, UnsupportedError, CorruptError, UsageError):
        card, is_described = case.card, False  # the configuration is an extension: most servers have none
    if not all(isinstance(told.get(key), list) and told[key] for key in ("inputs", "outputs")):
        raise CorruptError("not a model's metadata", where=model, expected="inputs and outputs", got=sorted(told))
    return TensorServer(client, model, version, card, told, is_described=is_described)


def read_address(against: str, name: str, *, where: str = "--against") -> tuple[str, str, str | None]:
    """Returns the server's address, the model's name and version.

    Paths are those that the protocols have: `/v1/models/NAME[/versions/V]`, `/v2/models/NAME[/versions/V]`, or `/NAME`.

    Args:
        against: what was given.
        name: of the model where that names none.
        where: what errors call it.

    Raises:
        UsageError: the path is of another kind.
    """
    address = urlsplit(against)
    steps = [unquote(one) for one in address.path.split("/") if one]
    if len(steps) > 2 and steps[0] in ("v1", "v2") and steps[1] == "models":
        steps = steps[2:]
        if len(steps) > 1 and steps[-1] in _VERBS:
            steps = steps[:-1]
    version = steps[2] if len(steps) == 3 and steps[1] == "versions" else None
    if (len(steps) > 1 and version is None) or address.query or address.fragment:
        expected = "http[s]://HOST[:PORT][/MODEL] or .../v2/models/MODEL[/versions/VERSION]"
        raise UsageError("not a server's model", where=where, expected=expected, got=against.rpartition("@")[2])
    return f"{address.scheme}://{address.netloc}", steps[0] if steps else name, version


def _read_config(card: Card, config: Mapping[str, Any]) -> tuple[Card, bool]:
    """Returns the card with what Ultralytics' metadata in a Triton configuration say of classes."""
    text = ((config.get("parameters") or {}).get("metadata") or {}).get("string_value")
    if not isinstance(text, str) or len(text) > 2**20:
        return card, False
    try:
        names = ast.literal_eval(text)["names"]
        class_names = tuple(str(names[number]) for number in range(len(names)))
    except (ValueError, SyntaxError, MemoryError, RecursionError, KeyError, TypeError) as error:
        raise CorruptError("the model's configuration does not fit", where="metadata", got=error) from error
    return replace(card, class_names=class_names), True


def _read_input(told: Mapping[str, Any], card: Card, model: str) -> tuple[str, TensorLayout, tuple[int, int]]:
    one = told["inputs"][0]
    shape, datatype = [int(side) for side in one["shape"]], str(one["datatype"])
    if len(shape) == 3:
        shape = [-1, *shape]
    height, width = card.input.size_hw
    if len(told["inputs"]) == 1 and len(shape) == 4:
        if datatype in _FLOATS and shape[1] in (3, -1):
            sides = shape[2], shape[3]
            return str(one["name"]), TensorLayout.FLOAT_NCHW, _sides(sides, (height, width))
        if datatype == "UINT8" and shape[3] in (3, -1):
            return str(one["name"]), TensorLayout.UINT8_NHWC, _sides((shape[1], shape[2]), (height, width))
    raise UnsupportedError(
        "the server's model takes no tensor that is handled",
        where=model,
        expected="FP32 or FP16 [n, 3, height, width], or UINT8 [n, height, width, 3]",
        got=", ".join(f"{each.get('datatype')} {each.get('shape')}" for each in told["inputs"])[:200],
    )


def _sides(said: tuple[int, int], usual: tuple[int, int]) -> tuple[int, int]:
    return said[0] if said[0] > 0 else usual[0], said[1] if said[1] > 0 else usual[1]


def _fit_head(card: Card, outputs: list[Any], model: str) -> Card:
    """Returns the card with the head that the outputs show: a server may run an export with suppression in it."""
    shape = [int(side) for side in outputs[0]["shape"]]
    extras = card.output.mask_channels + (card.task is Task.OBB)
    if card.output.keypoint_shape is not None:
        extras += card.output.keypoint_shape[0] * card.output.keypoint_shape[1]
    is_end2end = len(shape) == 3 and shape[2] == 6 + extras and shape[1] != 4 + len(card.class_names) + extras
    if card.task is not Task.CLASSIFY and is_end2end and card.output.head is not Head.END2END:
        output = OutputContract(Head.END2END, card.output.keypoint_shape, card.output.mask_channels, max(shape[1], 1))
        return replace(card, output=output)
    return card


def _complete(answer: ImagePredictions, task: Task) -> ImagePredictions:
    """Gives an image without predictions the empty arrays that its task has."""
    if len(answer) or answer.probabilities is not None:
        return answer
    if task is Task.OBB:
        return replace(answer, boxes_xyxy=None, corners_xy=np.zeros((0, 4, 2), np.float32))
    if task is Task.SEGMENT:
        return replace(answer, masks=np.zeros((0, answer.height, answer.width), np.bool_))
    return replace(answer, keypoints_xyc=np.zeros((0, 1, 3), np.float32)) if task is Task.POSE else answer
