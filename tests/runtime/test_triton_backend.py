"""The Triton backend against a server built on the client's own protobufs, which computes the real graph."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from ports import free_port

from measnet import BackendError, GraphError, Restorer, UsageError
from measnet.description import GraphDescription
from measnet.errors import MissingPackageError
from measnet.image import Image
from measnet.runtime import cli
from measnet.runtime.backends import Inference, Steering
from measnet.runtime.backends.onnxruntime import OnnxRuntimeBackend
from measnet.runtime.backends.triton import ServedModel, TritonBackend
from measnet.runtime.live.events import Events
from measnet.runtime.serve.cameras import read_cameras
from measnet.runtime.serve.service import Service
from measnet.weights import bundled

from .conftest import MakeClip, decode

pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
from measnet.export.camera_bytes import camera_graph
from measnet.export.graph import Graph, read_graph
from measnet.export.triton import write_repository

from .cameras_file import write
from .protobuf_server import ProtobufServer, serving
from .test_serve import sender


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundled network as planes, as camera bytes in BGR, steerable, and steerable with camera bytes."""
    folder = tmp_path_factory.mktemp("graphs")
    plain, steerable = bundled("nano", ".onnx"), bundled("nano", ".steerable.onnx")
    paths = {
        "nano": plain,
        "steered": steerable,
        "bytes": folder / "bytes.onnx",
        "both": folder / "both.onnx",
    }
    camera_graph(read_graph(plain), channel_order="bgr").write(paths["bytes"])
    model = onnx.load(steerable)
    known = GraphDescription.from_metadata({e.key: e.value for e in model.metadata_props}, "nano")
    camera_graph(Graph.of(model, known), channel_order="rgb").write(paths["both"])
    return paths


@pytest.fixture(scope="module")
def repository(graphs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model repository that ``measnet-export triton`` writes of them."""
    folder = tmp_path_factory.mktemp("models")
    for name, graph in graphs.items():
        write_repository(graph, folder, max_batch=2).rename(folder / name)
        text = (folder / name / "config.pbtxt").read_text()
        (folder / name / "config.pbtxt").write_text(
            text.replace(f'name: "{graph.stem}"', f'name: "{name}"', 1)
        )
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[ProtobufServer]:
    with serving(repository) as server:
        yield server


@pytest.mark.parametrize(
    ("model", "shares"),
    [("nano", True), ("nano", False), ("bytes", True), ("steered", False), ("both", True), ("both", False)],
)
def test_results_are_those_of_onnx_runtime_bit_for_bit(
    model: str, shares: bool, graphs: dict[str, Path], repository: Path, noisy_picture: np.ndarray
) -> None:
    with serving(repository, shares=shares) as server:
        there = Restorer(model, server.address)
        here = Restorer(str(graphs[model]), "onnxruntime-cpu", threads=1)
        with there, here:
            assert there.description["transport"] == ("shared memory" if shares else "gRPC")
            for pixels in (noisy_picture, noisy_picture[:70, :, ::-1], noisy_picture.astype(np.uint16) * 257):
                ours, theirs = there.restore(pixels), here.restore(pixels)
                assert np.array_equal(ours.image, theirs.image)
                for kind in ("pixel_experts", "image_experts"):
                    ours_kind, theirs_kind = (getattr(one.choices[0], kind) for one in (ours, theirs))
                    assert ours_kind.dtype == theirs_kind.dtype and np.array_equal(ours_kind, theirs_kind)
                assert np.array_equal(ours.prompt_weights[0], theirs.prompt_weights[0])
            assert there.steerable == here.steerable == (model in ("steered", "both"))
        assert server.pictures_sent == (0 if shares else 3)


def test_decisions_are_taken_from_outside(
    server: ProtobufServer, graphs: dict[str, Path], noisy_picture: np.ndarray
) -> None:
    with (
        Restorer("steered", server.address, tile=128) as there,
        Restorer(str(graphs["steered"]), "onnxruntime-cpu", tile=128, threads=1) as here,
    ):
        ours, theirs = there.restore(noisy_picture), here.restore(noisy_picture)
        assert ours.tiles > 1 and np.array_equal(ours.image, theirs.image)
        assert ours.decisions is not None and np.array_equal(ours.decisions, theirs.decisions)


def test_the_server_says_what_the_model_is(server: ProtobufServer) -> None:
    with Restorer("nano", f"{server.address}/bytes") as restorer:
        facts = restorer.description
    with Restorer("nano") as bundled_one:
        assert facts["weights_sha256"] == bundled_one.description["weights_sha256"]
    assert (facts["backend"], facts["version"], facts["provider"]) == (
        "triton",
        "0.0-protobufs",
        "onnxruntime_onnx",
    )
    assert (facts["served"], facts["io"], facts["server"]) == (
        "bytes",
        "uint8-nhwc",
        f"127.0.0.1:{server.port}",
    )


def test_more_pictures_than_a_batch_may_have_are_asked_for_in_parts(
    server: ProtobufServer, graphs: dict[str, Path]
) -> None:
    images = np.random.default_rng(5).random((5, 3, 128, 128), np.float32)
    there, here = (
        TritonBackend(ServedModel.parse(server.address), "nano"),
        OnnxRuntimeBackend(graphs["nano"], 1),
    )
    there.activate()
    here.activate()
    try:
        ours = there.infer(images)
        for index in range(len(images)):
            alone = here.infer(images[index : index + 1]).restored[0]
            assert np.allclose(ours.restored[index], alone, atol=1e-5)
        assert len(ours.restored) == 5 and ours.prompt_weights is not None and len(ours.prompt_weights) == 5
    finally:
        there.deactivate()
        here.deactivate()


def test_many_threads_have_requests_under_way_at_once(
    repository: Path, graphs: dict[str, Path], noisy_picture: np.ndarray
) -> None:
    pictures = [np.roll(noisy_picture, shift, axis=1) for shift in range(4)]
    with (
        serving(repository) as server,
        Restorer("nano", server.address) as there,
        Restorer(str(graphs["nano"]), threads=1) as here,
    ):
        server.hold.set()
        with ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(there, picture) for picture in pictures]
            try:
                server.wait_for_requests(4)
            finally:
                server.hold.clear()
            restored = [one.result(60) for one in asked]
        assert server.together == 4
        for picture, result in zip(pictures, restored, strict=True):
            assert np.array_equal(result, here(picture))


def test_cameras_have_requests_under_way_at_once(repository: Path, tmp_path: Path) -> None:
    sources = [f"tcp://127.0.0.1:{free_port()}" for _ in range(2)]
    with serving(repository) as server, sender(sources[0]), sender(sources[1]):
        listed = [
            {"name": f"cam{index}", "source": url, "sinks": [str(tmp_path / f"{index}.mkv")], "frames": 2}
            for index, url in enumerate(sources)
        ]
        path = write(tmp_path / "cameras.yaml", listed, backend=f"{server.address}/steered", temporal=0)
        service = Service(read_cameras(path), Events())
        server.hold.set()
        running = threading.Thread(target=service.run, args=(threading.Event(),), daemon=True)
        running.start()
        try:
            server.wait_for_requests(2)
        finally:
            server.hold.clear()
        running.join(60)
        assert not running.is_alive() and server.together == 2
    for report in service.reports:
        assert (report.frames, report.engine["backend"]) == (2, "triton")
        assert report.engine["steady"] == pytest.approx(0.9)  # the graph can be steered, over there as here


def served(server: ProtobufServer, **seconds: float) -> TritonBackend:
    return TritonBackend(ServedModel.parse(server.address), "nano", **seconds)


def test_shared_memory_is_given_back(repository: Path, noisy_picture: np.ndarray) -> None:
    ours = Path("/dev/shm")
    with serving(repository) as server:
        with Restorer("nano", server.address) as restorer:
            restorer(noisy_picture)
            assert any(path.name.startswith("measnet-") for path in ours.iterdir())
        assert not server._memory
    assert not [path for path in ours.iterdir() if path.name.startswith("measnet-")]


@pytest.mark.parametrize("shares", [True, False], ids=["shared memory", "gRPC"])
def test_a_server_that_comes_back_in_time_costs_no_frame(
    shares: bool, repository: Path, noisy_picture: np.ndarray
) -> None:
    first = ProtobufServer(repository, shares=shares)
    with Restorer(backend=served(first, away=60.0)) as restorer:
        expected = restorer(noisy_picture)
        first.stop()
        back: list[ProtobufServer] = []

        def come_back() -> None:
            time.sleep(0.5)
            back.append(ProtobufServer(repository, port=first.port, shares=shares))

        thread = threading.Thread(target=come_back)
        thread.start()
        try:
            assert np.array_equal(restorer(noisy_picture), expected)
        finally:
            thread.join()
            back[0].stop()


def test_a_server_that_goes_away_is_one_line(repository: Path, noisy_picture: np.ndarray) -> None:
    server = ProtobufServer(repository)
    with Restorer(backend=served(server, away=0.3)) as restorer:
        restorer(noisy_picture)
        server.stop()
        with pytest.raises(
            BackendError, match=f"at 127.0.0.1:{server.port} has not answered for 0.3 s"
        ) as caught:
            restorer(noisy_picture)
    assert "\n" not in str(caught.value)


def test_a_server_that_does_not_answer_in_time_is_one_line(
    repository: Path, noisy_picture: np.ndarray
) -> None:
    with serving(repository) as server, Restorer(backend=served(server, patience=0.3)) as restorer:
        server.hold.set()
        with pytest.raises(BackendError, match="Deadline Exceeded"):
            restorer(noisy_picture)
        server.hold.clear()


def run(*arguments: object, engine: Callable[[], Restorer] | None = None) -> tuple[int, str]:
    opens = None if engine is None else lambda options: engine()
    result = CliRunner().invoke(cli.main, [*map(str, arguments)], obj=opens)
    return result.exit_code, " ".join(result.stderr.split())


def test_a_video_is_restored_as_with_the_same_graph_here(
    server: ProtobufServer, graphs: dict[str, Path], clip: MakeClip, tmp_path: Path
) -> None:
    source = clip("clip.mp4", seconds=0.3)
    common = ["--threads", "1", "--preset", "veryfast"]
    there, here = tmp_path / "there.mkv", tmp_path / "here.mkv"
    assert run(source, "-o", there, "--backend", f"{server.address}/steered", *common)[0] == 0
    assert run(source, "-o", here, "--model", graphs["steered"], *common)[0] == 0
    assert np.array_equal(decode(there), decode(here))


def test_when_the_server_goes_away_the_bundled_weights_go_on_here(
    repository: Path, clip: MakeClip, tmp_path: Path
) -> None:
    class Stopping(TritonBackend):
        """Its server goes away before the third frame."""

        def __init__(self, server: ProtobufServer) -> None:
            super().__init__(ServedModel.parse(server.address), "nano", away=0.2)
            self._server, self._asked = server, 0

        def infer(self, images: Image, steering: Steering | None = None) -> Inference:
            self._asked += 1
            if self._asked == 3:
                self._server.stop()
            return super().infer(images, steering)

    server = ProtobufServer(repository)
    arguments = [clip("clip.mp4", seconds=0.3), "--backend", server.address, "--preset", "veryfast"]
    there = partial(Restorer, backend=Stopping(server))
    status, said = run(*arguments, "-o", tmp_path / "out.mp4", engine=there)
    assert status == 0 and "frame 2 came back wrong" in said
    assert said.endswith("from there on onnxruntime in float32 restored")
    assert (tmp_path / "out.mp4").exists()
    with serving(repository) as server:
        arguments[2] = server.address
        there = partial(Restorer, backend=Stopping(server))
        status, said = run(*arguments, "-o", tmp_path / "stopped.mp4", "--on-fault", "stop", engine=there)
        assert status == 1 and f"the Triton server at 127.0.0.1:{server.port} has not answered" in said
        assert not (tmp_path / "stopped.mp4").exists()


def test_a_model_that_the_server_has_not_is_refused_with_those_that_it_has(
    server: ProtobufServer, clip: MakeClip, tmp_path: Path
) -> None:
    status, said = run(clip("c.mp4"), "-o", tmp_path / "x.mp4", "--backend", f"{server.address}/nnao")
    assert status == 2
    assert (
        "has no model nnao that is ready; it serves both, bytes, nano, steered; name one: triton://" in said
    )
    assert list(tmp_path.iterdir()) == []


def test_nobody_there_is_one_line(clip: MakeClip, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        status, said = run(clip("c.mp4"), "-o", tmp_path / "x.mp4", "--backend", f"triton://{place}")
    assert status == 2 and f"no Triton server answers at {place}" in said


def test_a_model_of_others_is_refused(repository: Path, tmp_path: Path) -> None:
    text = (repository / "nano" / "config.pbtxt").read_text()
    others = "\n".join(line for line in text.splitlines() if not line.startswith("parameters"))
    home = tmp_path / "theirs"
    (home / "1").mkdir(parents=True)
    (home / "1" / "model.onnx").symlink_to(repository / "nano" / "1" / "model.onnx")
    (home / "config.pbtxt").write_text(others)
    with serving(tmp_path) as server, pytest.raises(GraphError, match=r"the model theirs .* has no MEASNet"):
        Restorer("theirs", server.address)


@pytest.mark.parametrize(
    ("text", "host", "port", "model"),
    [
        ("triton://gpu1:8001/nano-dynamic.bytes", "gpu1", 8001, "nano-dynamic.bytes"),
        ("triton://gpu1", "gpu1", 8001, None),
        ("triton://[::1]:9/my%20nano", "::1", 9, "my nano"),
    ],
)
def test_addresses(text: str, host: str, port: int, model: str | None) -> None:
    assert ServedModel.parse(text) == ServedModel(host, port, model)


@pytest.mark.parametrize(
    "text",
    [
        "triton://",
        "triton://h:port",
        "triton://h:99999",
        "triton://h/a/b",
        "triton://h/a?b=1",
        "triton://u:secret@h",
    ],
)
def test_an_address_that_cannot_be_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(UsageError, match="triton://HOST:PORT/MODEL") as caught:
        ServedModel.parse(text)
    assert "secret" not in str(caught.value)


def test_without_its_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tritonclient.grpc", None)
    with pytest.raises(MissingPackageError, match=r"measnet\[triton\]"):
        Restorer("nano", "triton://127.0.0.1:1")
