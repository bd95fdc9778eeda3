"""How large a picture may claim to be before it is refused unread."""

from __future__ import annotations

from measnet.errors import InputError

MAX_SIDE = 16_384
MAX_PIXELS = 16_384 * 16_384


def check_size(name: str, width: int, height: int) -> None:
    """Raise InputError for a declared size nobody could mean, before memory is asked for."""
    if width < 1 or height < 1:
        raise InputError(f"{name}: its picture is declared as {width}×{height} pixels; damaged?")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise InputError(
            f"{name}: its picture is declared as {width}×{height} pixels, beyond the limit of "
            f"{MAX_SIDE}×{MAX_SIDE}; crop or scale it first"
        )
