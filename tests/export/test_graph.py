"""The graph is the network: ONNX Runtime on the exported file equals the golden outputs and PyTorch."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from conftest import golden_case

from measnet.checkpoint import load_checkpoint, weights_sha256
from measnet.description import GraphDescription
from measnet.errors import GraphError, OutputError, UsageError
from measnet.export.exact import ExactBandSplit
from measnet.export.graph import read_graph
from measnet.export.measure import graph_parity
from measnet.export.pictures import sample_pictures
from measnet.export.trace import exact_graph
from measnet.metrics import FP32_TOLERANCE
from measnet.network import MEASNet
from measnet.network.frequency_block import BandSplit
from measnet.weights import at_hand, bundled


@functools.cache
def session_of(graph: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])


def run(graph: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    session = session_of(graph)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"image": image}), strict=True))


def check_golden(graph: Path, name: str) -> None:
    image, expected, stride = golden_case(name)
    restored = run(graph, image)["restored"][0, :, ::stride, ::stride]
    assert np.abs(restored - expected).max() < 1e-4 * np.ptp(expected)


@pytest.mark.parametrize("name", ["tiny_64x64", "tiny_136x200", "tiny_768x512"])
def test_one_dynamic_graph_equals_the_golden_output_at_every_size(name: str, dynamic_graph: Path) -> None:
    # 768x512 is the case whose frequency mask is not empty.
    check_golden(dynamic_graph, name)


def test_bands_are_split_as_by_a_fourier_transform_where_frequencies_pass_the_mask() -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 4, 256, 384)  # at level 2 of 512x768
    thresholds = torch.tensor(
        [[0.9, 0.4], [0.6, 0.95], [0.2, 0.99]]
    )  # 1 and 1 frequencies, 1 and 2, none and 2
    low, high = BandSplit()(features, thresholds)
    assert [bool(band.abs().max() > 1e-3) for band in low] == [True, True, False]
    for ours, theirs in zip(ExactBandSplit()(features, thresholds), (low, high), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-4)


def test_a_batch_of_different_images_equals_each_image_alone(dynamic_graph: Path) -> None:
    images = sample_pictures(3, 72, 88)
    together = run(dynamic_graph, images)
    for index in range(3):
        alone = run(dynamic_graph, images[index : index + 1])
        difference = np.abs(together["restored"][index] - alone["restored"][0]).max()
        assert difference < 1e-4 * np.ptp(alone["restored"])
        assert (together["image_experts"][index] == alone["image_experts"][0]).all()


def test_other_images_go_to_other_experts(dynamic_graph: Path) -> None:
    rng = np.random.default_rng(0)
    flat = np.full((1, 3, 64, 72), 0.7, np.float32)
    noise = rng.random((1, 3, 64, 72), np.float32)
    dark = noise * np.float32(0.2)
    outputs = [run(dynamic_graph, image) for image in (flat, noise, dark)]
    image_level = {o["image_experts"].tobytes() for o in outputs}
    pixel_level = [np.bincount(o["pixel_experts"].ravel(), minlength=6) for o in outputs]
    assert len(image_level) == 3
    assert not np.array_equal(pixel_level[0], pixel_level[1])
    assert not np.array_equal(pixel_level[1], pixel_level[2])


def test_routing_is_the_networks_own(dynamic_graph: Path, golden_checkpoint: Callable[[str], Path]) -> None:
    network = load_checkpoint(golden_checkpoint("tiny"))
    parity = graph_parity(read_graph(dynamic_graph), network, sample_pictures(2, 72, 104))
    assert parity.breaches(FP32_TOLERANCE) == []


@pytest.mark.parametrize("graph", ["dynamic_graph", "static_graph"])
def test_no_operator_has_a_shape_that_depends_on_data(graph: str, request: pytest.FixtureRequest) -> None:
    model = onnx.load(request.getfixturevalue(graph))
    operators = {node.op_type for node in model.graph.node}
    assert not operators & {"NonZero", "DFT", "STFT", "If", "Loop", "Scan", "Compress", "Unique"}
    assert {node.domain for node in model.graph.node} == {""}
    assert {"TopK", "ScatterElements", "Gather"} <= operators


def test_what_inference_never_uses_is_left_out(static_graph: Path, dynamic_graph: Path) -> None:
    for graph in (static_graph, dynamic_graph):
        tensors = {tensor.name for tensor in onnx.load(graph).graph.initializer}
        assert not any("pixel_experts2" in name or "pixel_experts3" in name for name in tensors)
    # At 136x200 the frequency masks are always empty: no thresholds, no query of zeros.
    names = {node.name for node in onnx.load(static_graph).graph.node}
    assert not any("cutoff" in name or "low_attention.q" in name for name in names)


def test_the_file_says_what_it_is(
    static_graph: Path,
    dynamic_graph: Path,
    published_parts: MEASNet,
    golden_checkpoint: Callable[[str], Path],
) -> None:
    tiny = load_checkpoint(golden_checkpoint("tiny"))
    for graph, network, size in (
        (static_graph, published_parts, (136, 200)),
        (dynamic_graph, tiny, None),
    ):
        metadata = {entry.key: entry.value for entry in onnx.load(graph).metadata_props}
        description = GraphDescription.from_metadata(metadata, str(graph))
        assert description.config == network.config
        assert description.static_size == size
        assert description.weights_sha256 == weights_sha256(network)
        assert dict(description.versions)["torch"] == torch.__version__
        assert "0 to 1" in metadata["measnet.input"] and "RGB" in metadata["measnet.input"]
        assert metadata["measnet.size_rule"] == "multiple of 8, at least 64"


def test_a_graph_holds_no_path_of_the_machine_that_made_it(dynamic_graph: Path) -> None:
    content = dynamic_graph.read_bytes()
    assert b".py" not in content
    assert str(Path(__file__).parents[2]).encode() not in content


def test_a_frame_size_that_is_no_multiple_is_fitted(static_graph: Path) -> None:
    description = GraphDescription.from_metadata(
        {entry.key: entry.value for entry in onnx.load(static_graph).metadata_props}, "x"
    )
    assert description.fit(130, 199) == (136, 200)
    with pytest.raises(UsageError, match="takes 136x200 pixels"):
        description.fit(137, 200)


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"measnet.format": "measnet-graph 99"},
        {"measnet.format": "measnet-graph 1", "measnet.size": "0x8"},
    ],
)
def test_a_graph_without_a_sound_description_is_refused(metadata: dict[str, str]) -> None:
    with pytest.raises(GraphError, match="x\\.onnx"):
        GraphDescription.from_metadata(metadata, "x.onnx")


def test_a_graph_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OutputError, match="cannot make the folder"):
        read_graph(bundled("nano", ".onnx")).write(tmp_path / "file" / "x.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_optimisers_rules_are_tried_at_their_operator_alone_and_find_what_they_found() -> None:
    from onnxscript import optimizer
    from onnxscript.rewriter.pattern import RewriteRule

    from measnet.export.trace import rules_by_operator

    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 20]> g (float[N, 4, 6] x) => (float[N, 6, 4] y) {
            a = Transpose <perm = [0, 2, 1]> (x)
            b = Transpose <perm = [0, 2, 1]> (a)
            c = Cast <to = 1> (b)
            d = Relu (c)
            e = Relu (d)
            y = Transpose <perm = [0, 2, 1]> (e)
        }"""
    )
    before, tried = RewriteRule.match, list[str]()

    def match(rule: Any, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        tried.append(node.op_type)
        return before(rule, model, graph, node, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RewriteRule, "match", match)
        anew, plain = RewriteRule.try_rewrite, optimizer.optimize(model)
        every = len(tried)
        with rules_by_operator():
            ours = optimizer.optimize(model)
        assert 0 < len(tried) - every < every / 5
    assert RewriteRule.try_rewrite is anew
    assert [node.op_type for node in ours.graph.node] == ["Relu", "Transpose"]
    assert ours == plain


def test_graphs_that_are_bundled_load_no_tracer() -> None:
    program = """
import sys
from measnet.checkpoint import load_checkpoint
from measnet.export.make import size_for_any
from measnet.export.options import GraphOptions
from measnet.export.trace import exact_graph
from measnet.weights import at_hand, bundled
GraphOptions.of("nano", (), dynamic=True, steerable=False, io="nchw", channel_order=None, out=None)
for name in at_hand(".onnx"):
    network = load_checkpoint(bundled(name, ".safetensors"))
    exact_graph(network, None), exact_graph(network, None, steerable=True), size_for_any(network)
sys.exit(", ".join({"torch._dynamo", "onnxscript", "sympy"} & set(sys.modules)) or 0)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("steerable", [False, True])
@pytest.mark.parametrize("name", at_hand(".onnx"))
def test_bundled_weights_are_not_traced_for_every_size_but_come_with_their_graph(
    name: str, steerable: bool
) -> None:
    network = load_checkpoint(bundled(name, ".safetensors"))
    graph = exact_graph(network, None, steerable=steerable)
    description, suffix = graph.description, ".steerable.onnx" if steerable else ".onnx"
    assert description.weights_sha256 == weights_sha256(network) and description.static_size is None
    assert {entry.key: entry.value for entry in graph.model.metadata_props} == description.to_metadata()
    assert graph.model.graph == read_graph(bundled(name, suffix)).model.graph
    assert not any(tensor.external_data for tensor in graph.model.graph.initializer)


def test_the_bundled_graph_is_what_the_exporter_writes_today(nano_graph: Path) -> None:
    """When it is not: write it again with python -m measnet.export.bundle (its checkpoint) nano."""
    today, bundle = onnx.load(nano_graph), onnx.load(bundled("nano", ".onnx"))

    def layers(model: onnx.ModelProto) -> set[tuple[str, str]]:
        weighty = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LayerNormalization", "TopK", "Softmax")
        return {(node.op_type, node.name) for node in model.graph.node if node.op_type in weighty}

    assert layers(today) == layers(bundle)
    assert today.opset_import == bundle.opset_import
    assert [output.name for output in today.graph.output] == [output.name for output in bundle.graph.output]
