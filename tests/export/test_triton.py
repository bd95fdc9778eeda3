"""The Triton repository: its configuration is what Triton's own protobuf takes, and fits the graph."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from google.protobuf import text_format

from measnet.errors import GraphError, OutputError, UsageError
from measnet.export.triton import write_repository
from measnet.weights import bundled

try:
    from tritonclient.grpc.model_config_pb2 import ModelConfig
except ModuleNotFoundError:  # pragma: no cover
    pytest.skip("tritonclient[grpc] is not installed", allow_module_level=True)


def test_the_configuration_fits_the_graph(tmp_path: Path) -> None:
    home = write_repository(bundled("nano", ".onnx"), tmp_path, max_batch=4, instances=2)
    assert home == tmp_path / "nano"
    assert (home / "1" / "model.onnx").read_bytes() == bundled("nano", ".onnx").read_bytes()
    config = text_format.Parse((home / "config.pbtxt").read_text(), ModelConfig())
    assert (config.name, config.platform, config.max_batch_size) == ("nano", "onnxruntime_onnx", 4)
    graph = onnx.load(str(home / "1" / "model.onnx")).graph
    assert [value.name for value in config.input] == [value.name for value in graph.input] == ["image"]
    assert [value.name for value in config.output] == [value.name for value in graph.output]
    assert list(config.input[0].dims) == [3, -1, -1]
    types = {value.name: value.data_type for value in config.output}
    assert types["restored"] == config.input[0].data_type != types["pixel_experts"]
    assert config.instance_group[0].count == 2
    assert list(config.dynamic_batching.preferred_batch_size) == [2, 4]
    (warm_up,) = config.model_warmup
    assert list(warm_up.inputs["image"].dims) == [3, 256, 256] and warm_up.inputs["image"].random_data


def test_a_batch_of_one_asks_for_no_batching_sizes(tmp_path: Path) -> None:
    home = write_repository(bundled("nano", ".onnx"), tmp_path, max_batch=1)
    config = text_format.Parse((home / "config.pbtxt").read_text(), ModelConfig())
    assert not config.dynamic_batching.preferred_batch_size


def test_a_name_with_signs_stays_one_name(tmp_path: Path) -> None:
    strange = tmp_path / 'my "best" nano.onnx'
    strange.write_bytes(bundled("nano", ".onnx").read_bytes())
    home = write_repository(strange, tmp_path / "repository")
    config = text_format.Parse((home / "config.pbtxt").read_text(), ModelConfig())
    assert config.name == home.name == 'my "best" nano'


def test_what_cannot_be_served_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not a graph")
    with pytest.raises(GraphError):
        write_repository(tmp_path / "x.onnx", tmp_path / "repository")
    with pytest.raises(UsageError, match="at least 1"):
        write_repository(bundled("nano", ".onnx"), tmp_path, max_batch=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the model repository"):
        write_repository(bundled("nano", ".onnx"), tmp_path / "file")
