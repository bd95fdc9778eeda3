"""ONNX Runtime: the default on machines without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from measnet.description import GraphDescription
from measnet.errors import BackendError, GraphError, MissingPackageError, first_line
from measnet.image import Image
from measnet.metrics import Choices
from measnet.runtime.backends import Inference

if TYPE_CHECKING:
    import onnxruntime

_PREFERRED = ("CUDAExecutionProvider", "CPUExecutionProvider")


class OnnxRuntimeBackend:
    """Runs a graph that ``measnet-export`` wrote. ``threads`` is per operator, None for one per core."""

    def __init__(self, graph: Path, threads: int | None = None) -> None:
        self.graph = graph
        self.threads = threads
        self._session: onnxruntime.InferenceSession | None = None
        self._description: GraphDescription | None = None
        self._version = ""

    @property
    def description(self) -> GraphDescription:
        if self._description is None:
            raise BackendError("the ONNX Runtime backend is not active")
        return self._description

    @property
    def facts(self) -> dict[str, str]:
        """``provider`` is the one that is really active: ONNX Runtime falls back without failing."""
        session = self._active()
        return {
            "backend": "onnxruntime",
            "version": self._version,
            "provider": session.get_providers()[0],
            "graph": str(self.graph),
        }

    def activate(self) -> None:
        try:
            import onnxruntime as ort
        except ModuleNotFoundError:
            raise MissingPackageError("the onnxruntime backend", "onnxruntime", "cpu") from None
        if not self.graph.is_file():
            raise GraphError(f"the graph {self.graph} does not exist")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if self.threads:
            options.intra_op_num_threads = self.threads
        available = ort.get_available_providers()
        try:
            session = ort.InferenceSession(
                str(self.graph), options, providers=[p for p in _PREFERRED if p in available]
            )
        # ONNX Runtime has an exception type per failure, none public; all say the file is not usable.
        except Exception as error:
            raise GraphError(f"{self.graph} is not a sound ONNX file: {first_line(error)}") from None
        metadata = dict(session.get_modelmeta().custom_metadata_map)
        self._description = GraphDescription.from_metadata(metadata, str(self.graph))
        self._version = ort.__version__
        self._session = session
        self._probe()

    def infer(self, images: Image) -> Inference:
        session = self._active()
        try:
            values = session.run(None, {"image": images})
        except Exception as error:  # as above
            raise BackendError(
                f"ONNX Runtime failed on {images.shape[2]}x{images.shape[3]} pixels: {first_line(error)}"
            ) from None
        outputs: dict[str, Any] = {
            output.name: value for output, value in zip(session.get_outputs(), values, strict=True)
        }
        return Inference(
            restored=outputs["restored"],
            choices=Choices(outputs.get("pixel_experts"), outputs.get("image_experts")),
            prompt_weights=outputs.get("prompt_weights"),
        )

    def deactivate(self) -> None:
        self._session = None

    def _active(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise BackendError("the ONNX Runtime backend is not active")
        return self._session

    def _probe(self) -> None:
        """One small image through the graph: what it takes and returns is checked before any frame is."""
        session = self._active()
        names = [value.name for value in session.get_inputs()]
        outputs = [value.name for value in session.get_outputs()]
        if names != ["image"] or "restored" not in outputs:
            raise GraphError(
                f"{self.graph} takes {names} and returns {outputs}; a MEASNet graph takes 'image' and "
                "returns 'restored'"
            )
        height, width = self.description.fit(1, 1)
        grey = np.full((1, 3, height, width), 0.5, np.float32)
        try:
            restored = self.infer(grey).restored
        except BackendError as error:
            raise GraphError(f"{self.graph} does not do what its description says: {error}") from None
        if restored.shape != grey.shape or not np.isfinite(restored).all():
            raise GraphError(
                f"{self.graph} does not restore a plain grey picture (its weights may hold NaN); "
                "export it again from a sound checkpoint"
            )
