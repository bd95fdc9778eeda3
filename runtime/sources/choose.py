"""Choice of the source that reads what a user names."""

from __future__ import annotations

import threading
from pathlib import Path

from measnet.errors import InputError, UsageError
from measnet.image_header import IMAGE_ENDINGS, PictureError, check_is_picture
from measnet.runtime.live.credentials import without_secrets
from measnet.runtime.live.peer import tls_options
from measnet.runtime.live.watch import Watch
from measnet.runtime.options import Live, Reading
from measnet.runtime.sources import Source
from measnet.runtime.sources.camera import CAMERA_PREFIX, camera_number, is_device
from measnet.runtime.sources.images import Images
from measnet.runtime.sources.live import LiveSource
from measnet.runtime.sources.network import URL_SCHEMES
from measnet.runtime.sources.standard_input import STANDARD_INPUT, StandardInput
from measnet.runtime.sources.video import VideoFile
from measnet.whole_file import is_special


def is_live(spec: str) -> bool:
    """Says whether ``spec`` names a camera or a network stream, not something on disk."""
    return spec.startswith((CAMERA_PREFIX, *URL_SCHEMES)) or is_device(spec)


def is_on_disk(spec: str) -> bool:
    """Says whether ``spec`` names something on disk."""
    return not is_live(spec) and spec != STANDARD_INPUT


def is_picture(path: Path) -> bool:
    """Says whether a file is called like a picture that is read, or holds one.

    Raises MissingPackageError for one that only a package would read.
    """
    if path.suffix.lower() in IMAGE_ENDINGS:
        return True
    try:
        check_is_picture(path)
    except PictureError:
        return False
    return True


def open_source(
    spec: str,
    reading: Reading | None = None,
    live: Live | None = None,
    *,
    watch: Watch | None = None,
    stop: threading.Event | None = None,
) -> Source:
    """Opens a video, an image, a folder of images, ``-`` (standard input), ``camera:N`` or an address.

    ``watch`` hears what becomes of a live source, which is not waited for once ``stop`` is set.

    Raises:
        InputError: it cannot be read.
        UsageError: ``reading`` asks for what only a video file has, and it is none; or ``live`` for what no
            file has.
        StoppedError: ``stop`` was set before it had sent a picture.
    """
    reading = reading or Reading()
    live = live or Live()
    check_source(spec, live)
    if is_live(spec):
        reading.refuse_for(without_secrets(spec))
        drain = live.late != "block"
        return LiveSource(
            spec,
            live.reconnect,
            watch=watch,
            stop=stop,
            drain=drain,
            insecure=live.insecure,
            waits=live.waits,
        )
    if spec == STANDARD_INPUT:
        return VideoFile(StandardInput(), reading)
    path = Path(spec)
    if path.is_dir() or (reading.raw is None and is_picture(path)):
        reading.refuse_for(spec)
        return Images(path)
    return VideoFile(path, reading)


def check_source(spec: str, live: Live) -> None:
    """Refuses what cannot be read, as far as that shows without opening it.

    Raises:
        InputError: there is nothing of this name, or it is a pipe.
        UsageError: it is an address of nobody, or ``live`` is for other sources.
    """
    if spec.startswith(CAMERA_PREFIX):
        camera_number(spec)
    elif is_live(spec) and not is_device(spec):
        tls_options(spec, insecure=live.insecure)
    if is_live(spec) or spec == STANDARD_INPUT:
        return
    if live.max_latency is not None or live.late not in (None, "block"):
        raise UsageError(
            f"{without_secrets(spec)} is a file, and frames of files are never late: --max-latency and "
            "--late drop-... are for cameras, streams and standard input"
        )
    path = Path(spec)
    if "://" in spec and not path.exists():
        raise InputError(f"{without_secrets(spec)}: addresses begin with {', '.join(URL_SCHEMES)}")
    if not path.exists():
        raise InputError(f"{path} does not exist; check the name")
    if is_special(path):
        raise InputError(f"{path} is a pipe or a device; read a video from it with: measnet-run - < {path}")
