"""Streams from the network."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import av

from measnet.errors import InputError
from measnet.runtime.colour import RgbReader
from measnet.runtime.frame import Frame
from measnet.runtime.live.credentials import without_secrets
from measnet.runtime.live.interrupt import is_called_off
from measnet.runtime.live.peer import tls_options, why_refused
from measnet.runtime.live.srt import SrtSocket
from measnet.runtime.live.waits import USUAL, Waits
from measnet.runtime.side_data import HDR_TREATMENT, is_hdr, read_captions
from measnet.runtime.sources.connection import CLOCK, Connection, Over
from measnet.runtime.sources.decoder import PictureDecoder
from measnet.runtime.sources.kept_streams import KeptStreams, moved_to_double
from measnet.runtime.sources.pieces import open_checked
from measnet.runtime.sources.times import rebased

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream

URL_SCHEMES = (
    "rtsp://",
    "rtsps://",
    "rtmp://",
    "rtmps://",
    "http://",
    "https://",
    "tcp://",
    "udp://",
    "srt://",
)

# Pictures one by one over HTTP have no times of their own: FFmpeg takes 25 a second for granted.
_WITHOUT_TIMES = ("mpjpeg", "mjpeg")
# FFmpeg would look at twenty frames to guess their rate. Of a slow camera these take longer than
# an answer may, and where that limit falls while it looks, nothing comes behind what it has read by then.
# Fewer frames of a usual one would cost the start of its sound.
_LOOKING = {"analyzeduration": "3000000"}
# After so many, none will have one.
_UNTIMED_FRAMES = 50


class NetworkConnection(Connection):
    """One connection to an address. Every frame is decoded, since later ones are built on it.

    Args:
        url: the address, with the credentials that it needs.
        kept: streams of an earlier connection, that sound and subtitles go on in.
        insecure: takes any certificate.
        waits: has the longest that FFmpeg waits for an answer, and then for a byte.

    Raises:
        InputError: nothing answers, nothing arrives, or what arrives is not video.
    """

    def __init__(
        self,
        url: str,
        kept: KeptStreams | None = None,
        *,
        insecure: bool = False,
        waits: Waits = USUAL,
    ) -> None:
        super().__init__()
        self._waits = waits
        self._name = without_secrets(url)
        self._over_http = url.lower().startswith("http")
        self._broken: str | None = None
        self._readers: dict[tuple[int, int], RgbReader] = {}
        self._srt: SrtSocket | None = None
        if url.lower().startswith("srt:"):
            self._srt = _connected(url, waits)
            self._container = _open_srt(self._srt, self._name)
        else:
            self._container = _open(url, waits, insecure=insecure)
        try:
            self._form = self._container.format.name
            self._decoder = PictureDecoder(self._container, self._name, low_delay=True)
            copied = [stream for stream in self._decoder.copied if stream.type != "attachment"]
            self.kept = kept or KeptStreams(copied)
            self._places = self.kept.places(copied)
            self._items = self._decoder.items()
            self._first = self._first_frame()
            self._started = time.monotonic()
            self.info = replace(self._decoder.info(self._first, "live"), copied=tuple(self.kept.streams))
            self.codec = self._decoder.stream.codec_context.name
            self.finished = self._over_http and self._container.duration is not None
            self._by_clock = self._form in _WITHOUT_TIMES or self._first.pts is None
            if self._by_clock:
                self.info = replace(self.info, time_base=CLOCK, rate=None)
            self._origin = Fraction(0) if self._by_clock else (self._first.pts or 0) * self.info.time_base
            self._jumps = 0
            # By how much this machine's clock is ahead. The last picture from before a gap comes after it.
            self._behind: deque[Fraction] = deque(maxlen=4)
            if is_hdr(self.info.colour):
                self.warnings.append(HDR_TREATMENT)
        except BaseException:
            self.close()
            raise

    def items(self) -> Iterator[Frame | Packet[Stream]]:
        """See Connection.items. Ends when the stream ends, breaks or falls silent."""
        yield self._frame(self._first, self._started)
        try:
            for item in self._items:
                if isinstance(item, av.VideoFrame):
                    if item.pts is not None or self._by_clock:
                        yield self._frame(item, time.monotonic())
                elif rebased(item, self._origin) and moved_to_double(item, self._places):
                    yield item
        except av.error.ExitError:
            self._broken = f"it sent nothing for {self._waits.silence:g} s"
        except av.error.FFmpegError as error:
            self._broken = f"it stopped sending: {error.strerror}"
        finally:
            readers = [line for reader in self._readers.values() for line in reader.warnings]
            self.warnings += [*self._decoder.warnings, *readers]
            self.damaged = self._decoder.damaged

    def over(self) -> Over:
        """See Connection.over.

        Only over HTTP does a stream say that it has come to its end; an endless one of single pictures does
        not, and a growing HLS stream says so in its list, which the next connection sees.
        """
        if self._broken is not None:
            return Over(self._broken)
        if self._decoder.gave_up:
            return Over("nothing that it sends can be read")
        endless = self._form in _WITHOUT_TIMES or (self._form.startswith("hls") and not self.finished)
        if self._over_http and not endless:
            return Over("it has ended", ended=True)
        return Over("the connection was closed", closed=True)

    def close(self) -> None:
        self._container.close()
        if self._srt is not None:
            self._srt.close()

    def _first_frame(self) -> av.VideoFrame:
        """Finds the first picture with a time, as streams need not know theirs from the beginning."""
        untimed = 0
        try:
            for item in self._items:
                # Sound from before the first picture has nothing to go with.
                if not isinstance(item, av.VideoFrame):
                    continue
                untimed += 1
                if item.pts is not None or self._form in _WITHOUT_TIMES or untimed == _UNTIMED_FRAMES:
                    return item
        except av.error.FFmpegError:
            pass
        raise InputError(f"{self._name} sends no picture that can be decoded; is it the right one?")

    def _frame(self, frame: av.VideoFrame, captured: float) -> Frame:
        size = frame.width, frame.height
        if size not in self._readers:
            self._readers[size] = RgbReader(self.info.colour, *size, self._origin)
        time_base = self.info.time_base
        if self._by_clock:
            pts = round((captured - self._started) / time_base)
        else:
            self._mind_jumps((frame.pts or 0) * time_base, captured)
            pts = (frame.pts or 0) - round(self._origin / time_base)
        return Frame(
            pixels=self._readers[size].read(frame),
            pts=pts,
            time_base=time_base,
            duration=0 if self._by_clock else frame.duration,
            captions=read_captions(frame),
            captured=captured,
        )

    def _mind_jumps(self, at: Fraction, captured: float) -> None:
        """Leaves the gap that there was where a sender began anew, as the decoder has it go on at once."""
        self._behind.append(Fraction(captured) - at)
        if self._decoder.jumps > self._jumps:
            self._jumps = self._decoder.jumps
            self._origin -= max(Fraction(0), self._behind[-1] - self._behind[0])
            self._behind.clear()


def _open(url: str, waits: Waits, *, insecure: bool) -> InputContainer:
    name = without_secrets(url)
    # Over UDP a busy network loses parts of frames; what was read while probing is kept, or the
    # first picture would have to wait for the next key frame.
    options = {"rtsp_flags": "prefer_tcp", **_LOOKING, **tls_options(url, insecure=insecure)}
    if url.lower().startswith("udp:"):
        options["overrun_nonfatal"] = "1"
    limits = waits.opening, waits.silence
    late = f"{name} did not answer within {waits.opening:.0f} s; check the address and the network"
    until = time.monotonic() + waits.opening
    try:
        if url.lower().startswith("https:") and not insecure:
            return open_checked(url, options, waits)
        return av.open(url, mode="r", container_options=options, metadata_errors="replace", timeout=limits)
    except av.error.InvalidDataError:  # of RTSP the end of the time too
        words = f"{name} answers, but not with video that can be read"
        raise InputError(late if time.monotonic() > until else words) from None
    except av.error.ExitError:
        why = why_refused(url, waits, insecure=insecure)
        raise InputError(f"{name} cannot be opened: {why}" if why else late) from None
    except (av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError):
        raise InputError(
            f"{name} refuses this user and password; give the right ones: scheme://user:password@host"
        ) from None
    except (av.error.FFmpegError, OSError) as error:
        why = (
            why_refused(url, waits, insecure=insecure)
            or f"{error.strerror}; check the address and that it is on"
        )
        raise InputError(f"{name} cannot be opened: {why}") from None


def _connected(url: str, waits: Waits) -> SrtSocket:
    try:
        return SrtSocket(url, patience=waits.opening, is_called_off=is_called_off)
    except OSError as error:
        raise InputError(
            f"{without_secrets(url)} cannot be opened: {error.strerror}; check the address and that it is on"
        ) from None


def _open_srt(connection: SrtSocket, name: str) -> InputContainer:
    try:
        return av.open(
            connection, mode="r", format="mpegts", container_options=_LOOKING, metadata_errors="replace"
        )
    except (av.error.FFmpegError, OSError):
        connection.close()
        raise InputError(f"{name} answers, but not with video that can be read") from None
