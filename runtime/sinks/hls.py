"""HLS: a playlist and its pieces in a folder, which any web server can hand to browsers."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from pathlib import Path

from measnet.file_name import for_ffmpeg
from measnet.runtime.frame import Frame, StreamInfo
from measnet.runtime.options import Encoding
from measnet.runtime.sinks.aside import write_error
from measnet.runtime.sinks.containers import HLS
from measnet.runtime.sinks.encoded import EncodedSink
from measnet.runtime.sinks.encoder import KEY_SECONDS, PictureEncoding
from measnet.runtime.sinks.muxer import Muxer
from measnet.runtime.sinks.push import for_players
from measnet.runtime.sinks.target import Target

ENDING = ".m3u8"

LISTED = 6
"""Pieces in the playlist of a live source; older ones are deleted."""


class HlsSink(EncodedSink):
    """Encodes frames into pieces of two seconds, named in a playlist.

    The playlist of a live source has the last ``LISTED``, that of a video file grows until it has them all,
    and can be watched meanwhile. Pieces that an earlier run left under these names are deleted.

    Args:
        target: the playlist, ``.m3u8``; the pieces lie beside it. ``check_target`` has said yes to it.
        info: what belongs to the source's stream and is to survive.
        encoding: asked for; what it leaves open is what every browser plays.

    Raises:
        UsageError: the encoder cannot do what was asked.
        OutputError: the encoder refuses the picture; and when the disk is full, within two seconds.
    """

    def __init__(self, target: Path, info: StreamInfo, encoding: Encoding | None = None) -> None:
        live = info.kind == "live"
        picture = PictureEncoding(target, HLS, info, for_players(encoding or Encoding(), info))
        place = _Playlist(target, live=live)
        place.delete()
        stem = for_ffmpeg(target.with_suffix("")).replace("%", "%%")
        options = {
            "hls_time": str(KEY_SECONDS),
            "hls_list_size": str(LISTED if live else 0),
            "hls_flags": "independent_segments+temp_file" + ("+delete_segments" if live else ""),
            "hls_segment_filename": f"{stem}.%05d.ts",
            # A run that begins anew must not give old names to new pieces: browsers would play the old ones.
            "hls_start_number_source": "epoch" if live else "generic",
        }
        if not live:
            options["hls_playlist_type"] = "event"
        muxer = Muxer(target, target, HLS, info, picture, options=options)
        super().__init__(target, place, picture, muxer)
        self._playlist = target
        self._looked = time.monotonic()

    def write(self, frame: Frame) -> None:
        super().write(frame)
        if time.monotonic() >= self._looked + KEY_SECONDS:
            self._looked = time.monotonic()
            self._look()

    def finish(self, *, partial: bool = False) -> Target | None:
        made = super().finish(partial=partial)
        if made is not None:
            self._look()
        return made

    def _look(self) -> None:
        """Raises OutputError where the disk is full, which FFmpeg says of no playlist."""
        with contextlib.suppress(OSError):
            full = os.statvfs(self._playlist.parent).f_bavail == 0
            if full or (self._playlist.exists() and self._playlist.stat().st_size == 0):
                raise write_error(self._playlist, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))


class _Playlist:
    """The playlist with its pieces; those of a live source stay, as someone may be watching."""

    def __init__(self, target: Path, *, live: bool) -> None:
        self._target = target
        self._live = live
        self._piece = re.compile(re.escape(target.stem) + r"\.\d{5,}\.ts(\.tmp)?")

    def keep(self, *, partial: bool = False) -> Path:
        """See Place.keep. A shorter one is whole as far as it goes."""
        return self._target

    def discard(self) -> None:
        if not self._live:
            self.delete()

    def delete(self) -> None:
        """Delete all of it."""
        for path in self._target.parent.iterdir():
            if self._piece.fullmatch(path.name):
                path.unlink(missing_ok=True)
        for path in (self._target, self._target.with_name(self._target.name + ".tmp")):
            path.unlink(missing_ok=True)
