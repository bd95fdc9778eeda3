"""An image file, in the format its name says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from measnet.errors import OutputError, UsageError
from measnet.image_header import IMAGE_ENDINGS
from measnet.runtime.frame import Frame, Picture, Pixels
from measnet.runtime.sinks.aside import Aside, write_error

if TYPE_CHECKING:
    from measnet.runtime.sources import Item

# A JPEG stays a JPEG so that a folder keeps its names; at 95 with full chroma the second
# compression lies far below what restoring changes. WebP above 100 is lossless.
_JPEG = [
    cv2.IMWRITE_JPEG_QUALITY,
    95,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]
_OPTIONS: dict[str, list[int]] = {
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101],
}
_TAKES_METADATA = (".jpg", ".jpeg", ".png", ".webp")
_OPAQUE = (".jpg", ".jpeg", ".bmp")
_DEEP = (".png", ".tif", ".tiff")


class ImageSink:
    """Writes one frame to an image file, in the channels and the depth the frame's file had.

    Raises:
        UsageError: the file's ending is not that of an image.
    """

    def __init__(self, target: Path) -> None:
        if target.suffix.lower() not in IMAGE_ENDINGS:
            raise UsageError(
                f"{target}: an image is written as one of {' '.join(IMAGE_ENDINGS)}, not '{target.suffix}'"
            )
        self.skipped = 0
        self.warnings: list[str] = []
        self._target = target
        self._aside = Aside(target)
        self._encoder = ImageEncoder()
        self._written = False
        self._done = False

    def write(self, item: Item) -> None:
        """See Sink.write. The frame must have its ``picture``."""
        frame, picture = image_frame(item)
        data = self._encoder.encode(frame.pixels, picture, self._target.suffix.lower())
        try:
            self._aside.path.write_bytes(data)
        except OSError as error:
            raise write_error(self._target, error) from None
        self._written = True

    def finish(self, *, partial: bool = False) -> Path | None:
        """See Sink.finish."""
        if not self._written:
            self.abort()
            return None
        self._done = True
        self.warnings += self._encoder.losses()
        return self._aside.keep(partial=partial)

    def abort(self) -> None:
        """See Sink.abort."""
        if not self._done:
            self._done = True
            self._aside.discard()


class ImageEncoder:
    """Turns pixels into the bytes of image files. ``lost`` names, once each, what formats could not hold."""

    def __init__(self) -> None:
        self.lost: dict[str, None] = {}

    def losses(self) -> list[str]:
        """A line on what was lost, if anything was."""
        return [f"not carried over: {', '.join(self.lost)}"] if self.lost else []

    def encode(self, pixels: Pixels, picture: Picture, ending: str) -> bytes:
        """``pixels`` in the channels of ``picture``, with its metadata, as a file that ends in ``ending``.

        Raises OutputError.
        """
        values = _channels(pixels, picture)
        if values.dtype == np.uint16 and ending not in _DEEP:
            self.lost[f"16 bits per channel ({ending} has 8)"] = None
            values = _eight_bit(values)
        if picture.alpha is not None and ending in _OPAQUE:
            self.lost[f"transparency ({ending} has none)"] = None
            values = np.ascontiguousarray(values[:, :, :3])
        kinds = [kind for kind, _ in picture.metadata]
        if kinds and ending not in _TAKES_METADATA:
            self.lost[f"EXIF and colour profile (not written to {ending})"] = None
            kinds = []
        options = _OPTIONS.get(ending, [])
        try:
            if kinds:
                blocks = [np.frombuffer(block, np.uint8) for _, block in picture.metadata]
                sound, data = cv2.imencodeWithMetadata(ending, values, kinds, blocks, options)
            else:
                sound, data = cv2.imencode(ending, values, options)
        except cv2.error:
            sound = False
        if not sound:
            raise OutputError(
                f"a picture of {values.shape[1]}×{values.shape[0]} cannot be written as {ending}; "
                "choose an --out ending in .png"
            )
        return data.tobytes()


def image_frame(item: Item) -> tuple[Frame, Picture]:
    """A frame that came from an image file, with what that held beside its colours."""
    if not isinstance(item, Frame) or item.picture is None:
        raise TypeError("an image sink takes frames that came from image files")
    return item, item.picture


def _eight_bit(values: Pixels) -> Pixels:
    # 65535 / 255 = 257 exactly.
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _channels(pixels: Pixels, picture: Picture) -> Pixels:
    """RGB as OpenCV takes it: BGR, grey or BGRA. Grey with alpha has no place but BGRA."""
    if picture.grey:
        grey = np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY), pixels.dtype)
        if picture.alpha is None:
            return grey
        return np.dstack([grey, grey, grey, picture.alpha])
    bgr = pixels[:, :, ::-1]
    if picture.alpha is not None:
        return np.dstack([bgr, picture.alpha])
    return np.ascontiguousarray(bgr)
