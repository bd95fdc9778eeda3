"""Puts damaged and hostile inputs through the real commands and lists those that end as they should not.

    python bench/mutations.py [--cases 300] [--seed 0] [--only KIND ...] [--keep FOLDER]

Sound videos, pictures, pipes, graphs, checkpoints, engine files and half-finished results are changed in one
place (bench/mutants.py) and handed to measnet-run and measnet-export, each in a process of its own with a
limit of time and of address space; to save the seconds that importing takes, these are forked from this one.

Wrong is: an exit status other than 0, 1 and 2; a traceback, or the line on a fault of this program; no end
within the time; more memory than the limit; a result although the status is not 0; a result that cannot be
read, has not the frames that the report counts, or, where only the model or the half-finished result was
changed, is not the sound one's. Ends with status 1 if anything was.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import importlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a fork must not lose threads

import cv2
import mutants
import numpy as np

SECONDS = 60
ADDRESS_SPACE = 4 << 30  # bytes, without those of the imports
MEMORY = 3 << 29  # bytes, resident, with what the imports take
UNSETTLED = "to be settled"
FAULT = "a fault of this program"


@dataclass
class Template:
    """A sound input, the command that takes it, and what may be changed in it."""

    kind: str
    name: str
    """Of the file that is changed."""
    data: bytes
    command: list[str]
    claims: tuple[mutants.Mutation, ...] = ()
    piped: bool = False
    result: str = ""
    """The file that the command writes, if it writes one."""
    expected: str = ""
    """The digest that every result must have; "" where a changed input changes it."""
    extra: Path | None = None
    """A folder of other files that the command needs."""
    blind: bool = True


@dataclass
class Ending:
    status: int
    text: str
    seconds: float
    memory: int


@dataclass
class Tally:
    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    wrong: int = 0
    slowest: float = 0.0
    memory: int = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="kinds of input, by their names in the table")
    parser.add_argument("--keep", type=Path, help="where the inputs that went wrong are put")
    parser.add_argument("--verbose", action="store_true", help="print what every command said")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = [t for t in templates(folder) if not options.only or t.kind in options.only]
        import_all()
        for template in found:
            settle(template, folder)
        tallies = {template.kind: Tally() for template in found}
        with contextlib.suppress(KeyboardInterrupt):  # trials until then are told
            try_all(found, folder, options, tallies)
    print_table(tallies)
    sys.exit(1 if any(tally.wrong for tally in tallies.values()) else 0)


def try_all(
    found: list[Template], folder: Path, options: argparse.Namespace, tallies: dict[str, Tally]
) -> None:
    kinds: dict[str, list[Template]] = {}
    for template in found:
        kinds.setdefault(template.kind, []).append(template)
    for number in range(options.cases):
        kind = list(kinds)[number % len(kinds)]
        chance = random.Random(f"{options.seed} {number}")
        template = kinds[kind][number // len(kinds) % len(kinds[kind])]
        mutation = chosen(template, chance)
        data = mutation(template.data, chance)
        case = f"{options.seed}/{number} {template.kind} {template.name} {mutation.__name__}"
        place = folder / "case"
        ending = run_on(template, data, place)
        # Whoever writes other claims into a model, and seals it, has made another model.
        other = mutation in template.claims and template.kind in ("ONNX", "checkpoint")
        faults = list(judge(replace(template, expected="") if other else template, ending, place))
        tally = tallies[kind]
        tally.statuses[ending.status] += 1
        tally.wrong += bool(faults)
        tally.slowest = max(tally.slowest, ending.seconds)
        tally.memory = max(tally.memory, ending.memory)
        if faults or options.verbose:
            print(f"{case}: {'; '.join(faults) or ending.status}\n{ending.text[-2000:].rstrip()}", flush=True)
        if faults and options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / f"{options.seed}-{number}-{template.name}").write_bytes(data)
        shutil.rmtree(place)


def chosen(template: Template, chance: random.Random) -> mutants.Mutation:
    if template.claims and (not template.blind or chance.random() < 0.6):
        return chance.choice(template.claims)
    return chance.choice(mutants.BLIND)


def settle(template: Template, folder: Path) -> None:
    """Runs the sound input, which must end well, and notes its result. An engine needs a GPU to do so, and
    an export takes a while."""
    if template.kind == "engine" or not template.blind:
        return
    place = folder / "sound"
    settling, template.expected = bool(template.expected), ""
    ending = run_on(template, template.data, place)
    faults = list(judge(template, ending, place))
    if faults or ending.status:
        sys.exit(
            f"the sound {template.kind} {template.name} ends with {ending.status} {faults}: {ending.text}"
        )
    if settling:
        template.expected = digest(place / template.result)
    shutil.rmtree(place)


def run_on(template: Template, data: bytes, place: Path) -> Ending:
    """The command on ``data``, in the folder ``place``, which is made."""
    if template.extra:
        shutil.copytree(template.extra, place)
    else:
        place.mkdir()
    (place / template.name).write_bytes(data)
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        become(template, place)
    status, used = ended(child, started + SECONDS)
    text = (place / "said").read_text(errors="replace")
    return Ending(status, text, time.monotonic() - started, used)


def become(template: Template, place: Path) -> None:
    """In the fork: the command, from its first line to its exit status."""
    status = 1
    try:
        os.setsid()
        os.chdir(place)
        said = os.open("said", os.O_WRONLY | os.O_CREAT)
        given = os.open(template.name if template.piped else os.devnull, os.O_RDONLY)
        os.dup2(given, 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + ADDRESS_SPACE, taken + ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        main_of(template.command[0])(template.command[1:], prog_name=template.command[0])
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else 1 if exit_.code else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def ended(child: int, deadline: float) -> tuple[int, int]:
    """Exit status (minus a signal's number where one ended it; 124: it had to be ended), and peak resident
    memory in bytes, with what the imports take."""
    while True:
        found, status, used = os.wait4(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), used.ru_maxrss * 1024
        if time.monotonic() > deadline:
            os.killpg(child, signal.SIGKILL)
            os.wait4(child, 0)
            return 124, 0
        time.sleep(0.005)


def judge(template: Template, ending: Ending, place: Path) -> Iterator[str]:
    """Everything that is not as it should be about an ending."""
    if ending.status == 124:
        yield f"no end within {SECONDS} s"
    elif ending.status not in (0, 1, 2):
        yield f"exit status {ending.status}"
    for words in ("Traceback", FAULT):
        if words in ending.text:
            yield words
    if ending.memory > MEMORY:
        yield f"{ending.memory >> 20} MiB"
    if not template.result:
        return
    result = place / template.result
    if ending.status != 0:
        if result.exists():
            yield f"status {ending.status}, and yet there is {template.result}"
        if "error: " not in ending.text and ending.status in (1, 2):
            yield "no word on the error"
        return
    if not result.exists():
        yield f"status 0, and there is no {template.result}"
    elif template.expected and digest(result) != template.expected:
        yield "the result is not the sound one"
    elif result.suffix == ".mkv":
        report = json.loads((place / "report.json").read_text())["runs"][0]
        frames, complaint = frames_in(result)
        if complaint:
            yield f"the result cannot be read: {complaint}"
        elif frames != report["frames"] - report["skipped"]:
            yield f"{frames} frames in the result, {report['frames']} in the report"


def frames_in(result: Path) -> tuple[int, str]:
    command = ["ffmpeg", "-v", "error", "-i", str(result), "-map", "0:v:0", "-fps_mode", "passthrough"]
    done = subprocess.run([*command, "-f", "framemd5", "-"], capture_output=True, text=True, errors="replace")
    lines = [line for line in done.stdout.splitlines() if not line.startswith("#")]
    # A broken sound track is copied as it is, and spoken of here.
    return len(lines), done.stderr.strip()[:200] if done.returncode else ""


def digest(result: Path) -> str:
    """Of what a result shows; of a graph, of its bytes."""
    if result.is_dir():
        whole = hashlib.sha256()
        for file in sorted(result.iterdir()):
            whole.update(file.name.encode() + file.read_bytes())
        return whole.hexdigest()
    if result.suffix in (".mkv", ".png"):
        command = ["ffmpeg", "-v", "error", "-i", str(result), "-map", "0", "-f", "framemd5", "-"]
        return hashlib.sha256(subprocess.run(command, capture_output=True, check=True).stdout).hexdigest()
    return hashlib.sha256(result.read_bytes()).hexdigest()


def main_of(program: str) -> Callable[..., object]:
    name = "measnet.runtime.cli" if program == "measnet-run" else "measnet.export.cli"
    command: Callable[..., object] = importlib.import_module(name).main
    return command


def import_all() -> None:
    """Imports for all forks what the commands import; but ONNX Runtime, which would start a thread."""
    import onnx
    import torch

    import measnet.checkpoint
    import measnet.export.check
    import measnet.export.rules
    import measnet.export.triton
    import measnet.runtime.backends.tensorrt
    import measnet.runtime.job
    import measnet.runtime.restorer

    _ = (onnx, measnet)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    running = len(list(Path("/proc/self/task").iterdir()))
    assert running == 1, f"{running} threads: a fork would lose them"


def templates(folder: Path) -> Iterator[Template]:
    yield from videos(folder)
    yield from pictures()
    yield from pipes(folder)
    yield from graphs(folder)
    yield from checkpoints(folder)
    yield from engines(folder)
    yield from half_finished(folder)


RUN = ["measnet-run", "--threads", "1", "--quiet", "--report", "report.json", "--preset", "ultrafast"]

CLIPS = {
    "a.mp4": ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", "-g", "4"],
    "b.mkv": ["-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-x265-params", "log-level=none"],
    "c.webm": ["-c:v", "libvpx-vp9", "-c:a", "libopus"],
    "d.avi": ["-c:v", "mpeg4", "-c:a", "mp3"],
    "e.ts": ["-c:v", "mpeg2video", "-c:a", "mp2"],
    "f.mov": ["-c:v", "prores_ks", "-c:a", "pcm_s16le"],
    "g.flv": ["-c:v", "flv1", "-an"],
    "h.mp4": ["-c:v", "libaom-av1", "-cpu-used", "8", "-an"],
    "i.y4m": ["-pix_fmt", "yuv420p", "-an"],
    "j.mp4": ["-c:v", "mjpeg", "-an", "-movflags", "frag_keyframe+empty_moov"],
}


def videos(folder: Path) -> Iterator[Template]:
    for name, settings in CLIPS.items():
        path = folder / name
        source = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=0.8", "-f", "lavfi", "-i", "sine=d=0.8"]
        command = ["ffmpeg", "-v", "error", "-y", *source, "-preset", "ultrafast", *settings, str(path)]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        claims = (mutants.y4m_claim,) if name.endswith("y4m") else ()
        yield Template(
            "video", name, path.read_bytes(), [*RUN, name, "-o", "out.mkv"], claims, result="out.mkv"
        )


def pictures() -> Iterator[Template]:
    pixels = sample()
    for name, values, settings in (
        ("a.png", pixels, []),
        ("b.png", pixels.astype("uint16") * 257, []),
        ("c.jpg", pixels, []),
        ("d.tif", pixels, [cv2.IMWRITE_TIFF_COMPRESSION, 5]),
        ("e.tif", pixels, [cv2.IMWRITE_TIFF_COMPRESSION, 1]),
        ("f.bmp", pixels, []),
        ("g.webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 101]),
        ("h.webp", pixels, [cv2.IMWRITE_WEBP_QUALITY, 80]),
        ("i.jpg", pixels, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]),
    ):
        data = cv2.imencode(name[1:], values, settings)[1].tobytes()
        yield Template("picture", name, data, [*RUN[:-2], name, "-o", "out.png"], result="out.png")


def pipes(folder: Path) -> Iterator[Template]:
    path = folder / "pipe.y4m"
    source = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=0.5", "-pix_fmt", "yuv420p"]
    subprocess.run(["ffmpeg", "-v", "error", *source, str(path)], check=True)
    said = path.read_bytes()
    taken = [*RUN, "-", "-o", "out.mkv"]
    yield Template("pipe", "pipe.y4m", said, taken, (mutants.y4m_claim,), piped=True, result="out.mkv")
    subprocess.run(["ffmpeg", "-v", "error", *source, "-f", "rawvideo", str(folder / "raw")], check=True)
    bare = (folder / "raw").read_bytes()
    command = [*taken, "--raw", "64x48:yuv420p@10"]
    yield Template("pipe", "raw", bare, command, piped=True, result="out.mkv")
    stream = (folder / "e.ts").read_bytes()
    yield Template("pipe", "e.ts", stream, taken, piped=True, result="out.mkv")


def graphs(folder: Path) -> Iterator[Template]:
    from measnet.export.graph import Graph, read_graph
    from measnet.weights import bundled

    model = read_graph(bundled("nano", ".onnx")).model
    Graph.described(model).write(folder / "m.onnx")
    data = (folder / "m.onnx").read_bytes()
    extra = extra_folder(folder)
    claims = (mutants.onnx_claim,)
    restored = [*RUN[:-2], "photo.png", "-o", "out.png", "--model", "m.onnx"]
    served = ["measnet-export", "triton", "m.onnx", "-o", "models"]
    for command, result in (
        (restored, "out.png"),
        (["measnet-export", "check", "m.onnx"], ""),
        (served, ""),
    ):
        expected = UNSETTLED if result else ""
        yield Template("ONNX", "m.onnx", data, command, claims, result=result, expected=expected, extra=extra)


def checkpoints(folder: Path) -> Iterator[Template]:
    import torch

    from measnet.checkpoint import load_checkpoint, save_checkpoint
    from measnet.weights import bundled

    yours = folder / "m.safetensors"
    save_checkpoint(load_checkpoint(bundled("nano", ".safetensors")), yours)
    released = io.BytesIO()
    torch.save({"epoch": 3, "state_dict": in_their_names(yours)}, released)
    extra = extra_folder(folder)
    for name, data, claim in (
        ("m.safetensors", yours.read_bytes(), mutants.safetensors_claim),
        ("m.ckpt", released.getvalue(), mutants.checkpoint_claim),
    ):
        restored = [*RUN[:-2], "photo.png", "-o", "out.png", "--model", name]
        yield Template(
            "checkpoint",
            name,
            data,
            restored,
            (claim,),
            result="out.png",
            expected=UNSETTLED,
            extra=extra,
        )
        exported = ["measnet-export", name, "--no-verify", "-o", "g.onnx"]
        yield Template("checkpoint", name, data, exported, (claim,), result="g.onnx", blind=False)


def engines(folder: Path) -> Iterator[Template]:
    from measnet.engine_file import EngineFacts, write_engine
    from measnet.export.graph import read_graph
    from measnet.weights import bundled

    description = read_graph(bundled("nano", ".onnx")).description
    shapes = {"image": ((1, 3, 128, 128),) * 3}
    facts = EngineFacts(
        graph_sha256="0" * 64,
        graph=description.to_metadata(),
        calibration_sha256="",
        profiles=(shapes,),
        settings={"version_compatible": False},
        measnet_version="0",
        flavour="tensorrt-rtx",
        flavour_version="1.7.1.116",
        compute_capability="8.9",
        gpu="",
        driver="",
        cuda="",
    )
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "m.engine"
        write_engine(path, facts, bytes(range(256)) * 64)
        data = path.read_bytes()
    command = [*RUN[:-2], "photo.png", "-o", "out.png", "--model", "m.engine"]
    yield Template(
        "engine",
        "m.engine",
        data,
        command,
        (mutants.sealed_claim,),
        result="out.png",
        extra=extra_folder(folder),
    )


def half_finished(folder: Path) -> Iterator[Template]:
    """A video and a folder of pictures that were cut off; the result must be that of a run that was not."""
    film, shots = folder / "film", folder / "shots"
    film.mkdir()
    source = ["-f", "lavfi", "-i", "testsrc2=s=32x32:r=25:d=4.2"]
    subprocess.run(["ffmpeg", "-v", "error", *source, str(film / "a.mkv")], check=True)
    (shots / "in").mkdir(parents=True)
    for number in range(16):
        (shots / "in" / f"{number:02}.png").write_bytes(png(sample()[:, : 33 + number]))
    for home, given, result in ((film, "a.mkv", "out.mkv"), (shots, "in", "out")):
        command = [*RUN, given, "-o", result]
        cut_off(command, home, home / f"{result}.part" / "manifest.jsonl")
        for file in sorted((home / f"{result}.part").rglob("*")):
            if not file.is_file() or file.name.endswith((".part", "lock")):
                continue
            yield Template(
                "half-finished",
                str(file.relative_to(home)),
                file.read_bytes(),
                command,
                (mutants.manifest_claim,) if file.name == "manifest.jsonl" else (),
                result=result,
                expected=UNSETTLED,
                extra=home,
            )


def cut_off(command: list[str], home: Path, manifest: Path) -> None:
    """Runs ``command`` until it has finished a part, and no further."""
    program = Path(sys.executable).with_name(command[0])
    running = subprocess.Popen([program, *command[1:]], cwd=home)
    while running.poll() is None:
        with contextlib.suppress(FileNotFoundError):
            if len(manifest.read_bytes().splitlines()) > 1:
                break
        time.sleep(0.001)
    running.kill()
    running.wait()
    assert manifest.exists(), "it was done too soon"


def extra_folder(folder: Path) -> Path:
    home = folder / "picture"
    home.mkdir(exist_ok=True)
    (home / "photo.png").write_bytes(png(sample()))
    return home


def sample() -> np.ndarray:
    """48 x 64 x 3, uint8: blocks and noise."""
    chance = np.random.default_rng(0)
    blocks = np.kron(chance.integers(40, 215, (3, 4, 3)), np.ones((16, 16, 1)))
    return np.clip(blocks + chance.normal(0, 20, blocks.shape), 0, 255).astype(np.uint8)


def png(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def in_their_names(path: Path) -> dict[str, Any]:
    """Bundled weights as the authors' trainer names them, as far as loading asks."""
    from safetensors.torch import load_file

    return {f"net.{name}": tensor for name, tensor in load_file(path).items()}


def print_table(tallies: dict[str, Tally]) -> None:
    print("\n| changed | inputs | went through | refused | failed | wrong | slowest | most memory |")
    print("|---|---|---|---|---|---|---|---|")
    for kind, tally in tallies.items():
        through, failed, refused = (tally.statuses[status] for status in (0, 1, 2))
        print(
            f"| {kind} | {tally.statuses.total()} | {through} | {refused} | {failed} | {tally.wrong} "
            f"| {tally.slowest:.1f} s | {tally.memory >> 20} MiB |"
        )


if __name__ == "__main__":
    main()
