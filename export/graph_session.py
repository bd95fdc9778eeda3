"""A graph in ONNX Runtime on the CPU."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from measnet.errors import GraphError, MissingPackageError, first_line
from measnet.file_name import in_utf8
from measnet.forked import never_end_in_children
from measnet.image import Image, Pixels


class GraphSession:
    """A graph (a file or its bytes) that is loaded once and run often.

    Raises ``MissingPackageError`` without ONNX Runtime, ``GraphError`` when it does not take the graph.
    """

    def __init__(self, graph: bytes | str | os.PathLike[str]) -> None:
        try:
            import onnxruntime as ort
        except ModuleNotFoundError:
            raise MissingPackageError("checking a graph", "onnxruntime", "cpu") from None
        self._what = "the graph" if isinstance(graph, bytes) else str(graph)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        given = graph if isinstance(graph, bytes) else in_utf8(Path(graph))
        try:
            self._session = ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime has an exception type per failure, none public
            raise self._refused(error) from None
        never_end_in_children(self._session)
        self._names = [output.name for output in self._session.get_outputs()]

    def run(self, images: Image | Pixels) -> dict[str, NDArray[np.generic]]:
        """All outputs by name for ``images``, as the graph takes them. Raises ``GraphError`` otherwise."""
        try:
            given = {"image": images, **self._unsteered(images)}
            return dict(zip(self._names, self._session.run(None, given), strict=True))
        except Exception as error:  # as above
            raise self._refused(error) from None

    def _unsteered(self, images: Image | Pixels) -> dict[str, NDArray[np.float32]]:
        """The inputs besides ``image`` with which a steerable graph decides by itself; none for others."""
        given = {}
        for value in self._session.get_inputs():
            if value.name == "window":
                height, width = images.shape[1:3] if images.dtype == np.uint8 else images.shape[2:4]
                given["window"] = np.ones((len(images), 1, height, width), np.float32)
            elif value.name in ("held", "hold"):
                given[value.name] = np.zeros((len(images), value.shape[1]), np.float32)
        return given

    def _refused(self, error: Exception) -> GraphError:
        return GraphError(f"ONNX Runtime does not run {self._what}: {first_line(error)}")


def run_graph(graph: bytes | str | os.PathLike[str], images: Image | Pixels) -> dict[str, NDArray[Any]]:
    """One run of a graph: all its outputs by name for ``images``. Raises as ``GraphSession``."""
    return GraphSession(graph).run(images)
