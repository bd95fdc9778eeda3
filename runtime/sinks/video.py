"""A video file written as its frames come: for live sources, and wherever a run cannot be resumed.

That of a live source can be played at any moment, as far as it has come: a power cut costs its last seconds.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from av.error import FFmpegError

from measnet.errors import OutputError
from measnet.runtime.frame import Frame, StreamInfo
from measnet.runtime.options import Encoding
from measnet.runtime.sinks import Sink
from measnet.runtime.sinks.aside import Aside, encoding_error
from measnet.runtime.sinks.containers import container_for
from measnet.runtime.sinks.encoder import FrameTimes, PictureEncoding
from measnet.runtime.sinks.muxer import Muxer

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream


SYNC_SECONDS = 5.0
"""So often what was written of a live source goes from memory to the disk."""

# For a live source's file: it grows in fragments of 2 s, which a player needs no end of the file for.
_FRAGMENTS = {"movflags": "+hybrid_fragmented", "frag_duration": "2000000"}
_GROWING = {
    "mp4": _FRAGMENTS,
    "mov": _FRAGMENTS,
    "matroska": {"cluster_time_limit": "2000"},
    "webm": {"cluster_time_limit": "2000"},
}


class VideoSink(Sink):
    """Encodes frames into one video file, with the source's other streams copied in.

    Where writing a live source fails, what there is by then stays under its partial name.

    Args:
        target: the result's name; its ending chooses the container. ``check_target`` has
            said yes to it.
        info: what belongs to the source's stream and is to survive.
        encoding: asked for.

    Raises:
        UsageError: the container cannot hold the source's audio or the codec, or the encoder
            not so many bits.
        OutputError: the encoder refuses the picture.
    """

    def __init__(
        self,
        target: Path,
        info: StreamInfo,
        encoding: Encoding | None = None,
    ) -> None:
        super().__init__()
        self._target = target
        self._aside = Aside(target)
        self._done = False
        kind = container_for(target)
        self.encoding = PictureEncoding(target, kind, info, encoding or Encoding())
        self._times = FrameTimes(self.encoding.time_base)
        self._live = info.kind == "live"
        options = {**_GROWING.get(kind.muxer, {}), "flush_packets": "1"} if self._live else {}
        self._muxer = Muxer(self._aside.path, target, kind, info, self.encoding, options=options)
        self._synced = time.monotonic()
        self.warnings = [*self.encoding.warnings, *self._muxer.warnings]

    def for_report(self) -> dict[str, Any]:
        """See Sink.for_report."""
        return self.encoding.for_report()

    def copy(self, packet: Packet[Stream]) -> None:
        """See Sink.copy."""
        try:
            self._muxer.mux_copy(packet)
        except OutputError as error:
            raise self._ended_by(error) from None

    def write(self, frame: Frame) -> None:
        """See Sink.write."""
        place = self._times.place(frame)
        if place is None:
            self.skipped = self._times.skipped
            return
        try:
            packets = self._muxer.encoder.encode(frame.pixels, *place, self.encoding.captions_of(frame))
            self._muxer.mux_picture(packets)
        except FFmpegError as error:
            raise self._ended_by(encoding_error(self._target, error)) from None
        except OutputError as error:
            raise self._ended_by(error) from None
        if self._live and time.monotonic() >= self._synced + SYNC_SECONDS:
            self._sync()

    def finish(self, *, partial: bool = False) -> Path | None:
        """See Sink.finish."""
        if self._times.last is None:
            self.abort()
            return None
        try:
            self._muxer.mux_picture(self._muxer.encoder.flush())
            self._muxer.close()
        except FFmpegError as error:
            self.abort()
            raise encoding_error(self._target, error) from None
        except OutputError:
            self.abort()
            raise
        self._done = True
        self.warnings += (
            self._times.losses() + self.encoding.losses() + self._muxer.losses(self._times.rounded)
        )
        return self._aside.keep(partial=partial)

    def _ended_by(self, error: OutputError) -> OutputError:
        """Keeps what there is of a live source, and has ``error`` say so."""
        if not self._live or self._done or self._times.last is None:
            return error
        self._done = True
        self._muxer.close_anyhow()
        with contextlib.suppress(OutputError):
            kept = self._aside.keep(partial=True)
            return OutputError(f"{error}; what had come until then is {kept}")
        return error

    def _sync(self) -> None:
        with contextlib.suppress(OSError):
            file = os.open(self._aside.path, os.O_RDONLY)
            try:
                os.fsync(file)
            finally:
                os.close(file)
        self._synced = time.monotonic()

    def abort(self) -> None:
        """See Sink.abort."""
        if self._done:
            return
        self._done = True
        self._muxer.close_anyhow()
        self._aside.discard()
