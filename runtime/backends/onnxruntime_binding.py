"""ONNX Runtime with its tensors kept on the device: no allocation per frame, addresses that stay."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from measnet.image import Image, Pixels

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
