"""Frames, what they become on their way through a run, and the properties of the stream they came from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from measnet.image import Pixels

if TYPE_CHECKING:
    from av.stream import Stream
    from av.video.stream import VideoStream

    from measnet.metrics import Choices
    from measnet.runtime.restorer import RestoredFrame

SourceKind = Literal["video", "live", "images"]


@dataclass(frozen=True, slots=True)
class Colour:
    """Meaning of a stream's numbers as colours, in the code points of ITU-T H.273.

    ``2`` means unspecified for ``matrix``, ``primaries`` and ``transfer``; ``range`` is
    ``0`` unspecified, ``1`` limited (16..235), ``2`` full (0..255).
    """

    matrix: int = 2
    primaries: int = 2
    transfer: int = 2
    range: int = 0


@dataclass(frozen=True, slots=True)
class MasteringDisplay:
    """The display that HDR video was graded on (SMPTE ST 2086).

    The primaries and the white point are CIE 1931 x and y, the luminances cd/m²; zero is not
    known.
    """

    red: tuple[Fraction, Fraction]
    green: tuple[Fraction, Fraction]
    blue: tuple[Fraction, Fraction]
    white: tuple[Fraction, Fraction]
    darkest: Fraction
    brightest: Fraction


@dataclass(frozen=True, slots=True)
class ContentLight:
    """Brightness that HDR video reaches, in cd/m² (MaxCLL and MaxFALL of CTA-861.3)."""

    brightest_pixel: int
    brightest_frame: int


@dataclass(frozen=True, slots=True)
class Hdr:
    """Metadata of HDR video besides its colour tags. ``dynamic`` names what it says anew for each
    frame (HDR10+, Dolby Vision), which is not carried over."""

    display: MasteringDisplay | None = None
    light: ContentLight | None = None
    dynamic: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PictureMetadata:
    """Facts that an image file states of its picture.

    ``exif``, ``icc`` and ``xmp`` are its blocks, ``dpi`` its dots per inch, across and down. ``own`` is
    everything as files of the same ``format`` say it: chunks of PNG, segments of JPEG, tags of TIFF.
    """

    format: str = ""
    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    dpi: tuple[float, float] | None = None
    own: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class PictureFile:
    """Content of an image file besides the colours that are restored.

    ``alpha`` is H×W, of the pixels' depth, or absent. ``grey`` says that the file had one channel, and gets
    one back. The EXIF orientation lives in ``metadata``, so the pixels stay as stored.
    """

    path: Path
    alpha: Pixels | None = None
    grey: bool = False
    metadata: PictureMetadata = field(default_factory=PictureMetadata)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture and the moment it is shown.

    ``pixels`` is H×W×3 in RGB order: uint8, 0..255, or, from a source of more than 8 bits,
    uint16, where full strength is 65535 whatever the source's own depth. The picture is shown
    at ``pts * time_base`` seconds for ``duration * time_base`` seconds (``0``: not known).
    ``captions`` are those of ATSC A/53 that go with it. ``picture`` is there for image files only.
    ``captured`` is when it left the decoder, as ``time.monotonic`` counts; 0 where nobody noted it.
    """

    pixels: Pixels
    pts: int
    time_base: Fraction
    duration: int = 0
    picture: PictureFile | None = None
    captions: bytes = b""
    captured: float = 0.0


@dataclass(slots=True)
class Restoration:
    """A frame on its way: what came in, and what has become of it so far.

    Each step of the stream fills in its part; observers only look.
    """

    source: Frame

    pixels: Pixels
    """H×W×3, as deep as the source's: its own to begin with, the result in the end."""

    new_scene: bool = True
    """True where it begins another scene than the frame before; a picture of a folder always does."""

    tiles: int = 0
    """Pieces it was restored in."""

    choices: list[Choices] = field(default_factory=list)
    """Experts that restored it, per tile, as far as the engine tells."""

    prompt_weights: list[npt.NDArray[np.float32]] = field(default_factory=list)
    """Shares of the basic prompts that were called for, per tile, as far as the engine tells."""

    damage: dict[str, float] | None = None
    """Shares of noise, rain and so on in its damage, where the engine tells."""

    faulty: bool = False
    """True where it came back wrong at first."""

    verified: bool = False
    """True where it was taken to be held against the reference."""

    engine_result: RestoredFrame | None = None
    """The engine's whole answer. It is large, so only observers right behind the engine are given it."""

    @property
    def result(self) -> Frame:
        """The frame with its pixels as they are now."""
        return replace(self.source, pixels=self.pixels)


@dataclass(frozen=True, slots=True)
class Mark:
    """The end of a segment in the stream, with all that a later run needs to go on behind it."""

    state: bytes | None = None
    """The scene's and the engine's state."""

    past: bytes | None = None
    """The frames that the next ones are fused with."""


class Cover(NamedTuple):
    """A still picture that stands for a file: its stream, and the bytes of a JPEG, PNG or BMP file."""

    stream: VideoStream
    data: bytes


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Properties of a whole source, made by the source and read by the sink.

    ``width`` and ``height`` are in pixels, before rotation (``0`` for a folder of images,
    whose sizes differ). ``frames`` is how many are expected, where that is known.
    ``bits`` is the depth of the source's own samples. ``display_matrix`` has nine integers
    in the order of the MP4 ``tkhd`` box. ``stereo`` is how two views lie in one picture, by Matroska's
    names (``left_right``), ``spherical`` that it is a view all around, as the nine numbers of FFmpeg's
    AVSphericalMapping. ``copied`` are the audio, subtitle and attachment streams whose packets travel
    along untouched, ``covers`` the pictures that stand for the file. ``intra`` says that each frame was coded
    for itself, as MJPEG and ProRes do it, so that noise is new in each. ``metadata`` is said of the whole
    file, ``picture_metadata`` of the picture's stream.
    """

    name: str
    kind: SourceKind
    width: int
    height: int
    time_base: Fraction
    rate: Fraction | None = None
    frames: int | None = None
    pixel_format: str = "rgb24"
    bits: int = 8
    intra: bool = False
    colour: Colour = field(default_factory=Colour)
    hdr: Hdr = field(default_factory=Hdr)
    sample_aspect: Fraction | None = None
    display_matrix: tuple[int, ...] | None = None
    stereo: str | None = None
    spherical: tuple[int, ...] | None = None
    copied: tuple[Stream, ...] = ()
    covers: tuple[Cover, ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    picture_metadata: dict[str, str] = field(default_factory=dict)
    chapters: tuple[Any, ...] = ()
