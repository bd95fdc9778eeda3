"""One run of a graph in ONNX Runtime on the CPU."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from measnet.errors import GraphError, MissingPackageError, first_line
from measnet.image import Image


def run_graph(graph: bytes | str | os.PathLike[str], images: Image) -> dict[str, NDArray[np.generic]]:
    """All outputs by name of a graph (a file or its bytes) for ``images``, B 3 H W.

    Raises ``MissingPackageError`` without ONNX Runtime, ``GraphError`` when it does not run the graph.
    """
    try:
        import onnxruntime as ort
    except ModuleNotFoundError:
        raise MissingPackageError("checking a graph", "onnxruntime", "cpu") from None
    options = ort.SessionOptions()
    options.log_severity_level = 4
    given = graph if isinstance(graph, bytes) else str(graph)
    try:
        session = ort.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(None, {"image": images}), strict=True))
    except Exception as error:  # ONNX Runtime has an exception type per failure, none public
        what = "the graph" if isinstance(graph, bytes) else graph
        raise GraphError(f"ONNX Runtime does not run {what}: {first_line(error)}") from None
