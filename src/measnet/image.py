"""Between pictures as people have them and tensors as the network takes them.

Pixels are uint8 (0 to 255) or uint16 (0 to 65535, whatever the depth of the source), H W 3, or B H W 3 for
a batch; images are float32, B 3 H W, RGB, 0 to 1. The graphs of ``export/camera_bytes.py`` do the same for
uint8 inside.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from measnet.errors import UsageError

Pixels = NDArray[np.uint8 | np.uint16]
EightBitPixels = NDArray[np.uint8]
Image = NDArray[np.float32]
ChannelOrder = Literal["rgb", "bgr"]
LARGEST_SIDE = 16_384  # pixels: of pictures, of frames, of a graph's input
Depth = type[np.uint8 | np.uint16] | np.dtype[np.uint8 | np.uint16]


def to_image(pixels: Pixels, channel_order: ChannelOrder = "rgb") -> Image:
    """H W 3 -> 1 3 H W. Raises ``UsageError`` when ``pixels`` is not uint8 or uint16, H W 3, or is empty."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype not in (np.uint8, np.uint16):
        found = getattr(pixels, "dtype", type(pixels).__name__)
        raise UsageError(f"a frame must be a uint8 (0 to 255) or uint16 (0 to 65535) array, got {found}")
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise UsageError(f"a frame must have shape (height, width, 3), got {pixels.shape}")
    return batch_to_images(pixels[None], channel_order)


def to_pixels(image: Image, channel_order: ChannelOrder = "rgb", depth: Depth = np.uint8) -> Pixels:
    """1 3 H W -> H W 3: clipped to 0-1 and rounded to the nearest of the steps that ``depth`` has."""
    return images_to_batch(image, channel_order, depth)[0]


def batch_to_images(batch: Pixels, channel_order: ChannelOrder = "rgb") -> Image:
    """B H W 3 -> B 3 H W."""
    ordered = batch[..., ::-1] if channel_order == "bgr" else batch
    planes = np.ascontiguousarray(ordered.transpose(0, 3, 1, 2))
    return np.multiply(planes, np.float32(1 / np.iinfo(planes.dtype).max), dtype=np.float32)


def images_to_batch(images: Image, channel_order: ChannelOrder = "rgb", depth: Depth = np.uint8) -> Pixels:
    """B 3 H W -> B H W 3, as ``to_pixels``; undoes ``batch_to_images`` exactly."""
    planes = np.clip(images, 0, 1) * np.float32(np.iinfo(depth).max) + np.float32(0.5)
    batch = planes.astype(depth).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(batch[..., ::-1] if channel_order == "bgr" else batch)


def eight_bits(pixels: Pixels) -> NDArray[np.uint8]:
    """Pixels of any shape, uint8 as they are, uint16 rounded: 65535 becomes 255."""
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, np.uint8)
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def sixteen_bits(pixels: Pixels) -> NDArray[np.uint16]:
    """Pixels of any shape, uint16 as they are, of uint8 255 becomes 65535."""
    return np.asarray(pixels if pixels.dtype == np.uint16 else pixels * np.uint16(257), np.uint16)


def pad(image: Image, size: tuple[int, int]) -> Image:
    """Grows B 3 H W to ``size`` (height, width) at the bottom and the right, by reflection."""
    height, width = size[0] - image.shape[2], size[1] - image.shape[3]
    if not (height or width):
        return image
    return np.pad(image, ((0, 0), (0, 0), (0, height), (0, width)), mode="reflect")
