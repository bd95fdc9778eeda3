"""The Triton repository: its configuration is what Triton's own protobuf takes, and fits what it serves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner
from conftest import copied_graph
from full_disk import files_of_at_most
from google.protobuf import text_format

from measnet.description import GraphDescription
from measnet.engine_file import EngineFacts, write_engine
from measnet.errors import EngineError, GraphError, OutputError, UsageError
from measnet.export.camera_bytes import camera_graph
from measnet.export.cli import main
from measnet.export.graph import read_graph
from measnet.export.triton import write_repository
from measnet.weights import bundled

try:
    from tritonclient.grpc.model_config_pb2 import ModelConfig
except ModuleNotFoundError:  # pragma: no cover
    pytest.skip("tritonclient[grpc] is not installed", allow_module_level=True)

NANO = bundled("nano", ".onnx")
ONE_BY_ONE = ((1, 3, 128, 128), (1, 3, 720, 1280), (1, 3, 1088, 1920))


def configured(home: Path) -> Any:
    return text_format.Parse((home / "config.pbtxt").read_text(), ModelConfig())


def facts_of(graph: Path, *profiles: Any, **changes: Any) -> EngineFacts:
    metadata = {entry.key: entry.value for entry in onnx.load(graph).metadata_props}
    known: dict[str, Any] = {
        "graph_sha256": read_graph(graph).sha256,
        "graph": metadata,
        "calibration_sha256": "",
        "profiles": tuple({"image": shapes} for shapes in profiles),
        "settings": {},
        "measnet_version": "0.1.0",
        "flavour": "tensorrt",
        "flavour_version": "10.16.1.11",
        "compute_capability": "8.9",
        "gpu": "NVIDIA Make-believe 9000",
        "driver": "580.1",
        "cuda": "13.0",
    }
    return EngineFacts(**known | changes)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    """An engine file of the bundled graph, whose plan no TensorRT made."""
    path = tmp_path / "nano.trt-sm89.engine"
    write_engine(path, facts_of(NANO, ONE_BY_ONE, ((1, 3, 256, 256),) * 2 + ((4, 3, 256, 256),)), b"plan")
    return path


@pytest.fixture(scope="module")
def bytes_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "nano.bytes-bgr.onnx"
    camera_graph(read_graph(NANO), channel_order="bgr").write(path)
    return path


def test_the_configuration_fits_the_graph(tmp_path: Path) -> None:
    home = write_repository(NANO, tmp_path, max_batch=4, instances=2)
    assert home == tmp_path / "nano"
    assert (home / "1" / "model.onnx").read_bytes() == read_graph(NANO).content
    config = configured(home)
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
    assert list(warm_up.inputs["image"].dims) == [3, 256, 256]
    assert warm_up.inputs["image"].zero_data  # random bytes read as float32 may be NaN


def test_a_graph_for_camera_bytes_is_served_as_such(bytes_graph: Path, tmp_path: Path) -> None:
    home = write_repository(bytes_graph, tmp_path)
    config = configured(home)
    uint8 = config.output[[value.name for value in config.output].index("pixel_experts")].data_type
    for value in (config.input[0], config.output[0]):
        assert value.data_type == uint8 and list(value.dims) == [-1, -1, 3]
    assert list(config.model_warmup[0].inputs["image"].dims) == [256, 256, 3]
    assert "BGR, 0 to 255, H x W x 3; any size" in (home / "config.pbtxt").read_text()


def test_of_an_engine_the_bare_plan_is_served_within_its_profiles(engine: Path, tmp_path: Path) -> None:
    home = write_repository(NANO, tmp_path / "models", engine=engine)
    assert home.name == "nano.trt-sm89"
    assert (home / "1" / "model.plan").read_bytes() == b"plan"
    config = configured(home)
    assert (config.platform, config.max_batch_size) == ("tensorrt_plan", 1)  # the first profile takes one
    assert not config.HasField("dynamic_batching")
    assert list(config.instance_group[0].profile) == ["0", "1"]
    assert list(config.model_warmup[0].inputs["image"].dims) == [3, 720, 1280]
    assert config.output[0].name == "restored"
    with pytest.raises(UsageError, match="built for batches of 1 at most, not 2"):
        write_repository(NANO, tmp_path / "models", engine=engine, max_batch=2)


def test_a_plan_for_batches_is_batched(tmp_path: Path) -> None:
    path = tmp_path / "x.engine"
    write_engine(path, facts_of(NANO, (*ONE_BY_ONE[:2], (6, 3, 1088, 1920))), b"plan")
    config = configured(write_repository(NANO, tmp_path, engine=path))
    assert config.max_batch_size == 6
    assert list(config.dynamic_batching.preferred_batch_size) == [2, 4]
    assert not config.instance_group[0].profile


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flavour": "tensorrt-rtx"}, "is for TensorRT-RTX"),
        ({"graph_sha256": "ab" * 32}, "was not built from nano.onnx"),
        ({"profiles": ({"image": ((2, 3, 128, 128),) * 3},)}, "takes no single frames"),
    ],
)
def test_an_engine_that_cannot_be_served_is_refused(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_engine(tmp_path / "x.engine", facts_of(NANO, ONE_BY_ONE, **changes), b"plan")
    with pytest.raises(UsageError, match=message):
        write_repository(NANO, tmp_path / "models", engine=tmp_path / "x.engine")
    assert not (tmp_path / "models").exists()


def test_a_damaged_engine_is_refused(engine: Path, tmp_path: Path) -> None:
    engine.write_bytes(engine.read_bytes()[:-1])
    with pytest.raises(EngineError):
        write_repository(NANO, tmp_path / "models", engine=engine)


def test_a_batch_of_one_asks_for_no_batching(tmp_path: Path) -> None:
    assert not configured(write_repository(NANO, tmp_path, max_batch=1)).HasField("dynamic_batching")


def test_a_name_with_signs_stays_one_name(tmp_path: Path) -> None:
    strange = copied_graph("nano", tmp_path / 'my "best" nano.onnx')
    home = write_repository(strange, tmp_path / "repository")
    assert configured(home).name == home.name == 'my "best" nano'


def test_what_cannot_be_served_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"not a graph")
    with pytest.raises(GraphError):
        write_repository(tmp_path / "x.onnx", tmp_path / "repository")
    with pytest.raises(UsageError, match="at least 1"):
        write_repository(NANO, tmp_path, max_batch=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write the model repository"):
        write_repository(NANO, tmp_path / "file")


def test_a_model_of_ours_is_replaced_and_anything_else_is_not(tmp_path: Path) -> None:
    home = write_repository(NANO, tmp_path, max_batch=2)
    write_repository(NANO, tmp_path, max_batch=4)
    assert configured(home).max_batch_size == 4
    (home / "2").mkdir()  # somebody's next version
    with pytest.raises(UsageError, match="holds other files than a model of ours"):
        write_repository(NANO, tmp_path, max_batch=8)
    assert configured(home).max_batch_size == 4
    assert [path.name for path in tmp_path.iterdir()] == ["nano"]


def test_a_failure_on_the_way_leaves_what_was_there(tmp_path: Path) -> None:
    home = write_repository(NANO, tmp_path, max_batch=2)
    with files_of_at_most(100_000):
        with pytest.raises(OutputError, match=r"cannot write .*: File too large"):
            write_repository(NANO, tmp_path, max_batch=4)
        with pytest.raises(OutputError):
            write_repository(NANO, tmp_path / "new")
    assert configured(home).max_batch_size == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["nano", "new"]
    assert list((tmp_path / "new").iterdir()) == []


def test_the_command_line_serves_a_graph_and_says_how_to_start(bytes_graph: Path, tmp_path: Path) -> None:
    models = tmp_path / "my models"
    arguments = ["triton", str(bytes_graph), "-o", str(models), "--batch", "2"]
    result = CliRunner().invoke(main, [*arguments, "--instances", "3"])
    assert result.exit_code == 0, result.output
    assert f"-v '{models}:/models'" in result.output and "docker run" in result.output
    config = configured(models / "nano.bytes-bgr")
    assert (config.max_batch_size, config.instance_group[0].count) == (2, 3)


def test_the_command_line_serves_the_plan_of_an_engine(engine: Path, tmp_path: Path) -> None:
    arguments = ["triton", "nano", "--engine", str(engine), "-o", str(tmp_path / "models")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "a release with TensorRT 10.16.1.11" in result.output
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["nano.trt-sm89"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nano", "--instances", "0"], "at least 1"),
        (["nano", "small", "--engine", "x.engine"], "--engine goes with the one graph"),
        (["absent.onnx"], "cannot read absent.onnx"),
    ],
)
def test_a_mistake_ends_in_one_line_before_any_work(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["triton", *arguments, "-o", "models"])
    assert result.exit_code == 2 and message in result.stderr and result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_steerable_graph_is_served_with_all_that_it_takes(tmp_path: Path) -> None:
    config = configured(write_repository(bundled("nano", ".steerable.onnx"), tmp_path))
    assert [value.name for value in config.input] == ["image", "window", "held", "hold"]
    assert {"decisions", "norms"} < {value.name for value in config.output}
    warm_up = config.model_warmup[0].inputs
    assert list(warm_up["window"].dims) == [1, *warm_up["image"].dims[1:]]
    assert list(warm_up["held"].dims) == list(config.input[2].dims) != [-1]


def test_the_graph_is_described_by_the_parameters(bytes_graph: Path, tmp_path: Path) -> None:
    for graph in (NANO, bytes_graph):
        config = configured(write_repository(graph, tmp_path))
        metadata = {name: value.string_value for name, value in config.parameters.items()}
        assert GraphDescription.from_metadata(metadata, "it") == read_graph(graph).description
