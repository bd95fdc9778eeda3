"""Triton: a server, on this machine or another, computes the network.

    triton://HOST:PORT/MODEL

The graph is described by the parameters in the model's ``config.pbtxt``, which ``measnet-export triton``
writes; the server hands them out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from measnet.decision_layout import INPUTS
from measnet.description import GraphDescription
from measnet.errors import BackendError, GraphError, MissingPackageError, UsageError, first_line
from measnet.image import Image, images_to_batch
from measnet.runtime.backends import Inference, Steering, inference_from, steering_inputs, unsteered
from measnet.runtime.backends.triton_memory import SharedRegions

SCHEME = "triton://"
PORT = 8001
"""The port of Triton's gRPC, where an address names none."""

CONNECT_SECONDS = 10.0
REQUEST_SECONDS = 60.0
AWAY_SECONDS = 5.0
"""Seconds for which a server that does not answer is asked again, so that frames survive its restart."""

_PAUSE = 0.25
_TYPES = {2: "UINT8", 11: "FP32"}
"""Types of pictures: their numbers in a configuration, their names in requests."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Place of a server, and the name that the model has there, if it was said."""

    host: str
    port: int
    model: str | None

    @classmethod
    def parse(cls, text: str) -> ServedModel:
        """Reads ``triton://HOST[:PORT][/MODEL]``. Raises UsageError, which repeats no credentials."""
        wanted = "a Triton server is named by triton://HOST:PORT/MODEL, as in triton://gpu1:8001/nano"
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            raise UsageError(f"{wanted}; this one has no such port") from None
        if parts.username is not None or parts.password is not None:
            raise UsageError(f"{wanted}; it takes no user and no password")
        model = unquote(parts.path.strip("/"))
        if not host or parts.query or parts.fragment or "/" in model:
            raise UsageError(f"{text} cannot be read: {wanted}")
        return cls(host, PORT if port is None else port, model or None)

    @property
    def is_here(self) -> bool:
        """Says whether it is this machine, by its loopback."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class TritonBackend:
    """Has a model of a Triton server compute. Any number of threads may infer at the same time.

    On this machine pictures go through shared memory where the server can open it, else through gRPC.

    Args:
        address: of the server.
        model: its name there, if the address says none.
        away: seconds for which a server that is gone may come back.
        patience: seconds for which one that is there may compute.
    """

    def __init__(
        self,
        address: ServedModel,
        model: str,
        *,
        away: float = AWAY_SECONDS,
        patience: float = REQUEST_SECONDS,
    ) -> None:
        self._away = away
        self._patience = patience
        self._address = address
        self._name = address.model or model
        self._client: Any = None
        self._description: GraphDescription | None = None
        self._neutral: Steering | None = None
        self._facts: dict[str, str] = {}
        self._wanted: list[str] = []
        self._datatype = ""
        self._most = 1
        self._regions: SharedRegions | None = None

    @property
    def description(self) -> GraphDescription:
        if self._description is None:
            raise BackendError("the Triton backend is not active")
        return self._description

    @property
    def facts(self) -> dict[str, str]:
        """``provider`` is the server's own word for what computes; ``transport`` says how pictures travel."""
        if self._client is None:
            raise BackendError("the Triton backend is not active")
        return self._facts | {"transport": "gRPC" if self._regions is None else "shared memory"}

    def activate(self) -> None:
        try:
            import tritonclient.grpc as triton
        except ModuleNotFoundError:
            raise MissingPackageError("the triton backend", "tritonclient", "triton") from None
        client = triton.InferenceServerClient(str(self._address))
        try:
            version = self._first(lambda: client.get_server_metadata(client_timeout=CONNECT_SECONDS)).version
            config = self._config(client)
            self._understand(config)
        except BaseException:
            client.close()
            raise
        self._client = client
        self._facts = {
            "backend": "triton",
            "version": version,
            "provider": config.platform or config.backend,
            "server": str(self._address),
            "served": self._name,
        }
        if self._address.is_here:
            self._regions = SharedRegions.offered_by(client, CONNECT_SECONDS)

    def infer(self, images: Image, steering: Steering | None = None) -> Inference:
        steering = steering or self._neutral
        description = self.description
        given: NDArray[Any] = images
        if description.takes_bytes:
            given = images_to_batch(images, description.channel_order)
        steered = {} if steering is None else steering_inputs(steering, images)
        parts = [
            self._ask_patiently(
                np.ascontiguousarray(given[first : first + self._most]),
                {name: value[first : first + self._most] for name, value in steered.items()},
            )
            for first in range(0, len(given), self._most)
        ]
        outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        return inference_from(outputs, description)

    def deactivate(self) -> None:
        if self._regions is not None:
            self._regions.close()
            self._regions = None
        if self._client is not None:
            self._client.close()
            self._client = None

    def _config(self, client: Any) -> Any:
        from tritonclient.utils import InferenceServerException

        try:
            return client.get_model_config(self._name, client_timeout=CONNECT_SECONDS).config
        except InferenceServerException as error:
            index = self._first(lambda: client.get_model_repository_index(client_timeout=CONNECT_SECONDS))
            ready = sorted({model.name for model in index.models if model.state in ("", "READY")})
            if self._name in ready:
                raise UsageError(
                    f"the Triton server at {self._address} does not tell what {self._name} is: "
                    f"{_words(error)}"
                ) from None
            models = f"it serves {', '.join(ready)}" if ready else "it serves none"
            raise UsageError(
                f"the Triton server at {self._address} has no model {self._name} that is ready; {models}; "
                f"name one: {SCHEME}{self._address}/MODEL"
            ) from None

    def _first(self, ask: Callable[[], _Answer]) -> _Answer:
        """Asks the server once at the beginning: one that does not answer is misspelt, or not up yet."""
        from tritonclient.utils import InferenceServerException

        try:
            return ask()
        except InferenceServerException as error:
            raise UsageError(
                f"no Triton server answers at {self._address} ({_words(error)}); check the address, "
                "that it is up, and that this is its port for gRPC"
            ) from None

    def _understand(self, config: Any) -> None:
        """Reads what the server says of the model. Raises GraphError for one that is not ours."""
        origin = f"the model {self._name} of the Triton server at {self._address}"
        metadata = {name: value.string_value for name, value in config.parameters.items()}
        self._description = description = GraphDescription.from_metadata(metadata, origin)
        self._neutral = unsteered(description)
        types = {value.name: _TYPES.get(value.data_type) for value in (*config.input, *config.output)}
        inputs = [value.name for value in config.input]
        expected = ["image", *(INPUTS if description.steerable else ())]
        datatype = types.get("image")
        if sorted(inputs) != sorted(expected) or datatype is None or types.get("restored") != datatype:
            raise GraphError(
                f"{origin} takes {inputs}, a MEASNet model takes {expected} in float32 or bytes and returns "
                "'restored' in the same; write it again with measnet-export triton"
            )
        self._datatype = datatype
        self._wanted = [value.name for value in config.output]
        self._most = max(1, config.max_batch_size)

    def _ask_patiently(
        self, image: NDArray[Any], steered: dict[str, NDArray[np.float32]]
    ) -> dict[str, NDArray[Any]]:
        from tritonclient.utils import InferenceServerException

        until = time.monotonic() + self._away
        while True:
            try:
                return self._ask(image, steered)
            except InferenceServerException as error:
                if "UNAVAILABLE" in str(error.status()):
                    if time.monotonic() < until:
                        time.sleep(_PAUSE)
                        continue
                    raise BackendError(
                        f"the Triton server at {self._address} has not answered for {self._away:g} s"
                    ) from None
                height, width = image.shape[1:3] if self.description.takes_bytes else image.shape[2:]
                raise BackendError(
                    f"the Triton server at {self._address} failed on {height}x{width} pixels: {_words(error)}"
                ) from None

    def _ask(self, image: NDArray[Any], steered: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[Any]]:
        import tritonclient.grpc as triton

        client = self._client
        if client is None:
            raise BackendError("the Triton backend is not active")
        picture = triton.InferInput("image", list(image.shape), self._datatype)
        outputs = {name: triton.InferRequestedOutput(name) for name in self._wanted}
        inputs = [picture]
        for name, value in steered.items():
            inputs.append(triton.InferInput(name, list(value.shape), "FP32"))
            inputs[-1].set_data_from_numpy(np.ascontiguousarray(value))

        def ask() -> Any:
            return client.infer(
                self._name, inputs, outputs=list(outputs.values()), client_timeout=self._patience
            )

        if self._regions is None:
            picture.set_data_from_numpy(image)
            result = ask()
            return {name: result.as_numpy(name) for name in self._wanted}
        with self._regions.holding(image) as region:
            region.carry(picture, outputs["restored"])
            result = ask()
            others = {name: result.as_numpy(name) for name in self._wanted if name != "restored"}
            return {"restored": region.result(), **others}


def _words(error: Any) -> str:
    """The first line of a server's error, or of gRPC's."""
    return first_line(RuntimeError(error.message() or error.status()))
