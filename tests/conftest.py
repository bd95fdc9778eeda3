"""Parts that tests share: golden networks, small pictures, and a clock-free way to make them."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from measnet.config import FORMER_VARIANTS

if TYPE_CHECKING:
    from measnet.export.graph import Graph
    from measnet.network import MEASNet

FORMER_NANO = FORMER_VARIANTS["nano"]
"""A small network of transformer blocks."""

GOLDEN = Path(__file__).parent / "data" / "golden"


def golden_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """Every tensor of a released checkpoint, in the authors' names. ``kind`` is tiny or base."""
    stored = json.loads((GOLDEN / f"state_dict_{kind}.json").read_text())
    return {name: tuple(shape) for name, shape in stored.items()}


def golden_state(kind: str) -> dict[str, Any]:
    """The golden weights as a state dict in the authors' names."""
    import torch

    spec = importlib.util.spec_from_file_location("reference_weights", GOLDEN / "reference_weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: torch.from_numpy(value) for name, value in module.fill(golden_shapes(kind)).items()}


def golden_case(name: str) -> tuple[np.ndarray, np.ndarray, int]:
    """A golden image (1 3 H W, 0 to 1), its output (every ``stride``-th pixel, 3 h w) and the stride."""
    case = np.load(GOLDEN / f"{name}.npz")
    image = case["image"][None].astype(np.float32) / np.float32(255)
    output = case["output"]
    return image, output.reshape(output.shape[-3:]), int(case["stride"])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints where the time of a long run went, by the file, since a worker is given whole files."""
    seconds = Counter[str]()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("::")[0]] += report.duration  # type: ignore[assignment]
    if sum(seconds.values()) > 300:
        terminalreporter.section("files that took longest, in seconds")
        for file, taken in seconds.most_common(25):
            terminalreporter.write_line(f"{taken:6.0f}  {file}")


@pytest.fixture(scope="session", autouse=True)
def nothing_is_forced_to_the_disk() -> Iterator[None]:
    """Leaves what tests write to the system's own time: to force it takes milliseconds, nine times a run, and
    only a power cut would tell. Programs that are killed on the way (``killed_run.py``) do force it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def a_network_is_traced_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps what the exporter traces, by weights and size, for all tests and processes of a run: it takes
    five to forty seconds each time, and twice that where torch runs it again to decompose it."""
    if "torch" not in sys.modules:  # no test that was collected exports anything
        yield
        return
    import onnx
    from filelock import FileLock

    from measnet.export import decomposition, trace

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    (folder / "traced").mkdir(exist_ok=True)
    honest, simple = trace._traced, decomposition.is_simple

    def is_simple(*arguments: Any) -> bool:
        assert simple(*arguments), "an operator of our networks is not in decomposition.APART"
        return True

    def traced(exact: Any, config: Any, size: Any) -> Any:
        key = hashlib.sha256(f"{config} {size} {exact.steered is None}".encode())
        for name, tensor in exact.state_dict().items():
            key.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
        path = folder / "traced" / f"{key.hexdigest()}.onnx"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                with pytest.MonkeyPatch.context() as once:
                    once.setattr(decomposition, "is_simple", is_simple)
                    path.write_bytes(honest(exact, config, size).SerializeToString())
        return onnx.load_model_from_string(path.read_bytes())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "_traced", traced)
        yield


@pytest.fixture(scope="session")
def golden_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes the golden weights as the authors' Lightning trainer writes a checkpoint."""
    import torch

    folder = tmp_path_factory.mktemp("golden")

    def write(kind: str) -> Path:
        path = folder / f"{kind}.ckpt"
        if not path.exists():
            state = {f"net.{name}": tensor for name, tensor in golden_state(kind).items()}
            torch.save({"epoch": 3, "global_step": 7, "state_dict": state}, path)
        return path

    return write


@pytest.fixture(scope="session")
def gated_network() -> MEASNet:
    """A narrow gated network in which every part is as loud as in a trained one."""
    import torch

    from measnet.config import VARIANTS
    from measnet.network import MEASNet
    from measnet.network.gated import GatedBlock, Tone
    from measnet.network.pixel_experts import PixelRouter

    torch.manual_seed(2)
    config = replace(VARIANTS["nano"], width=16, blocks=(0, 0, 0, 1), refinement_blocks=0)
    network = MEASNet(config).eval().requires_grad_(False)
    for block in network.modules():
        if isinstance(block, GatedBlock):
            for last in (block.project, block.mix_project, block.scale):
                last.weight.mul_(5)
        elif isinstance(block, Tone):
            torch.nn.init.normal_(block.decide, std=0.05)  # gains of 0.7 to 1.4
            block.followed.copy_(torch.tensor([[0.1], [0.3]]))  # as untrained prompts have shares
        elif isinstance(block, PixelRouter):
            block.scores.mul_(4)
    return network


def copied_graph(name: str, path: Path) -> Path:
    """A copy of the bundled graph of ``name`` under ``path``, with the file of its weights beside it."""
    from measnet.weights import bundled

    shutil.copy(bundled(name, ".safetensors"), path.parent)
    return Path(shutil.copy(bundled(name, ".onnx"), path))


def settled(graph: Graph, height: int, width: int) -> Graph:
    """``graph``, which is for any size, for this one; a trace takes far longer."""
    for value in (*graph.model.graph.input, *graph.model.graph.output):
        for side in value.type.tensor_type.shape.dim:
            if (pixels := {"height": height, "width": width}.get(side.dim_param)) is not None:
                side.dim_value = pixels
    return graph.become(graph.model, static_size=(height, width))


def thin_graph() -> Graph:
    """Takes and returns what the bundled nano does, and hardly computes: TensorRT builds it in a tenth of the
    time, where the network is not the point."""
    from onnx import helper, numpy_helper

    from measnet.export.graph import read_graph
    from measnet.weights import bundled

    nano = read_graph(bundled("nano", ".onnx"))
    sharpen = numpy_helper.from_array(np.full((3, 3, 3, 3), 0.01, np.float32), "stem.weight")
    nodes = [
        helper.make_node("Conv", ["image", "stem.weight"], ["change"], "stem/Conv", pads=[1] * 4),
        helper.make_node("Add", ["image", "change"], ["restored"], "measnet/Add"),
    ]
    graph = helper.make_graph(nodes, "thin", nano.model.graph.input, nano.model.graph.output[:1], [sharpen])
    return nano.become(helper.make_model(graph, opset_imports=nano.model.opset_import, ir_version=10))


@pytest.fixture
def noisy_picture() -> np.ndarray:
    """96 x 136 x 3, uint8: blocks, a slope and noise."""
    rng = np.random.default_rng(3)
    blocks = np.kron(rng.integers(40, 215, (6, 8, 3)), np.ones((16, 17, 1)))
    return np.clip(blocks + rng.normal(0, 20, blocks.shape), 0, 255).astype(np.uint8)
