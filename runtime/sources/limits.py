"""How large a picture may claim to be before it is refused unread."""

from __future__ import annotations

from measnet.errors import InputError
from measnet.runtime.memory import available_memory

MAX_SIDE = 16_384
MAX_PIXELS = 16_384 * 16_384


BYTES_PER_PIXEL = 64
"""That restoring takes besides the network itself: 42 were measured of the restorer (8 bits, tiles), and
frames wait before and behind it."""


def check_memory(name: str, width: int, height: int) -> None:
    """Raise InputError for a picture that cannot be held beside what else runs, tiled or not."""
    needed, free = width * height * BYTES_PER_PIXEL, available_memory()
    if needed > free:
        raise InputError(
            f"{name}: a picture of {width}×{height} takes {needed / 1e9:.1f} GB to restore, and "
            f"{free / 1e9:.1f} GB are free; crop or scale it first"
        )


def check_size(name: str, width: int, height: int) -> None:
    """Raise InputError for a declared size nobody could mean, before memory is asked for."""
    if width < 1 or height < 1:
        raise InputError(f"{name}: its picture is declared as {width}×{height} pixels; damaged?")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InputError(
            f"{name}: its picture is declared as {width}×{height} pixels, beyond the limit of "
            f"{MAX_SIDE}×{MAX_SIDE}; crop or scale it first"
        )
