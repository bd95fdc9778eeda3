"""Each program of examples/ does what it says, against the programs that it is for."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from ports import free_port

from measnet import Restorer
from measnet.export.cli import main as export
from measnet.metrics import psnr
from measnet.testing import FakeFrames, FakeRestorer

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
LIMIT = 90.0
"""Seconds after which a test has failed rather than the machine been slow."""

NONE: Mapping[str, str] = {}

HEADERS = [Path("/usr/include/onnxruntime"), Path("/usr/local/include/onnxruntime")]
DEBIANS_GI = Path("/usr/lib/python3/dist-packages/gi")
HEIGHT, WIDTH = 64, 98  # rows of 294 bytes: GStreamer pads them


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} not on PATH")


def ask(
    *words: object, given: bytes | None = None, variables: Mapping[str, str] = NONE
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.run(
        [*map(str, words)],
        input=given,
        capture_output=True,
        env=environment,
        timeout=LIMIT,
        check=False,
        cwd=ROOT,
    )


def run(*words: object, given: bytes | None = None, variables: Mapping[str, str] = NONE) -> bytes:
    done = ask(*words, given=given, variables=variables)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def wait_for(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen"
        time.sleep(0.02)


@contextlib.contextmanager
def program(*words: object, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    running = subprocess.Popen(
        [*map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, cwd=ROOT
    )
    try:
        yield running
    finally:
        running.kill()
        running.communicate()


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24").view(np.uint8) for frame in video.decode(video=0)]


def noisy(frames: FakeFrames) -> bytes:
    """Numbered frames with noise, RGB."""
    whole = np.stack(list(frames))
    noise = np.random.default_rng(0).normal(0, 20, whole.shape)
    return (whole + noise).clip(0, 255).astype(np.uint8).tobytes()


def check_restored(found: np.ndarray, source: np.ndarray) -> None:
    """Tells a frame that was restored, and coded, from one that was not."""
    with Restorer("nano") as restorer:
        restored = restorer(source)
    assert psnr(found, restored, peak=255) > max(25, psnr(found, source, peak=255) + 3)


@pytest.fixture(scope="module")
def raw() -> bytes:
    return noisy(FakeFrames(4, HEIGHT, WIDTH))


@pytest.fixture(scope="module")
def restored(raw: bytes) -> bytes:
    """The same as Restorer gives them back."""
    with Restorer("nano") as restorer:
        return restorer(np.frombuffer(raw, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)).tobytes()


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graphs")
    done = CliRunner().invoke(export, ["--no-verify", "--io", "uint8-nhwc", "-o", str(folder)])
    assert done.exit_code == 0, done.output
    return folder / "nano-dynamic.bytes.onnx"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy, numbered frames, ten seconds of them."""
    path = tmp_path_factory.mktemp("clips") / "numbered.mp4"
    taken = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "96x64", "-r", "10", "-i", "-"]
    coded = ["-c:v", "libx264", "-preset", "ultrafast", "-crf", "12", "-g", "5", "-pix_fmt", "yuv420p"]
    run("ffmpeg", "-v", "error", *taken, *coded, path, given=noisy(FakeFrames(100)))
    return path


# Commands as the README has them


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> Path:
    """A repository with files as the README speaks of."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "examples").symlink_to(EXAMPLES)
    (folder / "src").symlink_to(ROOT / "src")
    (folder / ".venv").symlink_to(sys.prefix)
    cv2.imwrite(str(folder / "noisy.png"), FakeFrames(1).frame(0))
    run("ffmpeg", "-v", "error", "-t", "0.4", "-i", clip, "-c", "copy", folder / "in.mp4")
    run("ffmpeg", "-v", "error", "-i", folder / "in.mp4", "-c:v", "libvpx", folder / "in.webm")
    return folder


def script_with(word: str) -> str:
    scripts = re.findall(
        r"^```sh\n(.*?)^```$", (EXAMPLES / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (found,) = [script for script in scripts if word in script]
    return str(found)


def run_script(script: str, desk: Path, **variables: str) -> None:
    here = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **variables}
    run("sh", "-euc", f"cd {desk}\n{script}", variables=here)


# OpenCV


def camera_loop() -> ModuleType:
    spec = importlib.util.spec_from_file_location("camera_loop", EXAMPLES / "camera_loop.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs("ffmpeg")
def test_the_camera_loop_shows_newer_and_newer_frames(clip: Path, tmp_path: Path) -> None:
    loop = camera_loop()
    slow = FakeRestorer("bgr", seconds=0.05)  # slower than the file is read: frames are passed over
    frames = loop.restore(loop.opened(str(clip)), slow, str(tmp_path / "out.mp4"))
    numbers = [FakeFrames.number_of(255 - frame) for frame in frames_of(tmp_path / "out.mp4")]
    shown = list(dict.fromkeys(numbers))
    assert numbers == sorted(numbers) and shown[-1] == 99
    assert 0 < len(shown) < 100 and frames == slow.figures.frames


@needs("ffmpeg")
def test_the_camera_loop_restores_a_stream_until_it_is_interrupted(clip: Path, tmp_path: Path) -> None:
    address = f"udp://127.0.0.1:{free_port()}"
    target = tmp_path / "out.mp4"
    sends = ["ffmpeg", "-v", "error", "-re", "-stream_loop", "-1", "-i", clip, "-c", "copy"]
    sends += ["-f", "mpegts", f"{address}?pkt_size=1316"]
    shows = [sys.executable, EXAMPLES / "camera_loop.py", address, target]
    # What a shell runs in the background ignores Ctrl-C, and so would what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with program(*sends), program(*shows) as loop:
        signal.signal(signal.SIGINT, before)
        wait_for(lambda: loop.poll() is not None or target.exists(), "a restored frame")
        time.sleep(0.5)  # for some more; one is enough
        loop.send_signal(signal.SIGINT)
        said, complaints = loop.communicate(timeout=LIMIT)
    assert loop.returncode == 0 and b"frames restored" in said, complaints.decode()
    sources, found = frames_of(clip), frames_of(target)
    assert found
    for frame in found[::10]:
        check_restored(frame, sources[FakeFrames.number_of(frame)])


def test_the_camera_loop_says_what_it_cannot_open(tmp_path: Path) -> None:
    done = ask(sys.executable, EXAMPLES / "camera_loop.py", tmp_path / "none.mp4", "out.mp4")
    assert done.returncode == 1 and b"none.mp4 cannot be opened" in done.stderr
    assert b"Traceback" not in done.stderr


# Pipes


@needs("ffmpeg", "sh")
def test_pictures_and_files_are_restored_by_the_readmes_commands(desk: Path) -> None:
    run_script(script_with("restore_frames.py"), desk)
    with Restorer("nano", channel_order="bgr") as restorer:
        found, source = cv2.imread(str(desk / "restored.png")), cv2.imread(str(desk / "noisy.png"))
        assert np.array_equal(found, restorer(source))
    before, after = frames_of(desk / "in.mp4"), frames_of(desk / "restored.mp4")
    assert len(before) == len(after) == 4
    check_restored(after[2], before[2])
    assert frames_of(desk / "seen.mp4")


@needs("ffmpeg", "sh")
def test_two_ffmpegs_keep_the_sound(tmp_path: Path) -> None:
    source, target = tmp_path / "in.mp4", tmp_path / "out.mp4"
    made = ["-f", "lavfi", "-i", "testsrc2=s=96x64:r=10:d=0.3", "-f", "lavfi", "-i", "sine=d=0.3"]
    run("ffmpeg", "-v", "error", *made, source)
    run_script(f"sh {EXAMPLES}/pipe.sh {source} {target}", tmp_path)
    with av.open(str(target)) as video:
        assert [stream.type for stream in video.streams] == ["video", "audio"]


def test_the_smallest_onnxruntime_program_gives_what_restorer_gives(
    graph: Path, raw: bytes, restored: bytes
) -> None:
    program = EXAMPLES / "restore_bytes.py"
    assert run(sys.executable, program, graph, f"{HEIGHT}x{WIDTH}", given=raw) == restored


# C++


@needs("cmake", "c++")
@pytest.mark.skipif(not any(map(Path.exists, HEADERS)), reason="ONNX Runtime's C++ headers are not here")
def test_the_cpp_program_gives_what_restorer_gives(
    desk: Path, graph: Path, raw: bytes, restored: bytes, tmp_path: Path
) -> None:
    (desk / "graphs").symlink_to(graph.parent)
    script = script_with("cmake")
    run_script(script.replace("measnet-export --io uint8-nhwc -o graphs/\n", ""), desk)  # done before
    assert len(frames_of(desk / "out.mp4")) == 4
    program = desk / "build" / "restore"
    assert run(program, graph, str(HEIGHT), str(WIDTH), given=raw) == restored
    wrong = ask(program, tmp_path / "none.onnx", "64", "98")
    assert wrong.returncode == 1 and b"none.onnx" in wrong.stderr


# GStreamer


def gstreamer_is_here(*elements: str) -> bool:
    compiled = f"_gi.cpython-{sys.version_info.major}{sys.version_info.minor}-*"
    if not any(DEBIANS_GI.glob(compiled)) or shutil.which("gst-inspect-1.0") is None:
        return False
    return all(ask("gst-inspect-1.0", "--exists", element).returncode == 0 for element in elements)


@pytest.fixture(scope="module")
def gstreamer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for GStreamer's Python and for the registry of its plugins: to find them all takes seconds."""
    folder = tmp_path_factory.mktemp("gstreamer")
    (folder / "gi").mkdir()
    (folder / "gi" / "gi").symlink_to(DEBIANS_GI)
    return folder


@pytest.fixture
def paths(gstreamer: Path) -> dict[str, str]:
    """Environment in which GStreamer's Python finds our packages, and ours finds GStreamer."""
    ours = [path for path in sys.path if path and Path(path).is_dir()]
    return {
        "PYTHONPATH": os.pathsep.join([str(gstreamer / "gi"), str(ROOT / "src"), *ours]),
        "GST_REGISTRY": str(gstreamer / "registry"),
    }


@pytest.fixture
def source(raw: bytes, tmp_path: Path) -> str:
    """A pipeline's beginning that gives the frames."""
    rows = np.frombuffer(raw, np.uint8).reshape(-1, WIDTH * 3)
    (tmp_path / "in.rgb").write_bytes(np.pad(rows, ((0, 0), (0, 2))).tobytes())
    parse = f"rawvideoparse format=rgb width={WIDTH} height={HEIGHT} framerate=10/1"
    return f"filesrc location={tmp_path / 'in.rgb'} ! {parse}"


def without_padding(path: Path) -> bytes:
    return np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, WIDTH * 3 + 2)[:, : WIDTH * 3].tobytes()


HAS_GSTREAMER = pytest.mark.skipif(
    not gstreamer_is_here("appsink", "rawvideoparse"),
    reason="GStreamer with PyGObject for this Python is not here",
)
PLUGIN_LOADER_IS_HERE = HAS_GSTREAMER.args == (False,) and ask("gst-inspect-1.0", "python").returncode == 0


@HAS_GSTREAMER
def test_a_gstreamer_pipeline_is_restored(
    source: str, restored: bytes, paths: dict[str, str], tmp_path: Path
) -> None:
    pipeline = EXAMPLES / "gstreamer" / "pipeline.py"
    sink = f"video/x-raw,format=RGB ! filesink location={tmp_path / 'out.rgb'}"
    run(sys.executable, pipeline, source, sink, variables=paths)
    assert without_padding(tmp_path / "out.rgb") == restored
    run(
        sys.executable,
        pipeline,
        source,
        f"jpegenc ! matroskamux ! filesink location={tmp_path / 'out.mkv'}",
        variables=paths,
    )
    with av.open(str(tmp_path / "out.mkv")) as video:
        times = [frame.time for frame in video.decode(video=0)]
    assert times == pytest.approx([0, 0.1, 0.2, 0.3], abs=1e-3)


@HAS_GSTREAMER
@pytest.mark.parametrize("word", ["pipeline.py", "gst-launch-1.0"])
def test_gstreamer_is_used_as_the_readme_says(word: str, desk: Path, paths: dict[str, str]) -> None:
    if word == "gst-launch-1.0" and not PLUGIN_LOADER_IS_HERE:
        pytest.skip("GStreamer's loader of Python elements is not here")
    (desk / "out.webm").unlink(missing_ok=True)
    run_script(script_with(word).replace("PYTHONPATH=", "PYTHONPATH=$PYTHONPATH:"), desk, **paths)
    assert len(frames_of(desk / "out.webm")) == 4


@HAS_GSTREAMER
@pytest.mark.parametrize(
    ("source", "sink", "message"),
    [
        ("filesrc location=/none ! decodebin", "fakesink", b"Resource not found"),
        ("videotestsrc num-buffers=9", "filesink location=/none/out", b"/none/out"),
        ("nosuchelement", "fakesink", b"nosuchelement"),
    ],
)
def test_a_gstreamer_pipeline_that_fails_ends_with_a_line(
    source: str, sink: str, message: bytes, paths: dict[str, str]
) -> None:
    done = ask(sys.executable, EXAMPLES / "gstreamer" / "pipeline.py", source, sink, variables=paths)
    assert done.returncode == 1 and message in done.stderr and b"Traceback" not in done.stderr


@HAS_GSTREAMER
@pytest.mark.skipif(not PLUGIN_LOADER_IS_HERE, reason="GStreamer's loader of Python elements is not here")
def test_the_gstreamer_element_restores(
    source: str, restored: bytes, paths: dict[str, str], tmp_path: Path
) -> None:
    paths["GST_PLUGIN_PATH"] = str(EXAMPLES / "gstreamer")
    words = [*source.split(), *f"! measnet ! filesink location={tmp_path / 'out.rgb'}".split()]
    run("gst-launch-1.0", "-q", *words, variables=paths)
    assert without_padding(tmp_path / "out.rgb") == restored
    words[words.index("measnet")] = "measnet model=giant"
    wrong = ask("gst-launch-1.0", *" ".join(words).split(), variables=paths)
    assert wrong.returncode != 0 and b"the model 'giant' is neither" in wrong.stderr


# RTSP


@contextlib.contextmanager
def rtsp_server(*words: object, **variables: str) -> Iterator[str]:
    """The address that a server of ours prints."""
    with program(sys.executable, *words, **variables) as server:
        assert server.stdout is not None
        address = server.stdout.readline().decode().strip()
        assert address.startswith("rtsp://127.0.0.1:"), server.communicate()[1].decode()
        yield address


@HAS_GSTREAMER
@pytest.mark.skipif(
    not gstreamer_is_here("rtspsrc", "h264parse", "avdec_h264", "x264enc", "rtph264pay")
    or not any(Path("/usr/lib").glob("*/girepository-1.0/GstRtspServer-1.0.typelib")),
    reason="GstRtspServer, or GStreamer's elements for H.264, are not here",
)
def test_a_camera_is_served_restored_by_rtsp(clip: Path, paths: dict[str, str]) -> None:
    camera, server = Path(__file__).parent / "rtsp_camera.py", EXAMPLES / "gstreamer" / "rtsp.py"
    with rtsp_server(camera, clip, **paths) as source, rtsp_server(server, source, "0", **paths) as address:
        options = {"rtsp_transport": "tcp", "analyzeduration": "500000"}
        with av.open(address, options=options, timeout=LIMIT) as stream:
            frames = (frame.to_ndarray(format="rgb24").view(np.uint8) for frame in stream.decode(video=0))
            # One that lost packets on a busy machine has no number that was sent.
            whole = (frame for frame in frames if FakeFrames.number_of(frame) < 100)
            found = list(itertools.islice(whole, 3))
    numbers = [FakeFrames.number_of(frame) for frame in found]
    assert len(numbers) == 3 and numbers == sorted(set(numbers))
    check_restored(found[0], frames_of(clip)[numbers[0]])


# ROS 2


def test_a_ros_node_restores_the_pictures_of_a_topic(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="ROS 2 is not here")
    camera, node = Path(__file__).parent / "ros_camera.py", EXAMPLES / "ros2" / "restore_node.py"
    noise = np.random.default_rng(0).integers(60, 190, (40, 54, 3), np.uint8)
    sources = {"rgb8": noise, "bgr8": noise[::-1], "mono8": noise[..., 0]}
    np.savez(tmp_path / "sources.npz", allow_pickle=False, **sources)
    alone = {"ROS_DOMAIN_ID": str(os.getpid() % 100), "ROS_LOCALHOST_ONLY": "1"}
    with program(sys.executable, node, **alone) as running:
        run(sys.executable, camera, tmp_path / "sources.npz", tmp_path / "found.npz", variables=alone)
        running.send_signal(signal.SIGINT)
        assert running.wait(LIMIT) == 0
    found = np.load(tmp_path / "found.npz")
    with Restorer("nano") as restorer:
        assert np.array_equal(found["rgb8"], restorer(sources["rgb8"]))
        assert np.array_equal(found["bgr8"], restorer(sources["bgr8"][..., ::-1])[..., ::-1])
        grey = restorer(cv2.cvtColor(sources["mono8"], cv2.COLOR_GRAY2RGB))
        assert np.array_equal(found["mono8"], cv2.cvtColor(grey, cv2.COLOR_RGB2GRAY))


# The web


@pytest.fixture(scope="module")
def service() -> Iterator[int]:
    """The port that the web service listens on."""
    pytest.importorskip("fastapi")
    pytest.importorskip("python_multipart")
    port = free_port()
    with program(sys.executable, EXAMPLES / "web_service.py", str(port)) as server:

        def answers() -> bool:
            assert server.poll() is None, server.communicate()[1].decode()
            with contextlib.suppress(OSError):
                return upload(port, b"", "/figures") is not None
            return False

        wait_for(answers, "an answer")
        yield port


def upload(port: int, picture: bytes, path: str = "/restore") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT)
    mark = b"--a-mark-that-is-in-no-picture"
    field = b'Content-Disposition: form-data; name="picture"; filename="x.png"'
    body = b"\r\n".join([mark, field, b"", picture, mark + b"--", b""])
    kind = {"Content-Type": f"multipart/form-data; boundary={mark[2:].decode()}"}
    try:
        connection.request("POST" if path == "/restore" else "GET", path, body, kind)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_picture_that_is_uploaded_comes_back_restored(
    service: int, depth: type[np.uint8 | np.uint16]
) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(depth).max, (50, 60, 3), depth)
    status, answer = upload(service, cv2.imencode(".png", pixels)[1].tobytes())
    assert status == 200
    found = cv2.imdecode(np.frombuffer(answer, np.uint8), cv2.IMREAD_UNCHANGED)
    with Restorer("nano", channel_order="bgr") as restorer:
        assert np.array_equal(found, restorer(pixels))


@needs("curl")
def test_the_readmes_curl_uploads_a_picture(service: int, desk: Path) -> None:
    assert "python examples/web_service.py 8000" in script_with("web_service.txt")
    run_script(script_with("curl").replace("8000", str(service)), desk)
    found, source = cv2.imread(str(desk / "restored.png")), cv2.imread(str(desk / "noisy.png"))
    with Restorer("nano", channel_order="bgr") as restorer:
        assert np.array_equal(found, restorer(source))


@pytest.mark.parametrize("size", [None, 0, 8000])
def test_what_is_no_picture_is_refused_by_the_web_service(service: int, size: int | None) -> None:
    picture = b"no picture"
    if size is not None:
        picture = cv2.imencode(".png", np.zeros((size, size, 3), np.uint8))[1].tobytes() if size else b""
    status, answer = upload(service, picture)
    assert status == 415 and b"50000000 pixels" in answer
