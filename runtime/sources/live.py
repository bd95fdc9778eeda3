"""Live sources: streams from the network, and cameras attached to this machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np

from measnet.errors import InputError
from measnet.runtime.colour import RgbReader
from measnet.runtime.frame import Colour, Frame, Pixels, StreamInfo
from measnet.runtime.memory import check_size
from measnet.runtime.side_data import HDR_TREATMENT, is_hdr, read_captions
from measnet.runtime.sources import Source
from measnet.runtime.sources.decoder import PictureDecoder

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream

URL_SCHEMES = (
    "rtsp://",
    "rtsps://",
    "rtmp://",
    "http://",
    "https://",
    "tcp://",
    "udp://",
    "srt://",
)

_OPEN_SECONDS = 10.0
# A camera that is silent for longer has gone; this is also how long a stop may have to wait.
_SILENCE_SECONDS = 5.0


class LiveStream(Source):
    """Frames of a network stream with the stream's own times, counted from the first frame.

    Which frames are overtaken by newer ones is decided by the queue behind this source; here
    every frame is decoded, since later ones are built on it.

    Raises:
        InputError: nothing answers, nothing arrives, or what arrives is not video.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._container = _open(url)
        try:
            self._decoder = PictureDecoder(self._container, url, low_delay=True)
            self._items = self._decoder.items()
            self._first = self._first_frame()
            self.info = self._decoder.info(self._first, "live")
            if is_hdr(self.info.colour):
                self.warnings.append(HDR_TREATMENT)
        except BaseException:
            self.close()
            raise

    def read(self) -> Iterator[Frame | Packet[Stream]]:
        """See Source.read. Ends when the stream ends or falls silent."""
        info = self.info
        origin = (self._first.pts or 0) * info.time_base
        reader = RgbReader(info.colour, info.width, info.height, origin)
        yield self._frame(self._first, reader, origin)
        try:
            for item in self._items:
                if isinstance(item, av.VideoFrame):
                    if item.pts is not None:
                        yield self._frame(item, reader, origin)
                elif _rebased(item, origin):
                    yield item
        except av.error.ExitError:
            self.warnings.append(
                f"{self._url} sent nothing for {_SILENCE_SECONDS:g} s: it was taken to have ended"
            )
        except av.error.FFmpegError as error:
            self.warnings.append(f"{self._url} stopped sending: {error.strerror}")
        self.warnings += [*self._decoder.warnings, *reader.warnings]
        self.damaged = self._decoder.damaged
        if self.damaged:
            self.warnings.append(f"{self.damaged} damaged frames were left out")

    def close(self) -> None:
        """See Source.close."""
        self._container.close()

    def _first_frame(self) -> av.VideoFrame:
        try:
            for item in self._items:
                # Sound from before the first picture has nothing to go with.
                if isinstance(item, av.VideoFrame):
                    return item
        except av.error.FFmpegError:
            pass
        raise InputError(f"{self._url} sends no picture that can be decoded; is it the right one?")

    def _frame(self, frame: av.VideoFrame, reader: RgbReader, origin: Fraction) -> Frame:
        time_base = self.info.time_base
        return Frame(
            pixels=reader.read(frame),
            pts=(frame.pts or 0) - round(origin / time_base),
            time_base=time_base,
            duration=frame.duration,
            captions=read_captions(frame),
        )


def _rebased(packet: Packet[Stream], origin: Fraction) -> bool:
    """Move a packet's times to count from ``origin``; False if it lies before."""
    shift = round(origin / packet.time_base)
    if packet.pts is None or packet.dts is None or min(packet.pts, packet.dts) < shift:
        return False
    packet.pts -= shift
    packet.dts -= shift
    return True


def _open(url: str) -> InputContainer:
    # Over UDP a busy network loses parts of frames; what was read while probing is kept, or the
    # first picture would have to wait for the next key frame.
    options = {"rtsp_flags": "prefer_tcp"}
    try:
        return av.open(
            url,
            mode="r",
            container_options=options,
            metadata_errors="replace",
            timeout=(_OPEN_SECONDS, _SILENCE_SECONDS),
        )
    except av.error.InvalidDataError:
        raise InputError(f"{url} answers, but not with video that can be read") from None
    except av.error.ExitError:
        raise InputError(
            f"{url} did not answer within {_OPEN_SECONDS:.0f} s; check the address and the network"
        ) from None
    except (av.error.FFmpegError, OSError) as error:
        raise InputError(
            f"{url} cannot be opened: {error.strerror}; check the address and that it is on"
        ) from None


CAMERA_PREFIX = "camera:"

# The clock an MP4 or MPEG-TS counts in anyway.
_CAMERA_TIME_BASE = Fraction(1, 90_000)
_FAILURES_UNTIL_GONE = 10


class Camera(Source):
    """Frames of a camera by its number, timed by this machine's clock.

    Raises:
        InputError: no such camera, or it gives no picture.
    """

    def __init__(self, spec: str) -> None:
        super().__init__()
        number = spec.removeprefix(CAMERA_PREFIX)
        if not number.isdecimal():
            raise InputError(f"{spec}: a camera is named by its number, for example camera:0")
        self._spec = spec
        self._device = _open_quietly(int(number))
        first = self._grab() if self._device.isOpened() else None
        if first is None:
            self.close()
            raise InputError(
                f"{spec} gives no picture; check that it is plugged in, not in use by another "
                "program, and that this user may use it"
            )
        self._first: tuple[Pixels, float] = (first, time.monotonic())
        height, width = first.shape[:2]
        check_size(spec, width, height)
        fps = self._device.get(cv2.CAP_PROP_FPS)
        self.info = StreamInfo(
            name=spec,
            kind="live",
            width=width,
            height=height,
            time_base=_CAMERA_TIME_BASE,
            rate=Fraction(round(fps * 1000), 1000) if 1 <= fps <= 1000 else None,
            # The camera gives RGB without tags: these are what an RGB picture is, once in YUV.
            colour=Colour(matrix=1, primaries=1, transfer=13, range=1),
        )

    def read(self) -> Iterator[Frame]:
        """See Source.read. Ends when the camera goes away."""
        pixels, started = self._first
        yield Frame(pixels, pts=0, time_base=_CAMERA_TIME_BASE)
        failures = 0
        while failures < _FAILURES_UNTIL_GONE:
            grabbed = self._grab()
            if grabbed is None:
                failures += 1
                continue
            failures = 0
            pts = round((time.monotonic() - started) / _CAMERA_TIME_BASE)
            yield Frame(grabbed, pts=pts, time_base=_CAMERA_TIME_BASE)
        self.warnings.append(f"{self._spec} stopped giving pictures")

    def close(self) -> None:
        """See Source.close."""
        self._device.release()

    def _grab(self) -> Pixels | None:
        sound, values = self._device.read()
        if not sound or values is None:
            return None
        return np.ascontiguousarray(values[:, :, ::-1], dtype=np.uint8)


def _open_quietly(number: int) -> cv2.VideoCapture:
    """OpenCV writes a line of its own for every way of opening that it tries; ours says enough."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(number)
    finally:
        cv2.utils.logging.setLogLevel(level)
