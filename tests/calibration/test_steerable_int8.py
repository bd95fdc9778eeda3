"""Steerable INT8 graphs: the plain INT8 graph while nobody steers, and what is held is followed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from measnet.calibration.cli import Calibrating, main
from measnet.export.pictures import real_pictures, sample_clip
from measnet.image import Image
from measnet.metrics import psnr
from measnet.runtime.backends import Inference, Steering
from measnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from measnet.weights import bundled


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundled nano in INT8, steerable and not, calibrated on the same frames."""
    clip = sample_clip()
    if clip is None:
        pytest.skip("no examples/car-park.mp4 here")
    folder = tmp_path_factory.mktemp("int8")
    wish = ["nano", str(clip), "--limit", "2", "--no-verify", "-o", str(folder)]
    for more in ([], ["--steerable"]):
        result = CliRunner().invoke(main, [*wish, *more], obj=Calibrating(any_size=(128, 160)))
        assert result.exit_code == 0, result.output
    return {kind: folder / f"nano-dynamic.int8{kind}.onnx" for kind in ("", ".steerable")}


def opened(path: Path) -> OnnxRuntimeBackend:
    backend = OnnxRuntimeBackend(path, threads=1)
    backend.activate()
    return backend


def test_the_same_layers_are_int8_with_the_same_scales(made: dict[str, Path]) -> None:
    scales = {}
    for kind, path in made.items():
        model = onnx.load(path)
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        quantising = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
        scales[kind] = sorted(float(constants[node.input[1]]) for node in quantising)
    assert len(scales[""]) == len(scales[".steerable"]) > 20
    assert np.allclose(scales[""], scales[".steerable"], rtol=1e-2)


def test_a_steerable_int8_graph_follows_what_is_held(made: dict[str, Path]) -> None:
    (image, _) = real_pictures(None, 1, 128, 160)
    plain, steerable = opened(made[""]), opened(made[".steerable"])
    exact = opened(bundled("nano", ".steerable.onnx"))
    assert psnr(steerable.infer(image).restored, plain.infer(image).restored) > 45

    def held(backend: OnnxRuntimeBackend, shown: Image) -> Inference:
        own = exact.infer(shown).decisions
        assert own is not None
        return backend.infer(image, Steering(own[0], np.ones_like(own[0])))

    own, foreign = (held(steerable, shown) for shown in (image, image * np.float32(0.5)))
    assert psnr(own.restored, exact.infer(image).restored) > 35
    closer = psnr(foreign.restored, held(exact, image * np.float32(0.5)).restored)
    assert closer > psnr(foreign.restored, own.restored)
