"""Network -> exact graph: traces the export form of a network."""

from __future__ import annotations

import ast
import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import onnx

from measnet.checkpoint import weights_sha256
from measnet.config import MEASNetConfig
from measnet.decision_layout import DecisionLayout
from measnet.description import GraphDescription
from measnet.errors import UsageError
from measnet.export.build_settings import LARGEST_BATCH
from measnet.export.decomposition import decomposed_in_place, promoted_in_place
from measnet.export.exact import ExactMEASNet
from measnet.export.graph import Graph, read_graph
from measnet.image import LARGEST_SIDE
from measnet.network import MEASNet
from measnet.network.decisions import layout_of
from measnet.onnx_file import read_metadata
from measnet.weights import at_hand, bundled

OPSET = 20  # has Gelu; TensorRT's parser and ONNX Runtime both take it


def exact_graph(network: MEASNet, size: tuple[int, int] | None, *, steerable: bool = False) -> Graph:
    """The float32 graph of ``network``, checked, for any batch.

    ``size`` is the (height, width) of the frames it is for, in pixels, fitted to the network's size rule;
    None makes a graph for every size. A ``steerable`` one takes and returns image-level decisions
    (``measnet/decision_layout.py``). Bundled weights are not traced for every size: that graph is bundled.

    Raises ``UsageError`` for a size out of range.
    """
    if size is None and (ready := _bundled_graph(network, steerable)) is not None:
        return ready
    return traced_graph(network, size, steerable=steerable)


def traced_graph(network: MEASNet, size: tuple[int, int] | None, *, steerable: bool = False) -> Graph:
    """As ``exact_graph``, but traced in any case."""
    if size is not None:
        if not all(1 <= side <= LARGEST_SIDE for side in size):
            raise UsageError(f"a size of {size[0]}x{size[1]} pixels is not within 1 to {LARGEST_SIDE}")
        size = network.config.size_rule.fit(*size)
    description = GraphDescription(
        config=network.config,
        weights_sha256=weights_sha256(network),
        static_size=size,
        versions=tuple((name, version(name)) for name in ("measnet", "torch", "onnx", "onnxscript")),
        steerable=steerable,
        decisions=layout_of(network) if steerable else DecisionLayout(),
        task_prompts=network.task_prompts,
        taught=network.taught,
    )
    model = _traced(ExactMEASNet(network, static_size=size, steerable=steerable), network.config, size)
    _name_nodes(model)
    _name_dimensions(model)
    _strip(model)
    graph = Graph.of(model, description)
    onnx.checker.check_model(graph.model, full_check=True)
    return graph


def _bundled_graph(network: MEASNet, steerable: bool) -> Graph | None:
    """The graph that comes with bundled weights, known by their hash; None of any others."""
    suffix = ".steerable.onnx" if steerable else ".onnx"
    wanted = (weights_sha256(network), network.config, None)
    for name in at_hand(suffix):
        path = bundled(name, suffix)
        if read_metadata(path).get("measnet.weights_sha256") != wanted[0]:
            continue
        graph = read_graph(path)
        found = graph.description
        if (found.weights_sha256, found.config, found.static_size) == wanted:
            # In the words of this version, which may be later than the graph.
            return graph.become(graph.model, decisions=layout_of(network) if steerable else DecisionLayout())
    return None


def _traced(exact: ExactMEASNet, config: MEASNetConfig, size: tuple[int, int] | None) -> onnx.ModelProto:
    import torch._dynamo.config  # a second; bundled graphs are not traced

    rule = config.size_rule
    batch = torch.export.Dim("batch", min=1, max=LARGEST_BATCH)
    dynamic: dict[int, object] = {0: batch}
    if size is None:
        cells = {"min": rule.minimum // rule.multiple, "max": LARGEST_SIDE // rule.multiple}
        dynamic[2] = rule.multiple * torch.export.Dim("height_cells", **cells)
        dynamic[3] = rule.multiple * torch.export.Dim("width_cells", **cells)
    # Two unequal sides, so that nothing is taken for equal that is not.
    height, width = size or (rule.fit(rule.minimum * 2, 0)[0], rule.minimum * 3)
    example = [torch.rand(2, 3, height, width)]
    shapes: dict[str, dict[int, object]] = {"image": dynamic}
    if exact.steered is not None:
        numbers = exact.steered.layout.size
        example += [torch.ones(2, 1, height, width), torch.zeros(2, numbers), torch.zeros(2, numbers)]
        shapes |= {"window": dynamic, "held": {0: batch}, "hold": {0: batch}}
    # Shapes with symbols in them are hardly met twice: to keep and compare them takes longer than it spares.
    uncached = torch._dynamo.config.patch(fake_tensor_cache_enabled=False)
    with (
        _quiet(),
        _without_places(),
        rules_by_operator(),
        decomposed_in_place(),
        promoted_in_place(),
        uncached,
    ):
        program = torch.onnx.export(
            exact,
            tuple(example),
            dynamo=True,
            input_names=exact.input_names,
            output_names=exact.output_names,
            dynamic_shapes=shapes,
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


@contextlib.contextmanager
def rules_by_operator() -> Iterator[None]:
    """Has onnxscript's optimiser try a rule only at nodes of the operator that its pattern ends in: it finds
    nothing at others. As it is where onnxscript keeps its patterns elsewhere."""
    from onnxscript.rewriter import pattern

    rules: Any = pattern.RewriteRule
    anew = rules.try_rewrite

    def try_rewrite(rule: Any, model: Any, graph: Any, node: Any, **options: Any) -> Any:
        if rule not in ends:
            last = getattr(getattr(rule, "_target_pattern", None), "output_nodes", [None])[0]
            ends[rule] = last.op_identifier() if last is not None else None
        if ends[rule] not in (None, node.op_identifier()):
            return None
        return anew(rule, model, graph, node, **options)

    ends: dict[Any, Any] = {}
    rules.try_rewrite = try_rewrite
    try:
        yield
    finally:
        rules.try_rewrite = anew


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """Has torch not note which lines each operator comes from: nothing of that is kept."""
    import torch.fx.config

    name = "do_not_emit_stack_traces"
    if not hasattr(torch.fx.config, name):  # in earlier PyTorch
        yield
        return
    before = getattr(torch.fx.config, name)
    setattr(torch.fx.config, name, True)
    try:
        yield
    finally:
        setattr(torch.fx.config, name, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter speaks of its own insides, on every channel there is; none of it is for the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _name_nodes(model: onnx.ModelProto) -> None:
    """Names each node by the module it comes from, ``encoder1.0.attention.qkv/Conv``."""
    taken: Counter[str] = Counter()
    for node in model.graph.node:
        scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "[]")
        modules = [m for m in ast.literal_eval(scopes)[:-1] if m.startswith("network")]
        module = modules[-1].removeprefix("network").removeprefix(".") if modules else ""
        name = f"{module or 'measnet'}/{node.op_type}"
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"


def _name_dimensions(model: onnx.ModelProto) -> None:
    """Gives free dimensions plain names in place of the tracer's."""
    names = {
        "image": ("batch", None, "height", "width"),
        "window": ("batch", None, "height", "width"),
        "restored": ("batch", None, "height", "width"),
        "pixel_experts": ("batch", None, "stem_height", "stem_width"),
    }
    for value in (*model.graph.input, *model.graph.output):
        for dimension, name in zip(
            value.type.tensor_type.shape.dim, names.get(value.name, ("batch",)), strict=False
        ):
            if name is not None and not dimension.HasField("dim_value"):
                dimension.dim_param = name
    del model.graph.value_info[:]  # inner shapes, in the tracer's symbols; every reader infers its own


def _strip(model: onnx.ModelProto) -> None:
    """Removes the tracer's notes (stack traces with this machine's paths among them)."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    model.producer_name = "measnet"
    model.producer_version = version("measnet")
