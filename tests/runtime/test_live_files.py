"""Recordings and playlists of live streams: playable at any moment, in parts, on disks that fill."""

from __future__ import annotations

import functools
import http.server
import os
import re
import shutil
import signal
import subprocess
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from ports import free_port, is_up

from measnet.errors import OutputError
from measnet.runtime.live.watch import Watch
from measnet.runtime.sinks.hls import LISTED, HlsSink
from measnet.runtime.sinks.parts import PartsSink
from measnet.runtime.sinks.patient import PatientSink
from measnet.runtime.sinks.video import VideoSink
from measnet.runtime.stream import Pace, run

from .conftest import IDENTITY_COMMAND, Each, MakeClip, probe
from .live_camera import GENEROUS, PATIENT, ULTRAFAST, Camera, send, wait_for
from .test_live import mpegts_over_tcp, open_when_up, process


def test_a_playlist_of_a_live_stream_slides_and_is_read_from_any_web_server(tmp_path: Path) -> None:
    camera = Camera(150, fps=5)
    (tmp_path / "cam.00007.ts").write_bytes(b"of an earlier run")
    target = tmp_path / "cam.m3u8"
    handler = functools.partial(Quiet, directory=str(tmp_path))
    sink = HlsSink(target, camera.info, ULTRAFAST)
    try:
        run(camera, (Each(),), sink, pace=Pace(4))
        playlist = target.read_text()
        assert "ENDLIST" not in playlist and playlist.count("#EXTINF") == LISTED
        assert len(list(tmp_path.glob("cam.*.ts"))) <= LISTED + 2
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            serving = threading.Thread(target=server.serve_forever)
            serving.start()
            try:
                sink.finish()
                command = [
                    "ffprobe",
                    "-v",
                    "error",
                    "-count_frames",
                    "-show_entries",
                    "stream=nb_read_frames",
                ]
                url = f"http://127.0.0.1:{server.server_address[1]}/cam.m3u8"
                read = subprocess.check_output([*command, "-of", "csv=p=0", url], timeout=GENEROUS)
            finally:
                server.shutdown()
                serving.join()
    finally:
        sink.abort()
    assert int(read.split()[0].strip(b",")) >= (LISTED - 1) * 10
    assert not (tmp_path / "cam.00007.ts").exists()


def test_a_browser_plays_a_playlist_from_any_web_server(tmp_path: Path) -> None:
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not installed")
    version = subprocess.check_output([browser, "--version"], stderr=subprocess.DEVNULL, text=True)
    if int(re.search(r"\d+", version)[0]) < 142:
        pytest.skip("chromium plays playlists by itself from version 142 on")
    camera = Camera(60)
    send(camera, HlsSink(tmp_path / "cam.m3u8", camera.info, ULTRAFAST))
    (tmp_path / "index.html").write_text(
        "<video src=cam.m3u8 muted autoplay onerror='fetch(`/error-${this.error.message}`)' "
        "ontimeupdate='if (this.currentTime > 1) fetch(`/shown-${this.videoWidth}`)'></video>"
    )
    asked: list[str] = []

    class Listening(Quiet):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    handler = functools.partial(Listening, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
        command += ["--autoplay-policy=no-user-gesture-required", f"--user-data-dir={tmp_path}/profile"]
        try:
            with process(*command, f"http://127.0.0.1:{server.server_address[1]}/"):
                wait_for(lambda: any(path.startswith(("/shown", "/error")) for path in asked))
        finally:
            server.shutdown()
            serving.join()
    assert "/shown-160" in asked, asked


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def test_live_files_can_be_played_after_kill_9(tmp_path: Path) -> None:
    port = free_port()
    picture = ["-re", "-f", "lavfi", "-i", "testsrc2=s=160x96:r=20", "-f", "lavfi", "-i", "sine"]
    codecs = ["-c:v", "libx264", "-preset", "ultrafast", "-g", "10", "-bf", "0", "-c:a", "aac"]
    url = f"tcp://127.0.0.1:{port}"
    names = ["yard.mp4", "yard.mov", "yard.mkv", "yard.ts"]
    outs = [word for name in names for word in ("-o", str(tmp_path / name))]
    growing = [tmp_path / f"{name}.part" for name in names]
    with process("ffmpeg", "-v", "quiet", *picture, *codecs, "-f", "mpegts", f"{url}?listen=1"):
        wait_for(lambda: is_up(port))
        command = [*IDENTITY_COMMAND, "0", url, *outs, "--preset", "ultrafast"]
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            # Of two seconds each; the first may begin late on a busy machine.
            wait_for(lambda: running.poll() is not None or _fragments(growing[0]) > 1)
            os.kill(running.pid, signal.SIGKILL)
        finally:
            running.kill()
            _, complaint = running.communicate()
    for path in growing:
        assert path.exists(), complaint
        played = probe(path)
        assert played.times[-1] - played.times[0] > 1.5 and "audio" in played.kinds, path


def _fragments(path: Path) -> int:
    return path.read_bytes().count(b"moof") if path.exists() else 0


def test_a_live_file_in_parts(tmp_path: Path) -> None:
    camera, target = Camera(100), tmp_path / "yard.mp4"
    sink = PartsSink(target, camera.info, ULTRAFAST, Fraction(4))
    send(camera, sink)
    assert sink.warnings == ["3 parts, the last is yard.0003.mp4"]
    parts = [probe(tmp_path / f"yard.{number:04}.mp4") for number in (1, 2, 3)]
    assert [len(part.times) for part in parts] == [40, 40, 20]
    assert all(part.times[0] == 0 for part in parts)
    again = PartsSink(target, camera.info, ULTRAFAST, Fraction(4))
    send(Camera(3), again)
    assert sorted(path.name for path in tmp_path.iterdir())[-1] == "yard.0004.mp4"
    assert len(list(tmp_path.iterdir())) == 4


def test_sound_is_cut_where_parts_begin(clip: MakeClip, tmp_path: Path) -> None:
    with mpegts_over_tcp(clip("live.mp4", "-g", "5", "-bf", "0", seconds=3.0)) as url:
        live = open_when_up(url)
        sink = PartsSink(tmp_path / "x.mkv", live.info, ULTRAFAST, Fraction(1))
        try:
            run(live, (Each(),), sink, pace=Pace(200))  # a busy machine drops none of them
            sink.finish()
        finally:
            sink.abort()
            live.close()
    for part in (probe(tmp_path / f"x.{number:04}.mkv") for number in (1, 2)):
        sound = [size for kind, _, size in part.copied if kind == "audio"]
        assert 40 <= len(sound) <= 46  # 44100 samples a second, 1024 a packet


def test_a_live_recording_that_fails_keeps_what_had_come(tmp_path: Path) -> None:
    camera = Camera(40)
    sink = VideoSink(tmp_path / "x.mp4", camera.info, ULTRAFAST)

    def broken(pixels: Any) -> Any:
        if pixels[0, 30, 0] == 220:
            raise RuntimeError("the engine broke")
        return pixels

    with pytest.raises(RuntimeError):
        try:
            run(camera, (Each(broken),), sink, pace=Pace(4))
        finally:
            sink.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["x.partial.mp4"]
    assert len(probe(tmp_path / "x.partial.mp4").times) > 5


def test_a_full_disk_ends_that_file_where_it_is_and_no_other(tmp_path: Path) -> None:
    disk, watch, camera = tmp_path / "disk", Watch("yard"), Camera(10_000, pause=0.01, noisy=True)
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small disk can be made here")
    full, fine = disk / "x.mp4", tmp_path / "y.mkv"
    try:
        sinks = [
            PatientSink(path, VideoSink(path, camera.info, ULTRAFAST), watch, waits=PATIENT)
            for path in (full, fine)
        ]
        sending = threading.Thread(target=send, args=(camera, *sinks))
        sending.start()
        wait_for(lambda: any("is lost" in event.words for event in watch.events.recent()))
        before = sinks[1].figures()[0]["frames"]
        wait_for(lambda: sinks[1].figures()[0]["frames"] > before + 10)
        camera.interrupt()
        sending.join(GENEROUS)
        kept = disk / "x.partial.mp4"
        (said,) = [event.words for event in watch.events.recent() if event.kind == "sink"]
        assert "no space left" in said and str(kept) in said and [*disk.iterdir()] == [kept]
        assert len(probe(kept).times) > 1
    finally:
        camera.interrupt()
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert len(probe(fine).times) == sinks[1].figures()[0]["frames"]


def test_a_playlist_on_a_full_disk_fails_on_the_way(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small disk can be made here")
    try:
        camera = Camera(1000, pause=0.01, noisy=True)
        with pytest.raises(OutputError, match=r"no space left while writing .*x\.m3u8"):
            send(camera, HlsSink(tmp_path / "x.m3u8", camera.info, ULTRAFAST))
        assert camera.sent < 1000
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
