"""A video file written as its frames come: for live sources, and wherever a run cannot be resumed.

That of a live source can be played at any moment, as far as it has come: a power cut costs its last seconds.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

from measnet.errors import OutputError
from measnet.runtime.frame import Frame, StreamInfo
from measnet.runtime.options import Encoding
from measnet.runtime.sinks.aside import Aside
from measnet.runtime.sinks.containers import container_for
from measnet.runtime.sinks.encoded import EncodedSink
from measnet.runtime.sinks.encoder import PictureEncoding
from measnet.runtime.sinks.muxer import Muxer
from measnet.runtime.sinks.part_folder import sync_file

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

SYNC_SECONDS = 5.0
"""Seconds after which a live source's file is synced to the disk."""

# A live source's file grows in pieces of 2 s that a player needs no end of the file for.
_FRAGMENTS = {"movflags": "+hybrid_fragmented+delay_moov", "frag_duration": "2000000"}
_CLUSTERS = {"cluster_time_limit": "2000"}
_GROWING = {"mp4": _FRAGMENTS, "mov": _FRAGMENTS, "matroska": _CLUSTERS, "webm": _CLUSTERS}


class VideoSink(EncodedSink):
    """Encodes frames into one video file, with the source's other streams copied in.

    Where writing a live source fails, what there is by then stays, under a name that says it is partial.

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
        self._aside = Aside(target)
        kind = container_for(target)
        picture = PictureEncoding(target, kind, info, encoding or Encoding())
        self._live = info.kind == "live"
        options = {**_GROWING.get(kind.muxer, {}), "flush_packets": "1"} if self._live else {}
        muxer = Muxer(self._aside.path, target, kind, info, picture, options=options)
        super().__init__(target, self._aside, picture, muxer)
        self._synced = time.monotonic()

    def copy(self, packet: Packet[Stream]) -> None:
        try:
            super().copy(packet)
        except OutputError as error:
            raise self._ended_by(error) from None

    def write(self, frame: Frame) -> None:
        try:
            super().write(frame)
        except OutputError as error:
            raise self._ended_by(error) from None
        if self._live and time.monotonic() >= self._synced + SYNC_SECONDS:
            self._sync(self._aside.path)

    def finish(self, *, partial: bool = False) -> Path | None:
        kept = super().finish(partial=partial)
        assert kept is None or isinstance(kept, Path)
        if self._live and kept is not None:
            self._sync(kept)
        return kept

    def abort(self) -> None:
        """See Sink.abort. The part of a live source that was written stays."""
        self._salvage()
        super().abort()

    def _ended_by(self, error: OutputError) -> OutputError:
        kept = self._salvage()
        return error if kept is None else OutputError(f"{error}; what had come until then is {kept}")

    def _salvage(self) -> Path | None:
        """Keeps the part of a live source that was written, and returns its place."""
        if not self._live or self._done or self._times.last is None:
            return None
        self._done = True
        self._muxer.close_anyhow()
        with contextlib.suppress(OutputError):
            return self._aside.keep(partial=True)
        return None

    def _sync(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            sync_file(path)
        self._synced = time.monotonic()
