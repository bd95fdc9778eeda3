"""A fake machine with a GPU and TensorRT, and engine files for it."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import pytest
from conftest import thin_graph

from measnet.engine_file import EngineFacts, write_engine
from measnet.export.graph import read_graph
from measnet.image import to_image
from measnet.runtime.backends import Inference
from measnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from measnet.runtime.backends.tensorrt import TensorRTBackend
from measnet.weights import bundled

from .fake_gpu import NAME, TENSORRT, FakeGpu, make_plan

ROOT = Path(__file__).parents[2]
SMALL = ((1, 3, 128, 128), (1, 3, 128, 160), (1, 3, 192, 256))
"""The range of ``image`` that an engine takes: frames of up to 192x256, one by one."""

LARGE = ((1, 3, 256, 256), (1, 3, 256, 256), (2, 3, 256, 288))

FACTS = EngineFacts(
    graph_sha256="ab" * 32,
    graph={},
    calibration_sha256="",
    profiles=(),
    settings={},
    measnet_version="0.1.0",
    flavour="tensorrt",
    flavour_version=TENSORRT,
    compute_capability="8.9",
    gpu=NAME,
    driver="580.1",
    cuda="13.0",
)
"""Of an engine that was built for the fake machine."""


class Bench:
    """A fake machine, and engine files for it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.gpu = FakeGpu()
        self.gpu.install(monkeypatch)
        self.opened: list[TensorRTBackend] = []
        self.leaks: set[str] = set()

    def engine(
        self, profiles: Sequence[Any] = (SMALL,), *, content: bytes | None = None, **facts: Any
    ) -> Path:
        """An engine file of a graph, for these shapes of ``image``."""
        path = self.folder / f"{len(list(self.folder.iterdir()))}.engine"
        write_fake_engine(path, content or thin(), profiles, **facts)
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
        if not self.gpu.lost:
            assert self.gpu.alive().keys() <= self.leaks
            assert not self.gpu.last_error, "the next who asks is told of our error"
        self.gpu.handles.clear()  # steps that were never done keep what they would use
        assert not self.gpu.contexts and not self.gpu.engines


def write_fake_engine(path: Path, content: bytes, profiles: Sequence[Any], **facts: Any) -> None:
    """Writes an engine of a graph, for these ranges of ``image``; ``facts`` that it says otherwise."""
    model = onnx.load_model_from_string(content)
    inputs = tuple(_of_every_input(model.graph.input, shapes) for shapes in profiles)
    known = replace(FACTS, graph={e.key: e.value for e in model.metadata_props}, profiles=inputs)
    write_engine(path, replace(known, **facts), make_plan(content, inputs))


@functools.cache
def thin() -> bytes:
    """A graph that hardly computes."""
    return thin_graph().content


@functools.cache
def nano() -> bytes:
    return read_graph(bundled("nano", ".onnx")).content


def _of_every_input(inputs: Sequence[Any], shapes: Any) -> dict[str, Any]:
    """The ranges of all inputs by name, from those of the first, ``image``."""
    names = [side.dim_param or side.dim_value for side in inputs[0].type.tensor_type.shape.dim]
    ranges: dict[str, Any] = {}
    for value in inputs:
        sides = [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        known = [dict(zip(names, shape, strict=True)) for shape in shapes]
        ranges[value.name] = tuple(tuple(found.get(side, side) for side in sides) for found in known)
    return ranges


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    with Bench(tmp_path, monkeypatch).clean() as made:
        yield made


@pytest.fixture(scope="module")
def frames() -> list[np.ndarray]:
    """Frames of the sample clip, 192x256, uint8."""
    with av.open(str(ROOT / "examples" / "car-park.mp4")) as clip:
        return [
            frame.to_ndarray(format="rgb24")[40:232, 60:316]
            for frame in itertools.islice(clip.decode(video=0), 4)
        ]


Exact = Callable[[np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Exact:
    """Restores a batch with the thin graph on the ONNX Runtime backend, to compare with."""
    path = tmp_path_factory.mktemp("thin") / "thin.onnx"
    path.write_bytes(thin())
    return _on_onnxruntime(path)


@pytest.fixture(scope="module")
def exact_nano() -> Exact:
    return _on_onnxruntime(bundled("nano", ".onnx"))


def _on_onnxruntime(graph: Path) -> Exact:
    backend = OnnxRuntimeBackend(graph, threads=1)
    backend.activate()
    return lambda image: backend.infer(image).restored


@pytest.fixture(scope="module")
def small(frames: list[np.ndarray], exact: Exact) -> tuple[np.ndarray, np.ndarray]:
    """The smallest image that nano takes, and what becomes of it."""
    image = to_image(frames[0][:128, :128])
    return image, exact(image)


def same(a: Inference, restored: np.ndarray) -> None:
    assert np.abs(a.restored - restored).max() < 1e-5
