"""A video file, decoded from its first frame to its last."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import av

from measnet.errors import InputError
from measnet.runtime.colour import RgbReader
from measnet.runtime.frame import Frame
from measnet.runtime.sources.decoder import PictureDecoder

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream

# How much of a file's declared length, in seconds, may be missing before it counts as cut off:
# containers round the last frame's length.
_TAIL_TOLERANCE = 0.5
# The containers whose headers declare a length that was not guessed from the file's size.
_DECLARES_LENGTH = ("mov", "matroska")


class VideoFile:
    """Frames of a video file, with their own presentation times.

    Raises:
        InputError: the file is missing, empty, cut off before its index, not a video, without
            a picture, or has no frame that can be decoded.
    """

    def __init__(self, path: Path) -> None:
        self.damaged = 0
        self.truncated = False
        self.warnings: list[str] = []
        self._path = path
        self._skipped = 0
        self._container = _open(path)
        try:
            self._decoder = PictureDecoder(self._container, str(path))
            self._items = self._decoder.items()
            # Rotation and colour are known for certain only once a frame has been decoded.
            self._head = _until_first_frame(self._items)
            first = self._head[-1] if self._head else None
            if not isinstance(first, av.VideoFrame):
                raise InputError(self._no_frames())
            self.info = self._decoder.info(first, "video")
        except BaseException:
            self.close()
            raise
        self._warn_of_losses(first)

    def skip(self, frames: int) -> None:
        """``read`` is to leave out the first ``frames``; they are decoded, as later ones need them."""
        self._skipped = frames

    def copied_packets(self) -> Iterator[Packet[Stream]]:
        """The copied packets once more, from the beginning of the file.

        Raises InputError when the file can no longer be opened.
        """
        container = _open(self._path)
        try:
            yield from PictureDecoder(container, str(self._path)).copied_packets()
        finally:
            container.close()

    def read(self) -> Iterator[Frame | Packet[Stream]]:
        """See Source.read."""
        info = self.info
        reader = RgbReader(info.colour, info.width, info.height)
        step = round(1 / (info.rate * info.time_base)) if info.rate else 1
        expected_pts = 0
        items = itertools.chain(self._head, self._items)
        self._head = []
        left_out = 0
        for item in items:
            if not isinstance(item, av.VideoFrame):
                yield item
                continue
            # Bare streams (.h264) carry no times at all; only then is the rate asked.
            pts = item.pts if item.pts is not None else expected_pts
            expected_pts = pts + (item.duration or step)
            if left_out < self._skipped:
                left_out += 1
                continue
            yield Frame(
                pixels=reader.read(item),
                pts=pts,
                time_base=info.time_base,
                duration=item.duration,
            )
        self._settle()

    def close(self) -> None:
        """See Source.close."""
        self._container.close()

    def _settle(self) -> None:
        decoder = self._decoder
        self.damaged = decoder.damaged
        if decoder.damaged:
            self.warnings.append(
                f"{decoder.damaged} damaged frames were left out; "
                "the frame before each is shown until the next sound one"
            )
        self.truncated = decoder.gave_up or self._tail_is_missing()
        if self.truncated:
            self.warnings.append(f"{self._path} is cut off: it was restored up to {float(decoder.end):.2f} s")

    def _tail_is_missing(self) -> bool:
        name = self._container.format.name
        if not name.startswith(_DECLARES_LENGTH):
            return False
        if name.startswith("mov") and self._decoder.pictures_read < self._decoder.stream.frames:
            return True
        if not self._container.duration:
            return False
        start = self._container.start_time or 0
        declared = (start + self._container.duration) / av.time_base
        return declared - float(self._decoder.end) > _TAIL_TOLERANCE

    def _no_frames(self) -> str:
        if self._decoder.damaged:
            return (
                f"{self._path}: none of its {self._decoder.damaged} frames could be decoded; "
                "the file is damaged"
            )
        return f"{self._path}: its video stream has no frames; the recording is empty or cut off"

    def _warn_of_losses(self, first: av.VideoFrame) -> None:
        info = self.info
        if info.bits > 8:
            self.warnings.append(
                f"{info.bits}-bit video ({info.pixel_format}) is restored and written in 8 bits; "
                "its colour tags are kept"
            )
        if first.interlaced_frame:
            self.warnings.append(
                "interlaced video is restored and written as whole frames; deinterlace it first "
                "for a better result"
            )
        if any(c.is_alpha for c in first.format.components):
            self.warnings.append("the video's transparency is not kept")
        if self._decoder.left_behind:
            self.warnings.append(f"not carried over: {', '.join(self._decoder.left_behind)}")


def _open(path: Path) -> InputContainer:
    try:
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes); record or copy it again")
        return av.open(str(path), mode="r", metadata_errors="replace")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the name") from None
    except PermissionError:
        raise InputError(f"{path} may not be read by this user; check its permissions") from None
    except av.error.InvalidDataError:
        raise InputError(_why_unreadable(path)) from None
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(f"{path} cannot be opened: {error.strerror}") from None


def _why_unreadable(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp":
        return f"{path} is cut off: its index (the 'moov' box) is missing; copy or record it again"
    return f"{path} is not a video or an image that can be read; it may be damaged"


def _until_first_frame(
    items: Iterator[av.VideoFrame | Packet[Stream]],
) -> list[av.VideoFrame | Packet[Stream]]:
    head: list[av.VideoFrame | Packet[Stream]] = []
    for item in items:
        head.append(item)
        if isinstance(item, av.VideoFrame):
            break
    return head
