"""Sound that a container cannot hold as it is, encoded again in a way that it can."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from av.audio.resampler import AudioResampler
from av.error import FFmpegError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet
    from av.stream import Stream

# By muxer: FFmpeg's encoder, and the samples that it is given; "s32" loses nothing of 24 bits.
_CODECS = {
    "matroska": ("flac", "s16", "s32"),
    "mov": ("alac", "s16p", "s32p"),
    "mp4": ("alac", "s16p", "s32p"),
    "avi": ("pcm_s16le", "s16", "s16"),
    "webm": ("libopus", "s16", "flt"),
    "mpegts": ("aac", "fltp", "fltp"),
    "flv": ("aac", "fltp", "fltp"),
}
_OPUS_RATE = 48_000
# For sound that says how many channels it has, and not which.
_USUAL_LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
_DEEP = ("s32", "s32p")


class ConvertedSound:
    """One stream of sound, decoded and encoded again: without loss in .mkv, .mov, .mp4 and
    (up to 16 bits) .avi.

    Args:
        container: is given the new stream.
        muxer: FFmpeg's name of the container's kind.
        source: whose packets will come.

    ``stream`` is the new one. ``damaged`` counts packets that could not be decoded.
    """

    def __init__(self, container: OutputContainer, muxer: str, source: AudioStream) -> None:
        self.damaged = 0
        self._end: int | None = None
        self._decoder = source.codec_context
        codec, plain, deep = _CODECS[muxer]
        rate = _OPUS_RATE if codec == "libopus" else self._decoder.sample_rate
        form = deep if self._decoder.format.name in _DEEP else plain
        self.stream: AudioStream = container.add_stream(codec, rate=rate)  # type: ignore[assignment]  # PyAV says: any stream
        context = self.stream.codec_context
        channels = self._decoder.layout
        context.layout = (
            _USUAL_LAYOUTS.get(channels.nb_channels, channels) if " " in channels.name else channels
        )
        context.format = form
        # ALAC and FLAC work on blocks of their own size, which opening settles.
        context.open()
        self._resampler = AudioResampler(form, context.layout, rate, context.frame_size or None)

    def encoded(self, packet: Packet[Stream] | None) -> list[Packet[Stream]]:
        """What becomes of a packet of the source; for None, of what is left at the end.

        Raises FFmpegError.
        """
        try:
            frames = list(self._decoder.decode(packet))
        except FFmpegError:
            self.damaged += 1
            return []
        for frame in frames:
            # The last one that WMA's decoder gives out has no time.
            frame.pts = self._end if frame.pts is None else frame.pts
            if frame.pts is not None and frame.time_base is not None:
                self._end = frame.pts + round(Fraction(frame.samples, frame.sample_rate) / frame.time_base)
        resampled = [out for frame in frames for out in self._resampler.resample(frame)]
        if packet is None:
            resampled += self._resampler.resample(None)
        packets = [encoded for frame in resampled for encoded in self.stream.encode(frame)]
        if packet is None:
            packets += self.stream.encode(None)
        return packets
