"""``Restorer``: any size in, the same size out, by any backend, whole or in tiles."""

from __future__ import annotations

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import pytest
from conftest import copied_graph

import measnet
from measnet import BackendError, GraphError, Restorer, UsageError
from measnet.checkpoint import save_checkpoint
from measnet.config import VARIANTS
from measnet.export.graph import Graph
from measnet.export.precision import typed_graph
from measnet.metrics import Tolerance, psnr
from measnet.network import MEASNet
from measnet.runtime.memory import available_memory, bytes_per_pixel
from measnet.runtime.parity import Verifier
from measnet.runtime.tiles import OVERLAP, cut, fewest_tiles, restore_tiles, square_tiles
from measnet.weights import bundled


@pytest.fixture(scope="module")
def nano() -> Restorer:
    return Restorer("nano")


def test_the_bundled_weights_take_noise_away(nano: Restorer) -> None:
    rng = np.random.default_rng(5)
    blocks = np.kron(rng.integers(40, 215, (5, 6, 3)), np.ones((32, 32, 1)))
    noisy = np.clip(blocks + rng.normal(0, 25, blocks.shape), 0, 255).astype(np.uint8)
    before = np.mean((noisy - blocks) ** 2)
    after = np.mean((nano(noisy) - blocks) ** 2)
    assert after < before / 4  # 6 dB


def test_the_sample_clip_gains_what_the_readme_says(nano: Restorer) -> None:
    examples = Path(__file__).parents[2] / "examples"
    before, after = [], []
    with av.open(str(examples / "car-park.mp4")) as a, av.open(str(examples / "car-park.clean.mp4")) as b:
        for noisy, clean in itertools.islice(zip(a.decode(video=0), b.decode(video=0), strict=True), 2):
            target = clean.to_ndarray(format="rgb24")
            pixels = noisy.to_ndarray(format="rgb24")
            before.append(psnr(pixels, target, peak=255))
            after.append(psnr(nano(pixels), target, peak=255))
    assert np.mean(after) - np.mean(before) > 9


@pytest.mark.parametrize("size", [(1, 1), (63, 64), (641, 359), (128, 128), (5, 300)])
def test_any_size_comes_back_as_it_went_in(size: tuple[int, int], nano: Restorer) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    restored = nano(pixels)
    assert restored.shape == pixels.shape and restored.dtype == np.uint8


def test_sixteen_bits_come_back_finer_than_eight(nano: Restorer, noisy_picture: np.ndarray) -> None:
    deep = noisy_picture * np.uint16(257)
    restored = nano.restore(deep)
    assert restored.pixels.dtype == np.uint16 and restored.pixels.shape == deep.shape
    exact = restored.image[0].transpose(1, 2, 0).clip(0, 1) * 65535
    assert np.abs(restored.pixels - exact).max() < 0.51
    apart = np.abs((restored.pixels.astype(int) + 128) // 257 - nano(noisy_picture))
    assert apart.max() <= 1 and apart.mean() < 1e-3  # what lies half-way is rounded twice


def test_tiles_of_sixteen_bits_are_blended_in_sixteen_bits() -> None:
    tiled = Restorer("nano", tile=128)
    rng = np.random.default_rng(0)
    deep = rng.integers(0, 65536, (130, 180, 3), np.uint16)
    restored = tiled.restore(deep)
    assert restored.tiles == 4 and restored.pixels.dtype == np.uint16
    assert len(np.unique(restored.pixels)) > 256


def test_sixteen_bits_are_verified_as_they_are(nano: Restorer, noisy_picture: np.ndarray) -> None:
    verifier = Verifier(nano)
    deep = np.minimum(noisy_picture, 254) * np.uint16(257) + np.uint16(100)
    parity = verifier.check(deep, nano.restore(deep))
    verifier.close()
    assert parity.psnr_db > 100 and verifier.figures["passed"]


def test_the_input_is_left_alone(nano: Restorer, noisy_picture: np.ndarray) -> None:
    before = noisy_picture.copy()
    nano(noisy_picture)
    assert (noisy_picture == before).all()


def test_bgr_is_rgb_the_other_way_round(nano: Restorer, noisy_picture: np.ndarray) -> None:
    bgr = Restorer("nano", channel_order="bgr")
    assert (bgr(noisy_picture[:, :, ::-1])[:, :, ::-1] == nano(noisy_picture)).all()


def test_onnxruntime_and_torch_agree_on_the_bundled_weights(
    nano: Restorer, noisy_picture: np.ndarray
) -> None:
    network = Restorer("nano", backend="torch")
    assert nano.description["backend"] == "onnxruntime"
    assert network.description["backend"] == "torch"
    assert nano.description["weights_sha256"] == network.description["weights_sha256"]
    a, b = nano.restore(noisy_picture), network.restore(noisy_picture)
    assert np.abs(a.image - b.image).max() < 1e-4
    assert (a.choices[0].pixel_experts == b.choices[0].pixel_experts).mean() > 0.999


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((8, 8, 3), np.float32), "uint8"),
        (np.zeros((8, 8), np.uint8), "shape"),
        (np.zeros((8, 8, 4), np.uint8), "shape"),
        (np.zeros((0, 8, 3), np.uint8), "shape"),
        ("picture.png", "uint8"),
    ],
    ids=["float", "grey", "alpha", "empty", "name"],
)
def test_anything_but_a_uint8_rgb_picture_is_refused(pixels: Any, message: str, nano: Restorer) -> None:
    with pytest.raises(UsageError, match=message):
        nano(pixels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "giant"}, "neither one of"),
        ({"model": "base"}, "no bundled weights called 'base'"),
        ({"backend": "abacus"}, "no backend 'abacus'"),
        ({"channel_order": "hsv"}, "must be 'rgb' or 'bgr'"),
        ({"tile": 16}, "too small"),
        ({"tile": "128"}, "tile is '128', must be 'auto', 'off' or"),
        ({"tile": 128.5}, "tile is 128.5, must be"),
        ({"threads": 0}, "threads is 0, must be"),
        ({"threads": "two"}, "threads is 'two', must be"),
        ({"memory": 4}, "memory is 4, must be a number of bytes"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Restorer(**arguments)  # type: ignore[arg-type]


def test_a_checkpoint_runs_without_exporting_it(tmp_path: Path, noisy_picture: np.ndarray) -> None:
    save_checkpoint(MEASNet(VARIANTS["nano"]), tmp_path / "mine.safetensors")
    restorer = Restorer(str(tmp_path / "mine.safetensors"))
    assert restorer.description["backend"] == "torch"
    assert restorer(noisy_picture).shape == noisy_picture.shape
    with pytest.raises(UsageError, match="export one with: measnet-export "):
        Restorer(str(tmp_path / "mine.safetensors"), backend="onnxruntime")


def edited_graph(path: Path, edit: Callable[[onnx.ModelProto], object]) -> str:
    model = onnx.load(bundled("nano", ".onnx"))
    edit(model)
    Graph.described(model).write(path)
    return str(path)


def test_an_onnx_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="has no MEASNet description"):
        Restorer(edited_graph(tmp_path / "x.onnx", lambda m: m.ClearField("metadata_props")))
    (tmp_path / "y.onnx").write_bytes(b"not a graph")
    with pytest.raises(GraphError, match="not a sound ONNX file"):
        Restorer(str(tmp_path / "y.onnx"))
    (tmp_path / "z.onnx").write_bytes(bundled("nano", ".onnx").read_bytes()[:100_000])
    with pytest.raises(GraphError, match="not a sound ONNX file"):
        Restorer(str(tmp_path / "z.onnx"))


def test_a_graph_with_nan_in_its_weights_is_refused(tmp_path: Path) -> None:
    def poison(model: onnx.ModelProto) -> None:
        weight = next(t for t in model.graph.initializer if "output.weight" in t.name)
        values = onnx.numpy_helper.to_array(weight).copy()
        values[0, 0, 0, 0] = np.nan
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))

    with pytest.raises(GraphError, match="may hold NaN"):
        Restorer(edited_graph(tmp_path / "x.onnx", poison))


def test_a_frame_larger_than_a_static_graph_says_what_to_do(
    tmp_path: Path, noisy_picture: np.ndarray
) -> None:
    def declare_static(model: onnx.ModelProto) -> None:
        for entry in model.metadata_props:
            if entry.key == "measnet.size":
                entry.value = "128x128"

    restorer = Restorer(edited_graph(tmp_path / "x.onnx", declare_static))
    with pytest.raises(UsageError, match="--shape 96x136 or --dynamic"):
        restorer(noisy_picture)
    assert restorer(noisy_picture[:, :100]).shape == (96, 100, 3)
    tiled = Restorer(str(tmp_path / "x.onnx"), tile=128)
    assert tiled(noisy_picture).shape == noisy_picture.shape


def test_a_closed_restorer_says_so(noisy_picture: np.ndarray) -> None:
    with Restorer("nano") as restorer:
        restorer(noisy_picture)
    restorer.close()
    for use in (
        lambda: restorer(noisy_picture),
        lambda: list(restorer.stream([noisy_picture])),
        lambda: restorer.restore(noisy_picture, apart=True),
        lambda: restorer.description,
        lambda: asyncio.run(restorer.restore_async(noisy_picture)),
    ):
        with pytest.raises(BackendError, match=r"this Restorer was closed.*make another"):
            use()


def test_tiles_are_counted_and_nearly_invisible(nano: Restorer) -> None:
    rng = np.random.default_rng(2)
    blocks = np.kron(rng.integers(40, 215, (6, 8, 3)), np.ones((50, 50, 1)))
    pixels = np.clip(blocks + rng.normal(0, 15, blocks.shape), 0, 255).astype(np.uint8)
    whole, tiled = nano.restore(pixels), Restorer("nano", tile=192).restore(pixels)
    assert (whole.tiles, tiled.tiles) == (1, 6)
    assert psnr(whole.image, tiled.image) > 38


@pytest.mark.parametrize("side", [(300, 500), (1080, 1920), (129, 4000), (2160, 3840)])
@pytest.mark.parametrize("area", [20_000, 100_000, 1_000_000])
def test_planned_tiles_cover_the_picture_within_the_area(side: tuple[int, int], area: int) -> None:
    height, width = side
    tiles = fewest_tiles(height, width, area, VARIANTS["nano"].size_rule)
    covered = np.zeros(side, bool)
    for tile in tiles:
        assert tile.height * tile.width <= area or len(tiles) == 1
        covered[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] = True
    assert covered.all()
    tops = sorted({tile.top for tile in tiles})
    assert all(b - a <= tiles[0].height - OVERLAP for a, b in itertools.pairwise(tops))


def test_blending_identical_tiles_gives_the_picture_back() -> None:
    image = np.random.default_rng(0).random((1, 3, 200, 333), np.float32)
    tiles = square_tiles(200, 333, 128, VARIANTS["nano"].size_rule)
    assert len(tiles) == 3 * 5
    again = restore_tiles(image.shape, tiles, lambda tile: cut(image, tile))
    assert np.allclose(again, image, atol=1e-6)


def test_the_memory_estimate_grows_with_the_network_and_memory_is_found() -> None:
    sizes = [bytes_per_pixel(VARIANTS[name]) for name in ("nano", "small", "base")]
    assert sizes == sorted(sizes)
    assert available_memory() > 2**24


@pytest.mark.parametrize(
    ("folder", "limit", "used", "cache"),
    [
        (".", "memory.max", "memory.current", "inactive_file"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_a_containers_limit_counts_but_not_what_it_has_read(
    folder: str, limit: str, used: str, cache: str, tmp_path: Path
) -> None:
    place = tmp_path / folder
    place.mkdir(exist_ok=True)
    (place / limit).write_text("9000000\n")
    (place / used).write_text("5000000\n")
    assert available_memory(tmp_path) == 4_000_000
    (place / "memory.stat").write_text(f"anon 12\n{cache} 1000000\n")
    assert available_memory(tmp_path) == 5_000_000
    (place / limit).write_text("max\n")
    assert available_memory(tmp_path) > 2**24


def test_a_picture_too_large_for_the_free_memory_is_tiled(
    noisy_picture: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("measnet.runtime.memory.available_memory", lambda: 10 * 2**20)
    restorer = Restorer("nano")
    large = np.tile(noisy_picture, (3, 3, 1))
    assert restorer.restore(large).tiles > 1
    assert Restorer("nano", tile="off").restore(noisy_picture).tiles == 1


def test_verifying_finds_an_engine_that_strays(nano: Restorer, noisy_picture: np.ndarray) -> None:
    verifier = Verifier(nano)
    verifier.check(noisy_picture, nano.restore(noisy_picture))
    assert verifier.figures["passed"] and verifier.figures["frames"] == 1
    assert verifier.figures["experts_agree"] > 0.999

    other = nano.restore(np.roll(noisy_picture, 9, axis=0))
    verifier.check(noisy_picture, other)
    assert not verifier.figures["passed"]
    assert any("PSNR" in line for line in verifier.figures["breaches"])


def test_verifying_goes_by_all_three_figures(nano: Restorer, noisy_picture: np.ndarray) -> None:
    restored = nano.restore(noisy_picture)
    for tolerance, word in (
        (Tolerance(psnr_db=999, largest_difference=1, experts_agree=0), "PSNR"),
        (Tolerance(psnr_db=0, largest_difference=-1, experts_agree=0), "largest difference"),
        (Tolerance(psnr_db=0, largest_difference=1, experts_agree=1.1), "experts agree"),
    ):
        verifier = Verifier(nano, tolerance=tolerance)
        verifier.check(noisy_picture, restored)
        assert [line.startswith(word) for line in verifier.figures["breaches"]] == [True]


def test_tiled_frames_are_verified_on_the_same_tiles(noisy_picture: np.ndarray) -> None:
    restorer = Restorer("nano", tile=128)
    pixels = np.tile(noisy_picture, (2, 2, 1))
    verifier = Verifier(restorer)
    verifier.check(pixels, restorer.restore(pixels))
    assert verifier.figures["passed"], verifier.figures


def test_a_graph_of_bundled_weights_needs_no_checkpoint_to_be_verified(
    noisy_picture: np.ndarray, tmp_path: Path
) -> None:
    copied_graph("nano", tmp_path / "copied.onnx")
    with Restorer(str(tmp_path / "copied.onnx")) as copied:
        verifier = Verifier(copied)
        verifier.check(noisy_picture, copied.restore(noisy_picture))
    assert verifier.figures["passed"] and verifier.figures["reference"] == "torch"


def test_verifying_against_other_weights_is_refused(nano: Restorer, tmp_path: Path) -> None:
    save_checkpoint(MEASNet(VARIANTS["nano"]), tmp_path / "other.safetensors")
    with pytest.raises(UsageError, match="was not made from"):
        Verifier(nano, str(tmp_path / "other.safetensors"))


def test_running_needs_no_torch_and_verifying_says_that_it_does(tmp_path: Path) -> None:
    code = """
import sys
for name in ("torch", "onnx", "onnxscript", "safetensors"):
    sys.modules[name] = None                      # as if it were not installed
import numpy as np
from measnet import MissingPackageError, Restorer
from measnet.runtime.parity import Verifier
restorer = Restorer("nano")
assert restorer(np.zeros((40, 50, 3), np.uint8)).shape == (40, 50, 3)
try:
    Verifier(restorer)
except MissingPackageError as error:
    assert "pip install 'measnet[train]'" in str(error), error
else:
    raise AssertionError("verified without torch")
"""
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)


def test_without_torch_a_half_precision_graph_is_verified_against_the_bundled_one(tmp_path: Path) -> None:
    typed = typed_graph(onnx.load(bundled("nano", ".onnx")), "fp16").model
    entries = {entry.key: entry.value for entry in typed.metadata_props}
    onnx.helper.set_model_props(typed, entries | {"measnet.precision": "fp16"})
    Graph.described(typed).write(tmp_path / "half.onnx")
    code = """
import sys
for name in ("torch", "onnx", "onnxscript", "safetensors"):
    sys.modules[name] = None                      # as if it were not installed
import numpy as np
from measnet import Restorer
from measnet.runtime.parity import Verifier
restorer = Restorer("half.onnx")
verifier = Verifier(restorer)
frame = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
verifier.check(frame, restorer.restore(frame))
figures = verifier.figures
assert figures["reference"] == "onnxruntime" and figures["passed"], figures
assert figures["psnr_db"] > 55 and figures["largest_difference"] > 0, figures
"""
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)


def test_the_public_face_is_these_names() -> None:
    assert set(measnet.__all__) == {
        *("Restorer", "MEASNet", "MEASNetConfig", "VARIANTS", "load_checkpoint", "save_checkpoint"),
        *("MEASNetError", "UsageError", "InputError", "CheckpointError", "GraphError"),
        *("MissingPackageError", "OutputError", "BackendError", "ParityError"),
    }
    for name in measnet.__all__:
        assert getattr(measnet, name) is not None
