"""The encoded picture of a result: decided once, opened as often as a new stream begins, and timed."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import cv2
from av.bitstream import BitStreamFilterContext
from av.codec.context import Flags, ThreadType
from av.error import FFmpegError
from av.packet import Packet
from av.video.frame import PictureType

from measnet.errors import OutputError, UsageError
from measnet.image import Pixels
from measnet.runtime.colour import Chroma, YuvWriter, chroma_of, written_colour, yuv_format
from measnet.runtime.frame import Colour, Frame, StreamInfo
from measnet.runtime.options import Encoding
from measnet.runtime.side_data import WORDINGS, encoder_parameters, takes_captions, with_captions
from measnet.runtime.sinks.containers import Container, check_preset, codec_for
from measnet.runtime.sinks.mp4_views import PROJECTIONS
from measnet.runtime.sinks.orientation import Turn, turn_of, turned
from measnet.runtime.sinks.target import Target, named

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream


class FrameTimes:
    """Gives each frame its time in the result, later than that of the frame before.

    Args:
        time_base: of the result, in seconds.

    ``last`` is the time of the last frame that has one. ``skipped`` counts frames that do not come after
    it, ``rounded`` those whose time is no multiple of the time base.
    """

    def __init__(self, time_base: Fraction) -> None:
        self._time_base = time_base
        self.last: int | None = None
        self.skipped = 0
        self.rounded = 0

    def place(self, frame: Frame) -> tuple[int, int] | None:
        """Gives the next frame its time and duration; None for one that has to be left out."""
        exact = frame.pts * frame.time_base / self._time_base
        pts = round(exact)
        if self.last is not None and pts <= self.last:
            self.skipped += 1
            return None
        self.last = pts
        self.rounded += exact.denominator != 1
        return pts, round(frame.duration * frame.time_base / self._time_base)

    def losses(self) -> list[str]:
        """A line on the frames left out, if there are any."""
        if not self.skipped:
            return []
        return [f"{self.skipped} frames were left out: their times do not follow the frame before"]


def decoding_times(shown: Sequence[int], reordering: int) -> list[int]:
    """Says when each picture is to be decoded: later than the one stored before it, not after it is shown.

    Args:
        shown: presentation times in the order of storage, no two alike.
        reordering: by how many places the encoder says it may store a picture early.

    The first ones get times before the first picture's own, at the pace of those that follow.
    """
    if not shown:
        return []
    in_order = sorted(shown)
    place = {pts: index for index, pts in enumerate(in_order)}
    needed = max(index - place[pts] for index, pts in enumerate(shown))
    depth = min(max(needed, reordering), len(shown) - 1)
    run_up = in_order[depth] - in_order[0]
    return [pts - run_up for pts in in_order[:depth]] + in_order[: len(in_order) - depth]


# x264's AVX-512 code makes other bytes from the same pictures from run to run, even on one thread
# (measured with its rate control by macroblock tree, the default); its AVX2 code is as fast and does not.
_AVX_512 = 13  # OpenCV's number
_UP_TO_AVX2 = "AVX2,FMA3,LZCNT,BMI1,BMI2"


_CHROMAS: tuple[Chroma, ...] = ("420", "422", "444")
# Of these, few players outside a computer show 4:4:4.
_SELDOM_PLAYED_IN_444 = ("libx264", "libx265")
_DEPTHS = (8, 10, 12, 16)
# Graphics cards' encoders take no planes, but the same samples laid out in pairs.
_IN_PAIRS = {"yuv420p": "nv12", "yuv420p10le": "p010le"}
_CHIP_DEPTHS = (8, 10)
# How x264 numbers what lies in one picture; it always has the left view first.
_PACKINGS = {
    "checkerboard_lr": 0,
    "col_interleaved_lr": 1,
    "row_interleaved_lr": 2,
    "left_right": 3,
    "top_bottom": 4,
}
_UNSPECIFIED = 2
_LIMITED = 1

KEY_SECONDS = 2
"""From one key frame to the next where the result is watched, or may be cut off, while it is made."""

# Of these nothing waits in the encoder for later frames, which a live source would be late by and a power cut
# would lose; and a frame that is to stand by itself is one that decoders can begin with.
_PROMPT = {
    "libx264": {"tune": "zerolatency", "forced-idr": "1"},
    "libx265": {"tune": "zerolatency", "forced-idr": "1"},
    "libvpx-vp9": {"lag-in-frames": "0"},
    "libsvtav1": {"svtav1-params": "pred-struct=1"},
    "h264_nvenc": {"forced-idr": "1"},
    "hevc_nvenc": {"forced-idr": "1"},
}

# x265 sets no decoding times, but what lay in memory, where there are no more frames than these.
_X265_LEAVES_UNTIMED = 2


class PictureEncoding:
    """Decisions about the encoded picture that hold for the whole result.

    Args:
        target: the result's name, for messages.
        kind: the container that it goes into.
        info: what belongs to the source's stream and is to survive.
        asked: for. Defaults: the container's usual codec, that codec's usual quality, the source's chroma
            resolution, and as many bits as the source has or the encoder takes.

    Raises:
        UsageError: the codec is not known, or its encoder takes not so many bits or no such
            pixel format.
    """

    def __init__(
        self,
        target: Target,
        kind: Container,
        info: StreamInfo,
        asked: Encoding,
    ) -> None:
        self.warnings: list[str] = []
        self._target = target
        self._kind = kind
        self._info = info
        format_asked = None if asked.pixel_format is None else _parsed(asked.pixel_format, asked.bits)
        bits = asked.bits or (format_asked[1] if format_asked else info.bits)
        self.codec = codec_for(kind, asked.codec, bits)
        self.crf = self.codec.crf if asked.crf is None else asked.crf
        self.preset = asked.preset
        if asked.preset is not None:
            check_preset(self.codec, asked.preset)
        self.sound = asked.sound
        self.time_base = _time_base(kind, info)
        self.rate = info.rate or Fraction(25)
        self.turn = self._turn_to_apply()
        self._colour = written_colour(info.colour)
        self._chroma, self.bits = (
            self._asked_for(*format_asked) if format_asked else self._to_keep(asked.bits)
        )
        self.pixel_format = yuv_format(self._chroma, self.bits)
        self._options = {**self.codec.options, **dict.fromkeys(self.codec.quality, str(self.crf))}
        if asked.preset is not None:
            self._options[self.codec.preset_option] = asked.preset
        self._prompt = kind.live or info.kind == "live"
        if self._prompt:
            self._options |= _PROMPT.get(self.codec.encoder, {})
        self._threads: int | None = None
        self._captions_lost = False
        self._tell_of_hdr()
        self._tell_of_views()

    def for_report(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "encoder": self.codec.encoder,
            "crf": self.crf,
            "preset": self.preset,
            "width": self.size[0],
            "height": self.size[1],
            "bits": self.bits,
            "pixel_format": self.pixel_format,
        }

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of what is written, in pixels."""
        width, height = self._info.width, self._info.height
        return (height, width) if self.turn is not None and self.turn[0] else (width, height)

    def repeat_with(self, threads: int) -> None:
        """Has the same pictures become the same bytes from now on, in this process or another.

        An encoder's bytes depend on its number of threads, so that is fixed.
        """
        self._threads = threads

    def captions_of(self, frame: Frame) -> bytes:
        """Gives the captions that the encoded picture has a place for."""
        if frame.captions and not takes_captions(self.codec.encoder):
            self._captions_lost = True
            return b""
        return frame.captions

    def losses(self) -> list[str]:
        """A line on what of the frames so far was not carried over, if there is anything."""
        if not self._captions_lost:
            return []
        return [f"not carried over: closed captions ({self.codec.encoder} takes none)"]

    def open(self, context: VideoCodecContext) -> PictureEncoder:
        """An encoder on ``context``, which is new and has its flags and its time base already.

        Raises:
            OutputError: the encoder refuses the picture.
        """
        info, codec = self._info, self.codec
        swapped = self.turn is not None and self.turn[0]
        context.width, context.height = self.size
        writer = YuvWriter(self._colour, context.width, context.height, self._chroma, codec.chroma, self.bits)
        context.pix_fmt = self._layout()
        context.colorspace = self._colour.matrix
        context.color_range = self._colour.range
        context.color_primaries = self._colour.primaries
        context.color_trc = self._colour.transfer
        if info.sample_aspect:
            context.sample_aspect_ratio = 1 / info.sample_aspect if swapped else info.sample_aspect
        # Without it the last frame of an uneven stream gets an average length.
        context.flags |= int(Flags.frame_duration)
        if self._kind.even_pace:
            # AVI has no presentation times: frames must be stored in the order they are shown.
            context.max_b_frames = 0
        if self._prompt:
            context.max_b_frames = 0
        if codec.encoder == "libx265" and self._kind.muxer in ("mp4", "mov"):
            # By the default name, hev1, Apple's players refuse it.
            context.codec_tag = "hvc1"
        context.options = dict(self._options)
        if self._threads is not None:
            context.thread_count = self._threads
            # PyAV's own choice, slices, makes files larger for the sake of a shorter delay.
            context.thread_type = ThreadType.FRAME
            if codec.encoder == "libx264" and cv2.checkHardwareSupport(_AVX_512):
                context.options["x264-params"] = _joined(
                    self._options.get("x264-params"), f"asm={_UP_TO_AVX2}"
                )
        try:
            context.open()
        except (FFmpegError, ValueError) as error:
            reason = error.strerror if isinstance(error, FFmpegError) else error
            if codec.hardware:
                raise OutputError(
                    f"{codec.encoder} does not start on this machine ({reason}): it "
                    "needs the graphics card that it is for, and its driver; without, use --codec "
                    f"{codec.encoder.split('_')[0]}"
                ) from None
            given = "with these options" if self.preset is None else f"with --preset {self.preset}"
            remedy = "try --codec h264" if self.preset is None else "leave --preset away, or try another"
            raise OutputError(
                f"the encoder {codec.encoder} refuses {context.width}×{context.height} "
                f"{context.pix_fmt} {given} ({reason}); {remedy}"
            ) from None
        key_every = round(KEY_SECONDS / self.time_base) if self._prompt else None
        return PictureEncoder(context, writer, self.turn, _range_tag(context, self._colour), key_every)

    def open_alone(self, flags: int) -> PictureEncoder:
        """An encoder of its own, with the ``flags`` of one that a container has opened.

        Raises:
            OutputError: as ``open``.
        """
        context: VideoCodecContext = av.CodecContext.create(self.codec.encoder, "w")  # type: ignore[assignment]  # PyAV says: any codec
        context.time_base = self.time_base
        context.framerate = self.rate
        context.flags = flags
        return self.open(context)

    def _to_keep(self, bits: int | None) -> tuple[Chroma, int]:
        chroma = self._chroma_to_keep()
        return chroma, self._bits_to_keep(chroma, bits)

    def _chroma_to_keep(self) -> Chroma:
        """The source's own chroma resolution, or the nearest that the encoder has: rather more than less."""
        info, codec = self._info, self.codec
        wanted: Chroma = "420" if info.kind == "live" else chroma_of(info.pixel_format)
        if self._is_odd and not codec.odd_sizes and wanted != "444":
            self.warnings.append(
                f"{info.width}×{info.height} is odd: written as 4:4:4 to keep the exact size, "
                "which some hardware players refuse"
            )
            wanted = "444"
        elif wanted == "444" and codec.encoder in _SELDOM_PLAYED_IN_444 and _is_rgb(info.pixel_format):
            self.warnings.append(
                "colours are written as finely as the source has them (4:4:4), which some players refuse; "
                "--pixel-format yuv420p halves that"
            )
        place = _CHROMAS.index(wanted)
        nearest = (*_CHROMAS[place:], *reversed(_CHROMAS[:place]))
        chroma = next(chroma for chroma in nearest if self._depths(chroma))
        if _CHROMAS.index(chroma) < place:
            self.warnings.append(
                f"{codec.encoder} has no {_spoken(wanted)} here: colours are written as {_spoken(chroma)}"
            )
        return chroma

    def _bits_to_keep(self, chroma: Chroma, asked: int | None) -> int:
        """Finds the fewest bits that hold the source's, among those that the encoder takes."""
        info, encoder = self._info, self.codec.encoder
        possible = self._depths(chroma)
        if asked is not None:
            if asked not in possible:
                raise UsageError(
                    f"{encoder} takes no {asked} bits here, only {' or '.join(map(str, possible))}; "
                    "choose another --codec or --bits"
                )
            return asked
        bits = next((bits for bits in possible if bits >= info.bits), possible[-1])
        if bits < info.bits:
            self.warnings.append(
                f"{info.bits}-bit video ({info.pixel_format}) is written in {bits} bits, the most that "
                f"{encoder} takes here{'; --codec av1 keeps 10' if bits == 8 else ''}"
            )
        return bits

    def _asked_for(self, chroma: Chroma, bits: int) -> tuple[Chroma, int]:
        if bits not in self._depths(chroma):
            known = (yuv_format(c, bits) for c in _CHROMAS for bits in self._depths(c))
            raise UsageError(
                f"{self.codec.encoder} does not take {yuv_format(chroma, bits)}, only {' '.join(known)}"
            )
        if self._is_odd and chroma != "444" and not self.codec.odd_sizes:
            raise UsageError(
                f"{self._info.width}×{self._info.height} is odd, which {self.codec.encoder} takes as "
                "4:4:4 alone; choose another --pixel-format"
            )
        if bits < self._info.bits:
            self.warnings.append(f"{self._info.bits}-bit video is written in {bits} bits, as asked for")
        return chroma, bits

    @property
    def _is_odd(self) -> bool:
        return bool(self._info.width % 2 or self._info.height % 2)

    def _depths(self, chroma: Chroma) -> list[int]:
        """The bits per channel in which the encoder takes such planes, or the same samples in pairs."""
        formats = _formats(self.codec.encoder)
        depths = _CHIP_DEPTHS if self.codec.hardware else _DEPTHS
        names = {bits: yuv_format(chroma, bits) for bits in depths}
        # The encoder of bare pixels names none: it takes all.
        return [bits for bits, name in names.items() if not formats or {name, _IN_PAIRS.get(name)} & formats]

    def _layout(self) -> str:
        """Finds the pixel format for the encoder; PyAV converts the planes to it."""
        formats = _formats(self.codec.encoder)
        as_it_is = not formats or self.pixel_format in formats
        return self.pixel_format if as_it_is else _IN_PAIRS[self.pixel_format]

    def _tell_of_hdr(self) -> None:
        """Mastering display and content light level go into the encoded stream itself."""
        hdr, encoder = self._info.hdr, self.codec.encoder
        lost = list(hdr.dynamic)
        if hdr.display is not None or hdr.light is not None:
            wording = WORDINGS.get(encoder)
            if wording is None:
                lost.insert(0, f"the mastering display's data ({encoder} takes none)")
            else:
                given = self._options.get(wording.option)
                self._options[wording.option] = _joined(given, *encoder_parameters(hdr, wording))
        if lost:
            self.warnings.append(f"not carried over: {', '.join(lost)}")

    def _tell_of_views(self) -> None:
        """Two views in one picture are said by the container or by x264's streams; or else that is lost."""
        info, kind, lost = self._info, self._kind, []
        packing = _PACKINGS.get(info.stereo or "")
        if self.codec.encoder == "libx264" and packing is not None:
            given = self._options.get("x264-params")
            self._options["x264-params"] = _joined(given, f"frame-packing={packing}")
        elif info.stereo and info.stereo not in kind.stereo:
            lost.append(f"that it has two views ({info.stereo})")
        if info.spherical is not None and not (kind.spherical and info.spherical[0] in PROJECTIONS):
            lost.append("that it is a view all around (360°)")
        if lost:
            self.warnings.append(f"not carried over: {', '.join(lost)}")

    def _turn_to_apply(self) -> Turn | None:
        matrix = self._info.display_matrix
        if matrix is None or self._kind.display_matrix:
            return None
        turn = turn_of(matrix)
        if turn is None:
            self.warnings.append("the source is shown askew, which this container cannot say")
        else:
            self.warnings.append(
                f"{named(self._target)} cannot say that a picture is to be turned; "
                "the pixels themselves were turned"
            )
        return turn


class PictureEncoder:
    """One stream of encoded pictures, from its first key frame until ``flush``.

    Args:
        context: open.
        writer: makes the frames that ``context`` takes.
        turn: to be applied to every picture.
        tag: what goes into the encoded stream's headers, and the encoder cannot be told.
        key_every: steps of time after which a picture stands by itself again; None leaves it to the encoder.
    """

    def __init__(
        self,
        context: VideoCodecContext,
        writer: YuvWriter,
        turn: Turn | None,
        tag: BitStreamFilterContext | None = None,
        key_every: int | None = None,
    ) -> None:
        self._key_every = key_every
        self._next_key = 0
        self._context = context
        self._writer = writer
        self._turn = turn
        self._tag = tag
        self._captions: dict[int, bytes] = {}
        self._encoded = 0

    @property
    def reordering(self) -> int:
        """Number of places that a picture may be stored before its turn to be shown."""
        return self._context.reorder_depth

    def encode(
        self, pixels: Pixels, pts: int, duration: int, captions: bytes = b""
    ) -> list[Packet[VideoStream]]:
        """Encodes a picture, shown at ``pts`` for ``duration`` in the encoding's time base; gives what is
        ready.

        Raises FFmpegError.
        """
        frame = self._writer.write(turned(pixels, self._turn) if self._turn else pixels)
        frame.pts = pts
        frame.time_base = self._context.time_base
        frame.duration = duration
        if self._key_every is not None and pts >= self._next_key:
            self._next_key = pts + self._key_every
            frame.pict_type = PictureType.I
        self._encoded += 1
        if captions:
            self._captions[pts] = captions
        return self._tagged(self._context.encode(frame))

    def flush(self) -> list[Packet[VideoStream]]:
        """Gives what the encoder still held; nothing can be encoded afterwards. Raises FFmpegError."""
        packets = self._context.encode(None)
        if self._encoded <= _X265_LEAVES_UNTIMED and self._context.name == "libx265":
            for packet in packets:
                packet.dts = packet.pts
        return self._tagged(packets)

    def _tagged(self, packets: list[Packet[VideoStream]]) -> list[Packet[VideoStream]]:
        if self._tag is not None:
            tagged = []
            for packet in packets:
                time_base = packet.time_base
                for changed in self._tag.filter(packet):
                    changed.time_base = time_base
                    tagged.append(changed)
            packets = tagged
        return [
            with_captions(packet, captions, self._context.name)
            if packet.pts is not None and (captions := self._captions.pop(packet.pts, b""))
            else packet
            for packet in packets
        ]


def _joined(*parameters: str | None) -> str:
    """Joins an encoder's own parameters in one option."""
    return ":".join(filter(None, parameters))


def _range_tag(context: VideoCodecContext, colour: Colour) -> BitStreamFilterContext | None:
    """Tags the range of an H.264 stream as limited, where that is all that is known of its colours: x264
    leaves the tag out then."""
    alone = colour.matrix == colour.primaries == colour.transfer == _UNSPECIFIED
    if context.name != "libx264" or colour.range != _LIMITED or not alone:
        return None
    tag = BitStreamFilterContext("h264_metadata=video_full_range_flag=0", "h264")
    if context.extradata:
        (header,) = tag.filter(Packet(context.extradata))
        context.extradata = bytes(header)
    return tag


def _parsed(pixel_format: str, bits: int | None) -> tuple[Chroma, int]:
    """FFmpeg's name of a format of planes as chroma and bits. Raises UsageError."""
    known = {yuv_format(chroma, depth): (chroma, depth) for chroma in _CHROMAS for depth in _DEPTHS}
    found = known.get(pixel_format) or known.get(f"{pixel_format}le")
    if found is None:
        raise UsageError(f"--pixel-format {pixel_format} is not known; use one of {' '.join(known)}")
    if bits is not None and bits != found[1]:
        raise UsageError(f"--bits {bits} is not what --pixel-format {pixel_format} has; leave one away")
    return found


def _is_rgb(pixel_format: str) -> bool:
    return bool(av.VideoFormat(pixel_format, 16, 16).is_rgb)


def _spoken(chroma: Chroma) -> str:
    return ":".join(chroma)


def _formats(encoder: str) -> set[str]:
    """The pixel formats that this build's encoder takes, by FFmpeg's names. Raises UsageError."""
    try:
        formats = av.Codec(encoder, "w").video_formats
    except ValueError:
        raise UsageError(f"this build of FFmpeg has no {encoder} encoder") from None
    return {form.name for form in formats or ()}


def _time_base(kind: Container, info: StreamInfo) -> Fraction:
    # AVI counts frames: a finer time base would be filled up with thousands of empty ones.
    if kind.even_pace and info.rate:
        return 1 / info.rate
    return info.time_base
