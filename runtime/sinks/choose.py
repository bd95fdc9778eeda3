"""Choice of the sinks that make what a user asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from measnet.errors import UsageError
from measnet.runtime.frame import Frame, StreamInfo
from measnet.runtime.live.waits import Waits
from measnet.runtime.live.watch import Watch
from measnet.runtime.options import RunOptions
from measnet.runtime.sinks import Sink
from measnet.runtime.sinks.containers import HLS, SENT, container_for
from measnet.runtime.sinks.encoder import PictureEncoding
from measnet.runtime.sinks.hls import ENDING, HlsSink
from measnet.runtime.sinks.images import ImageFolderSink, ImageSink
from measnet.runtime.sinks.loopback import LoopbackSink, is_loopback
from measnet.runtime.sinks.muxer import Muxer
from measnet.runtime.sinks.parts import PartsSink
from measnet.runtime.sinks.patient import PatientSink
from measnet.runtime.sinks.push import PushSink, for_players
from measnet.runtime.sinks.segmented import SegmentedVideoSink
from measnet.runtime.sinks.several import Several
from measnet.runtime.sinks.standard_output import STANDARD_OUTPUT, StandardOutput
from measnet.runtime.sinks.target import Receiver, Target, Watched, Window
from measnet.runtime.sinks.video import VideoSink
from measnet.runtime.sinks.window import WindowSink, find_player
from measnet.runtime.sources import Source


class WatchedSink(Sink):
    """Keeps nothing: observers have seen the frames by now."""

    def __init__(self) -> None:
        super().__init__()
        self._frames = 0

    def write(self, frame: Frame) -> None:
        self._frames += 1

    def finish(self, *, partial: bool = False) -> Target | None:
        return Watched() if self._frames else None

    def abort(self) -> None:
        """There is nothing to leave behind."""


def open_sinks(
    targets: Sequence[Target],
    source: Source,
    file: Path | None,
    options: RunOptions,
    watch: Watch,
    *,
    await_receivers: bool = False,
) -> Sink:
    """Opens a sink for each target, and makes one of them.

    Args:
        targets: one or more, checked.
        source: open.
        file: what of the source lies on disk, if anything: a file or a folder.
        options: of the run.
        watch: hears what happens to sinks of a live source.
        await_receivers: of a live source, a receiver that refuses is tried again, as one that was lost.

    Raises:
        UsageError: one of them cannot be, or a receiver refuses.
        OutputError: an encoder refuses the picture.
    """
    info = source.info
    if options.raw_out is not None and STANDARD_OUTPUT not in targets:
        raise UsageError("--raw-out goes with -o -: files say what they hold by their endings")
    if options.parts is not None and info.kind != "live":
        raise UsageError("--parts is for cameras and streams; a video is written in one piece")
    if info.kind == "images":
        return _for_pictures(targets, file)
    if len(targets) == 1 and info.kind == "video" and file is not None and _is_file(targets[0]):
        assert isinstance(targets[0], Path)
        return SegmentedVideoSink(
            targets[0], info, file, source.copied_packets, options.encoding, limit=options.frames
        )
    sinks: list[Sink] = []
    try:
        for target in targets:
            opens = _opener(target, info, options, watch)
            if info.kind == "live":
                sinks.append(
                    _patient(target, opens, watch, options.live.waits, await_receivers=await_receivers)
                )
            else:
                sinks.append(opens())
    except BaseException:
        for sink in sinks:
            sink.abort()
        raise
    return sinks[0] if len(sinks) == 1 else Several(sinks)


def check_sink(target: Target, info: StreamInfo, options: RunOptions) -> None:
    """Raises what ``open_sinks`` would raise for a source as ``info`` says. Only an encoder is opened, to
    try it.

    Raises:
        UsageError: the container, the codec or the pixel format cannot be.
        OutputError: the encoder does not start.
    """
    asked = options.encoding
    if options.parts is not None and info.kind != "live":
        raise UsageError("--parts is for cameras and streams; a video is written in one piece")
    if isinstance(target, Watched):
        return
    if isinstance(target, Window):
        find_player()
        return
    if isinstance(target, Receiver):
        PictureEncoding(target, SENT[target.scheme], info, for_players(asked, info)).open_alone(0).flush()
    elif target == STANDARD_OUTPUT or is_loopback(target):
        return
    elif target.suffix.lower() == ENDING:
        PictureEncoding(target, HLS, info, for_players(asked, info)).open_alone(0).flush()
    else:
        kind = container_for(target)
        picture = PictureEncoding(target, kind, info, asked)
        Muxer(target, target, kind, info, picture).close_anyhow()  # it writes when it begins
        picture.open_alone(0).flush()


def _for_pictures(targets: Sequence[Target], file: Path | None) -> Sink:
    target = targets[0]
    if len(targets) > 1:
        raise UsageError("pictures have one result; give --out once")
    if target == STANDARD_OUTPUT:
        raise UsageError("only videos go to standard output; give images an --out of their own")
    if not isinstance(target, Path) or target.suffix.lower() == ENDING:
        raise UsageError(f"only videos go to {target}; give images an --out of their own")
    return ImageFolderSink(target, file) if file is not None and file.is_dir() else ImageSink(target)


def _opener(target: Target, info: StreamInfo, options: RunOptions, watch: Watch) -> Callable[[], Sink]:
    encoding, parts, live = options.encoding, options.parts, options.live
    if isinstance(target, Watched):
        return WatchedSink
    if isinstance(target, Window):
        return lambda: WindowSink(info, watch)
    if isinstance(target, Receiver):
        return lambda: PushSink(target, info, encoding, insecure=live.insecure, waits=live.waits)
    if target == STANDARD_OUTPUT:
        return lambda: StandardOutput(info, raw=options.raw_out)
    if is_loopback(target):
        return lambda: LoopbackSink(target, info)
    if target.suffix.lower() == ENDING:
        return lambda: HlsSink(target, info, encoding)
    if parts is not None:
        return lambda: PartsSink(target, info, encoding, parts)
    return lambda: VideoSink(target, info, encoding)


def _patient(
    target: Target, opens: Callable[[], Sink], watch: Watch, waits: Waits, *, await_receivers: bool
) -> PatientSink:
    sink: Sink | None = None
    try:
        sink = opens()
    except UsageError as error:
        if not (await_receivers and isinstance(target, Receiver)):
            raise
        watch.say("sink", f"{error}; it is tried again")
    return PatientSink(target, sink, watch, opens if _comes_back(target) else None, waits)


def _comes_back(target: Target) -> bool:
    """Says whether a sink there may be opened anew after it failed, as nothing is lost by that but time."""
    return isinstance(target, Receiver) or (isinstance(target, Path) and target.suffix.lower() == ENDING)


def _is_file(target: Target) -> bool:
    """Says whether it becomes one file of its own."""
    return (
        isinstance(target, Path)
        and target != STANDARD_OUTPUT
        and not is_loopback(target)
        and target.suffix.lower() != ENDING
    )
