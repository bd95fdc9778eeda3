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

from measnet.engine_file import EngineFacts, write_engine
from measnet.export.graph import read_graph
from measnet.image import to_image
from measnet.runtime.backends import Inference
from measnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from measnet.runtime.backends.tensorrt import TensorRTBackend
from measnet.weights import bundled

from . import fake_tensorrt
from .fake_cuda import FakeCuda
from .fake_tensorrt import FakeTensorRT, fake_plan

ROOT = Path(__file__).parents[2]
SMALL = ((1, 3, 128, 128), (1, 3, 128, 160), (1, 3, 192, 256))
"""The range of ``image`` that an engine takes: frames of up to 192x256, one by one."""

LARGE = ((1, 3, 256, 256), (1, 3, 256, 256), (2, 3, 256, 288))


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
        content = graph or _nano()
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


@functools.cache
def _nano() -> bytes:
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


@pytest.fixture(scope="module")
def exact() -> Callable[[np.ndarray], Inference]:
    """Restores a batch with the ONNX Runtime backend, to compare with."""
    backend = OnnxRuntimeBackend(bundled("nano", ".onnx"), threads=1)
    backend.activate()
    return backend.infer


@pytest.fixture(scope="module")
def small(frames: list[np.ndarray], exact: Callable[[np.ndarray], Inference]) -> tuple[np.ndarray, Inference]:
    """The smallest image that nano takes, and what becomes of it."""
    image = to_image(frames[0][:128, :128])
    return image, exact(image)


def same(a: Inference, b: Inference) -> None:
    assert np.abs(a.restored - b.restored).max() < 1e-5
    assert a.prompt_weights is not None and b.prompt_weights is not None
    assert np.abs(a.prompt_weights - b.prompt_weights).max() < 1e-5
    for name in ("pixel_experts", "image_experts"):
        assert (getattr(a.choices, name) == getattr(b.choices, name)).mean() > 0.999
