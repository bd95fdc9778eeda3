"""ONNX Runtime: the default on machines without a GPU, and its CUDA and TensorRT providers on others."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from measnet.decision_layout import INPUTS
from measnet.description import GraphDescription
from measnet.errors import BackendError, GraphError, MissingPackageError, UsageError, first_line
from measnet.file_name import in_utf8
from measnet.image import Image, Pixels, images_to_batch
from measnet.onnx_file import check_graph_file
from measnet.runtime.backends import Inference, Steering, inference_from, steering_inputs, unsteered

if TYPE_CHECKING:
    import onnxruntime


class BoundSession:
    """Runs ``session`` with its input and outputs bound to memory of ``device`` (``cuda`` or ``cpu``).

    The memory is kept from frame to frame as long as the shape stays, and so may be kept for a CUDA graph.
    One caller at a time; others wait.
    """

    def __init__(self, session: onnxruntime.InferenceSession, device: str) -> None:
        self._session = session
        self._device = device
        self._names = [output.name for output in session.get_outputs()]
        self._shape: tuple[int, ...] | None = None
        self._image: Any = None
        self._binding: Any = None
        self._lock = threading.Lock()

    def run(self, images: Image | Pixels) -> dict[str, NDArray[Any]]:
        """``image`` as the graph takes it -> the outputs by name, the caller's to keep.

        Raises what ONNX Runtime raises.
        """
        with self._lock:
            if images.shape == self._shape:
                self._image.update_inplace(np.ascontiguousarray(images))
                self._session.run_with_iobinding(self._binding)
            else:
                self._begin(images)
            values = self._binding.copy_outputs_to_cpu()
            # On the CPU these are the bound memory itself, which the next frame overwrites.
            return {name: np.array(value) for name, value in zip(self._names, values, strict=True)}

    def _begin(self, images: Image | Pixels) -> None:
        """The first frame of a shape: ONNX Runtime says how large the outputs are, and they stay."""
        from onnxruntime import OrtValue

        self._shape = None
        self._image = OrtValue.ortvalue_from_numpy(np.ascontiguousarray(images), self._device, 0)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("image", self._image)
        for name in self._names:
            binding.bind_output(name, self._device, 0)
        self._session.run_with_iobinding(binding)
        for name, value in zip(self._names, binding.get_outputs(), strict=True):
            binding.bind_ortvalue_output(name, value)
        self._binding = binding
        self._shape = images.shape


Provider = Literal["CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"]

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"
_TENSORRT = "TensorrtExecutionProvider"

_ORDER: dict[Provider | None, tuple[str, ...]] = {
    None: (_CUDA, _CPU),
    "CPUExecutionProvider": (_CPU,),
    "CUDAExecutionProvider": (_CUDA, _CPU),
    "TensorrtExecutionProvider": (_TENSORRT, _CUDA, _CPU),
}
"""Providers that ONNX Runtime is told to try, in this order, by the one that is asked for."""

_OPTIONS = {_CUDA: {"use_tf32": "0"}}
"""TF32 has 10 bits of mantissa: in front of a router that is too few."""

_REMEDY = {
    _CUDA: "pip install 'onnxruntime-gpu[cuda,cudnn]'",
    _TENSORRT: "pip install 'onnxruntime-gpu[cuda,cudnn]' 'tensorrt>=10.12,<11' (it links TensorRT 10)",
}


class OnnxRuntimeBackend:
    """Runs a graph that ``measnet-export`` wrote. ``threads`` is per operator, None for one per core.

    ``provider`` must be the active one, or ``activate`` fails; with None it is CUDA where that works, else
    the CPU. On a GPU, tensors stay in memory bound to it (IO binding).
    """

    def __init__(self, graph: Path, threads: int | None = None, provider: Provider | None = None) -> None:
        self.graph = graph
        self.threads = threads
        self.provider = provider
        self._session: onnxruntime.InferenceSession | None = None
        self._bound: BoundSession | None = None
        self._description: GraphDescription | None = None
        self._neutral: Steering | None = None
        self._version = ""
        self._fallback = ""

    @property
    def description(self) -> GraphDescription:
        if self._description is None:
            raise BackendError("the ONNX Runtime backend is not active")
        return self._description

    @property
    def facts(self) -> dict[str, str]:
        """``provider`` is the one that is really active: ONNX Runtime falls back without failing.

        ``fallback`` is there when it did, and says from what.
        """
        session = self._active()
        facts = {
            "backend": "onnxruntime",
            "version": self._version,
            "provider": session.get_providers()[0],
            "graph": str(self.graph),
        }
        return facts | ({"fallback": self._fallback} if self._fallback else {})

    def activate(self) -> None:
        try:
            import onnxruntime as ort
        except ModuleNotFoundError:
            raise MissingPackageError("the onnxruntime backend", "onnxruntime", "cpu") from None
        if not self.graph.is_file():
            raise GraphError(f"the graph {self.graph} does not exist")
        check_graph_file(self.graph)
        available = ort.get_available_providers()
        if self.provider is not None and self.provider not in available:
            raise UsageError(
                f"this ONNX Runtime has no {self.provider}, only {', '.join(available)}; install one that "
                f"has: pip uninstall -y onnxruntime && {_REMEDY[self.provider]}"
            )
        wanted = [provider for provider in _ORDER[self.provider] if provider in available]
        if wanted[0] != _CPU and hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # finds CUDA where pip installed it
        session = self._open(ort, wanted)
        active = session.get_providers()[0]
        if self.provider is not None and active != self.provider:
            raise BackendError(
                f"{self.provider} is not active: ONNX Runtime could not load it and took {active}; a library "
                f"of it is missing, or the GPU's driver: {_REMEDY[self.provider]}"
            )
        self._fallback = "" if active == wanted[0] else f"{wanted[0]} could not be loaded"
        metadata = dict(session.get_modelmeta().custom_metadata_map)
        self._description = GraphDescription.from_metadata(metadata, str(self.graph))
        self._version = ort.__version__
        self._session = session
        self._neutral = unsteered(self._description)
        on_gpu = active in (_CUDA, _TENSORRT)
        self._bound = BoundSession(session, "cuda") if on_gpu and self._neutral is None else None
        self._probe()

    def infer(self, images: Image, steering: Steering | None = None) -> Inference:
        session, description = self._active(), self.description
        steering = steering or self._neutral
        steered = {} if steering is None else steering_inputs(steering, images)
        given = images_to_batch(images, description.channel_order) if description.takes_bytes else images
        try:
            outputs = self._run(session, given, steered)
        except Exception as error:  # as in _open
            raise BackendError(
                f"ONNX Runtime failed on {images.shape[2]}x{images.shape[3]} pixels: {first_line(error)}"
            ) from None
        return inference_from(outputs, description)

    def deactivate(self) -> None:
        self._session = None
        self._bound = None

    def _run(
        self, session: onnxruntime.InferenceSession, given: Image | Pixels, steered: dict[str, Image]
    ) -> dict[str, Any]:
        if self._bound is not None:
            return self._bound.run(given)
        values = session.run(None, {"image": given, **steered})
        return {output.name: value for output, value in zip(session.get_outputs(), values, strict=True)}

    def _open(self, ort: Any, wanted: list[str]) -> onnxruntime.InferenceSession:
        """A session with the first of ``wanted`` that works. Raises ``GraphError``, ``BackendError``."""
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if self.threads:
            options.intra_op_num_threads = self.threads
        providers = [(provider, _OPTIONS.get(provider, {})) for provider in wanted]
        # ONNX Runtime has an exception type per failure, none public.
        graph = in_utf8(self.graph)
        try:
            return ort.InferenceSession(graph, options, providers=providers, enable_fallback=0)
        except Exception as error:
            if self.provider is None and len(wanted) > 1:
                return self._open(ort, wanted[1:])
            if self.provider is not None:
                raise BackendError(
                    f"ONNX Runtime cannot run {self.graph} with {self.provider}: {first_line(error)}"
                ) from None
            if "NOT_IMPLEMENTED" in str(error):
                raise GraphError(
                    f"ONNX Runtime cannot run {self.graph} on this machine: {first_line(error)}; BF16 needs "
                    "a GPU, on a CPU take --fp16 or float32"
                ) from None
            raise GraphError(f"{self.graph} is not a sound ONNX file: {first_line(error)}") from None

    def _active(self) -> onnxruntime.InferenceSession:
        if self._session is None:
            raise BackendError("the ONNX Runtime backend is not active")
        return self._session

    def _probe(self) -> None:
        """Checks the graph's inputs and outputs with one small image, before any frame comes."""
        session = self._active()
        names = [value.name for value in session.get_inputs()]
        outputs = [value.name for value in session.get_outputs()]
        expected = ["image"] if self._neutral is None else ["image", *INPUTS]
        if names != expected or "restored" not in outputs:
            raise GraphError(
                f"{self.graph} takes {names} and returns {outputs}; a MEASNet graph takes {expected} and "
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
