"""Memory: how large a picture may be restored in one piece here, and how large one may claim to be."""

from __future__ import annotations

from pathlib import Path

from measnet.config import MEASNetConfig
from measnet.errors import InputError
from measnet.image import LARGEST_SIDE

_ASSUMED = 2 * 1024**3  # bytes, where the system does not tell
_SHARE = 0.6  # of what is free, for one inference; decoding, encoding and the rest need theirs


def largest_area(config: MEASNetConfig, memory: int | None = None) -> int:
    """Pixels that one inference may have, from ``memory`` in bytes; by default, from what is free now."""
    free = available_memory() if memory is None else memory
    return max(1, int(free * _SHARE / bytes_per_pixel(config)))


def bytes_per_pixel(config: MEASNetConfig) -> float:
    """Peak memory of one float32 inference per pixel of the picture.

    A count of the feature maps alive together in the widest place, the decoder at full size, with the
    surplus that bench/memory.py measured over it.
    """
    wide = 2 * config.width
    feed_forward = 4 * config.hidden(wide) + 2 * wide
    attention = 3 * 2 * wide + 2 * wide
    experts = config.pixel_experts[0] * config.width * 3 if config.mese else 0
    branch = 8 * wide if 1 in config.fd_mee_levels else 0
    alive = max(feed_forward, attention, experts, branch) + 2 * wide
    return 1.75 * 4 * alive / config.stem_scale**2 + 3 * 4 * 4


def available_memory(groups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that a program may still take: the system's, or its container's if that is less.

    ``groups`` is where control groups of Linux lie, of either version. Files that a group has read count as
    its memory; those not read of late make room for programs, and are left out.
    """
    free = _meminfo()
    for folder, limit_name, used_name, cache in (
        (groups, "memory.max", "memory.current", "inactive_file"),
        (groups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, used = _number(folder / limit_name), _number(folder / used_name)
        if limit is not None and used is not None:
            used -= _counted(folder / "memory.stat", cache)
            free = min(free, max(0, limit - used))
    return free


def _meminfo() -> int:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return _ASSUMED
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return _ASSUMED


def _number(path: Path) -> int | None:
    try:
        text = path.read_text("ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _counted(path: Path, name: str) -> int:
    try:
        lines = path.read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0)


MAX_PIXELS = LARGEST_SIDE * LARGEST_SIDE


BYTES_PER_PIXEL = 64
"""Memory of restoring besides the network itself: 42 bytes were measured of the restorer (8 bits, tiles), and
frames wait before and behind it."""


def check_memory(name: str, width: int, height: int) -> None:
    """Raise InputError for a picture that the free memory cannot hold, tiled or not."""
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
    if max(width, height) > LARGEST_SIDE:
        raise InputError(
            f"{name}: its picture is declared as {width}×{height} pixels, beyond the limit of "
            f"{LARGEST_SIDE}×{LARGEST_SIDE}; crop or scale it first"
        )
