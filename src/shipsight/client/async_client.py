# SPDX-License-Identifier: Apache-2.0
"""Asking a server from tasks: the same as `client.Client`, awaited. Stable.

Images are read and encoded beside the event loop. A task that is cancelled closes its connection, and the server then drops what
waits. One client serves one event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
from numpy.typing import NDArray

from shipsight.client.calls import Calls, PredictOptions, model_path, tensors_path
from shipsight.client.exchange import Pause, Steps, UnheardError
from shipsight.client.images import PixelForm, encode_images
from shipsight.client.transport import AsyncTransport
from shipsight.client.ways import Way
from shipsight.model import Predictions

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient:
    """A server, asked from tasks of one event loop.

    Args:
        url: `https://HOST[:PORT]`, `http://HOST[:PORT]`, or `unix:/PATH` of a socket of this machine.
        key: text of an API key; it is sent over TLS or within this machine alone.
        certificate: files of the client's certificate and its key, in PEM.
        ca: file of certificates that the server's must be signed by; None for the system's.
        timeout_s: seconds for a call, all attempts and pauses together.
        retries: most attempts beside the first. Asked again is where no answer began, or the server says that it is busy
            and when to come back.
        seal: the server's sealing identity: images and answers are sealed, and no proxy between reads them. `"required"`
            with `trust_first` believes the identity that the server shows first.
        trust_first: see `seal`.
        headers: of every request.
        proxy: `http://HOST:PORT` to go through; what the environment names is not asked.

    Raises:
        UsageError: the address, a file or a header is none, a key would go in the clear, or a sealing identity is missing.
        SealingIdentityError: the sealing identity is none.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        certificate: tuple[str | Path, str | Path] | None = None,
        ca: str | Path | None = None,
        timeout_s: float = 60.0,
        retries: int = 3,
        seal: str | None = None,
        trust_first: bool = False,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
    ) -> None:
        way = Way.open(
            url,
            key=key,
            certificate=certificate,
            ca=ca,
            seal=seal,
            trust_first=trust_first,
            headers=headers or {},
            proxy=proxy,
        )
        self._calls = Calls(way.address, timeout_s, retries, way.sealing)
        self._transport = AsyncTransport(way.address, way.headers, way.context, proxy)

    def __repr__(self) -> str:
        sealed = ", sealed" if self._calls.sealing is not None else ""
        return f"AsyncClient({self._calls.address.url!r}{sealed})"

    @property
    def sealing_identity(self) -> str | None:
        """The server's sealing identity, None where it is not known yet, or nothing is sealed."""
        sealing = self._calls.sealing
        return None if sealing is None or sealing.pin is None else str(sealing.pin)

    async def predict(
        self,
        images: Any,  # noqa: ANN401 - one image, or several
        *,
        model: str,
        version: str | None = None,
        conf: float | None = None,
        iou: float | None = None,
        max_det: int | None = None,
        classes: Sequence[int] | None = None,
        agnostic_nms: bool | None = None,
        variant: str | None = None,
        deadline_ms: float | None = None,
        tile: int | None = None,
        overlap: float | None = None,
        whole: bool | None = None,
        routing_key: str | None = None,
        pixels_as: PixelForm = "png",
        class_names: Sequence[str] | None = None,
    ) -> Predictions:
        """Predicts on one image or several, in order.

        Args:
            images: a path, encoded bytes or (height, width, 3) uint8 RGB pixels, or a sequence of these.
            model: its name.
            version: of it; None for the one that answers where none is named.
            conf: least score, 0 to 1; None, here and below, for the server's own.
            iou: overlap above which the lower-scored box is suppressed, 0 to 1.
            max_det: most predictions an image.
            classes: class ids to keep.
            agnostic_nms: whether boxes of different classes suppress each other.
            variant: one that the server offers.
            deadline_ms: milliseconds that the request may wait for its turn there.
            tile: side in pixels of the windows that each image is cut into.
            overlap: share of a window that the next one covers too, 0 to 0.9.
            whole: whether the whole image is one more window.
            routing_key: requests with the same go to the same version.
            pixels_as: what arrays are encoded as: `png` loses nothing, `jpeg` is smaller.
            class_names: of the model; None for those that the answer tells (`model.Predictions.from_dict`).

        Raises:
            ShipsightError: what the server says.
            ServiceError: it does not answer; `DeadlineError` where that took too long.
            SealedAnswerError: the answer was changed on the way, or came in the clear.
            SealingIdentityError: the keys that were shown are not the server's.
            CorruptError: the answer is none.
        """
        sent = await anyio.to_thread.run_sync(encode_images, images, pixels_as)
        options = PredictOptions(
            conf=conf,
            iou=iou,
            max_det=max_det,
            classes=classes,
            agnostic_nms=agnostic_nms,
            variant=variant,
            deadline_ms=deadline_ms,
            tile=tile,
            overlap=overlap,
            whole=whole,
        )
        steps = self._calls.predict(
            sent, model=model, version=version, routing_key=routing_key, class_names=class_names, options=options
        )
        return await self._run(steps)

    async def drawn(
        self,
        image: Any,  # noqa: ANN401 - a path, bytes or pixels
        *,
        model: str,
        version: str | None = None,
        conf: float | None = None,
        iou: float | None = None,
        max_det: int | None = None,
        classes: Sequence[int] | None = None,
        agnostic_nms: bool | None = None,
        variant: str | None = None,
        deadline_ms: float | None = None,
        tile: int | None = None,
        overlap: float | None = None,
        whole: bool | None = None,
        routing_key: str | None = None,
        pixels_as: PixelForm = "png",
    ) -> bytes:
        """Returns an image with its predictions drawn, as JPEG. Arguments and errors as of `predict`, for one image."""
        sent = await anyio.to_thread.run_sync(encode_images, [image], pixels_as)
        options = PredictOptions(
            conf=conf,
            iou=iou,
            max_det=max_det,
            classes=classes,
            agnostic_nms=agnostic_nms,
            variant=variant,
            deadline_ms=deadline_ms,
            tile=tile,
            overlap=overlap,
            whole=whole,
        )
        return await self._run(
            self._calls.drawn(sent, model=model, version=version, routing_key=routing_key, options=options)
        )

    async def infer(
        self,
        tensors: Mapping[str, NDArray[Any]],
        *,
        model: str,
        version: str | None = None,
        routing_key: str | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Runs a model on tensors as they are, over the Open Inference Protocol.

        Args:
            tensors: input name -> tensor, as the model takes it.
            model: its name.
            version: of it; None for the one that answers where none is named.
            routing_key: requests with the same go to the same version.

        Returns:
            Output name -> tensor; they may not be written to.

        Raises:
            ShipsightError: what the server says.
            TensorError: a tensor has a type that the protocol has not.
            CorruptError: the answer is none. Otherwise as `predict`.
        """
        return await self._run(self._calls.infer(tensors, model=model, version=version, routing_key=routing_key))

    async def metadata(self, model: str, *, version: str | None = None) -> dict[str, Any]:
        """Returns what a model takes and gives, as the Open Inference Protocol has it: `inputs`, `outputs`. It is not sealed.

        Args:
            model: its name.
            version: of it; None for the one that answers where none is named.

        Raises:
            ShipsightError: what the server says.
            ServiceError: it does not answer.
        """
        return await self._run(self._calls.told(tensors_path(model, version)))

    async def config(self, model: str, *, version: str | None = None) -> dict[str, Any]:
        """Returns a model's configuration, as Triton's extension of that protocol has it. Otherwise as `metadata`."""
        return await self._run(self._calls.told(tensors_path(model, version) + "/config"))

    async def open_inference(self) -> dict[str, Any]:
        """Returns what the Open Inference Protocol says of the server: `name`, `version`, `extensions`. Errors as of `metadata`."""
        return await self._run(self._calls.told("/v2"))

    async def models(self) -> list[dict[str, Any]]:
        """Returns the versions of all models that may be seen. It is not sealed.

        Raises:
            ShipsightError: what the server says.
            ServiceError: it does not answer.
        """
        return await self._run(self._calls.listed("/v1/models", "models"))

    async def model(self, name: str) -> list[dict[str, Any]]:
        """Returns the versions of a model. It is not sealed.

        Raises:
            ShipsightError: what the server says.
            ServiceError: it does not answer.
        """
        return await self._run(self._calls.listed(model_path(name), "versions"))

    async def health(self) -> dict[str, Any]:
        """Returns how the server is: `status` is `ready` or `not ready`.

        Raises:
            ServiceError: it does not answer.
        """
        return await self._run(self._calls.told("/readyz", is_health=True))

    async def me(self) -> dict[str, Any]:
        """Returns who the server takes this client for: `kind`, `name`, `certificate`.

        Raises:
            ShipsightError: what the server says.
            ServiceError: it does not answer.
        """
        return await self._run(self._calls.told("/v1/me"))

    async def rollout(self, model: str) -> dict[str, Any]:
        """Returns how a model's requests are divided over its versions, and how that goes.

        Raises:
            ShipsightError: what the server says.
            ServiceError: it does not answer.
        """
        return await self._run(self._calls.told(model_path(model) + "/rollout"))

    async def promote(self, model: str, version: str | None = None, *, reason: str | None = None) -> dict[str, Any]:
        """Makes a version the current one, None for the canary. Returns the report, and `changed`.

        Raises:
            ShipsightError: what the server says.
            ServiceError: it does not answer; whether it was done is then not known.
        """
        path = model_path(model) + "/rollout/promote"
        return await self._run(self._calls.act(path, version=version, reason=reason))

    async def roll_back(self, model: str, *, reason: str | None = None) -> dict[str, Any]:
        """Makes the version before the current one again. Returns the report, and `changed`.

        Raises:
            ShipsightError: what the server says.
            ServiceError: it does not answer; whether it was done is then not known.
        """
        return await self._run(self._calls.act(model_path(model) + "/rollout/rollback", reason=reason))

    async def close(self) -> None:
        """Closes all connections."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    await anyio.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    heard = await self._transport.exchange(step)
                except UnheardError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(heard)
        except StopIteration as done:
            value: T = done.value
            return value
        finally:
            steps.close()
