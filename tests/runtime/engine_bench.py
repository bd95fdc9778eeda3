"""A fake machine with a GPU and TensorRT, and engine files for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from measnet.engine_file import EngineFacts, write_engine
from measnet.export.graph import read_graph
from measnet.runtime.backends.tensorrt import TensorRTBackend
from measnet.weights import bundled

from . import fake_tensorrt
from .fake_cuda import FakeCuda
from .fake_tensorrt import FakeTensorRT, fake_plan

SMALL = ((1, 3, 128, 128), (1, 3, 128, 160), (1, 3, 192, 256))
"""The range of ``image`` that an engine takes: frames of up to 192x256, one by one."""


class Bench:
    """A fake machine, and engine files for it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.cuda = FakeCuda()
        self.cuda.install(monkeypatch)
        self.trt = FakeTensorRT(self.cuda)
        self.trt.install(monkeypatch)
        self.opened: list[TensorRTBackend] = []
        self.leaks: set[str] = set()

    def engine(
        self, profiles: Sequence[Any] = (SMALL,), *, graph: bytes | None = None, **changes: Any
    ) -> Path:
        """An engine file of the bundled nano, or of ``graph``, for these shapes of ``image``; ``changes`` are
        facts, quirks of the plan, or what the graph says of itself (``graph_says``)."""
        content = graph or read_graph(bundled("nano", ".onnx")).content
        model = onnx.load_model_from_string(content)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        inputs = tuple(_of_every_input(model.graph.input, shapes) for shapes in profiles)
        facts = EngineFacts(
            graph_sha256="ab" * 32,
            graph=metadata,
            calibration_sha256="",
            profiles=inputs,
            settings={},
            measnet_version="0.1.0",
            flavour="tensorrt",
            flavour_version=fake_tensorrt.VERSION,
            compute_capability="8.9",
            gpu="NVIDIA Make-believe 9000",
            driver="580.1",
            cuda="13.0",
        )
        if "graph_says" in changes:
            facts = replace(facts, graph=changes.pop("graph_says"))
        known = {name: changes.pop(name) for name in [*changes] if hasattr(facts, name)}
        path = self.folder / f"{len(list(self.folder.iterdir()))}.engine"
        write_engine(path, replace(facts, **known), fake_plan(content, inputs, **changes))
        return path

    def backend(self, path: Path | None = None) -> TensorRTBackend:
        backend = TensorRTBackend(path or self.engine())
        self.opened.append(backend)
        backend.activate()
        return backend

    @contextlib.contextmanager
    def clean(self) -> Iterator[Bench]:
        """Checks after each test that nothing of it is left on the GPU."""
        yield self
        for backend in self.opened:
            backend.deactivate()
        if self.cuda.sticky is None:
            assert set(self.cuda.alive()) <= self.leaks
        assert self.trt.contexts == 0


def _of_every_input(inputs: Sequence[Any], shapes: Any) -> dict[str, Any]:
    """The ranges of all inputs by name, from those of the first, ``image``."""
    names = [side.dim_param or side.dim_value for side in inputs[0].type.tensor_type.shape.dim]
    ranges: dict[str, Any] = {}
    for value in inputs:
        sides = [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        known = [dict(zip(names, shape, strict=True)) for shape in shapes]
        ranges[value.name] = tuple(tuple(found.get(side, side) for side in sides) for found in known)
    return ranges
