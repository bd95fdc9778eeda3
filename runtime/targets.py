"""Target of a run: where its result goes, and what kind of result it is."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from measnet.errors import UsageError
from measnet.image_header import IMAGE_ENDINGS, ending_of_result
from measnet.runtime.frame import StreamInfo
from measnet.runtime.live.peer import check_address
from measnet.runtime.sinks.aside import check_target, exists_already
from measnet.runtime.sinks.containers import CONTAINERS, ending_of_video
from measnet.runtime.sinks.loopback import is_loopback
from measnet.runtime.sinks.push import SCHEMES
from measnet.runtime.sinks.standard_output import STANDARD_OUTPUT
from measnet.runtime.sinks.target import Receiver, Target, Watched, Window
from measnet.runtime.sources.standard_input import STANDARD_INPUT

_SLASHES = ("/", os.sep)
_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://(.*)", re.IGNORECASE | re.DOTALL)
_LISTENS = re.compile(r"[?&](listen=[^0]|mode=(listener|rendezvous))", re.IGNORECASE)


def targets_for(spec: str, info: StreamInfo, outs: Sequence[str], *, watched: bool = False) -> list[Target]:
    """The results' places: one for each of ``outs``, or without any the one beside the input. A live source
    that is ``watched`` needs none.

    Raises:
        UsageError: as ``target_for``; or an address is none that can be sent to; or two are the same.
    """
    if info.kind == "live" and watched and not outs:
        return [Watched()]
    targets = [_named(spec, info, out) for out in outs] or [target_for(spec, info, None)]
    for number, target in enumerate(targets):
        if target in targets[:number]:
            raise UsageError(f"--out {target} is given twice")
    return targets


def check_targets(
    targets: Sequence[Target], inputs: list[Path], *, overwrite: bool, parts: bool, rehearsal: bool = False
) -> list[str]:
    """Refuses targets that cannot or must not be written, before any work is done. Receivers are asked when
    their sinks are opened. ``parts``: files get names of their own.

    Returns a line for each that exists and stands in the way of a run, where this is its ``rehearsal``.
    Raises UsageError.
    """
    in_the_way = []
    for target in targets:
        if isinstance(target, Path) and target != STANDARD_OUTPUT and not is_loopback(target):
            may_be_there = overwrite or (parts and target.suffix.lower() in CONTAINERS)
            check_target(target, inputs, overwrite=may_be_there or rehearsal)
            if not may_be_there and target.exists():
                in_the_way.append(exists_already(target))
    return in_the_way


def _named(spec: str, info: StreamInfo, out: str) -> Target:
    if out == Window().name:
        return Window()
    return _address(out) if _ADDRESS.fullmatch(out) else target_for(spec, info, out)


def _address(out: str) -> Receiver:
    address = Receiver(out)
    if address.scheme not in SCHEMES:
        raise UsageError(
            f"{address} is nothing that a result can be sent to; use one of "
            f"{' '.join(f'{scheme}://' for scheme in SCHEMES)}, or a file"
        )
    if _LISTENS.search(out):
        raise UsageError(
            f"{address}: receivers are called, not waited for; leave that away, and have the receiver listen"
        )
    check_address(out)
    return address


def target_for(spec: str, info: StreamInfo, out: str | None) -> Path:
    """The result's path: ``out`` as given, else beside the input with ``.restored`` in its name.

    ``clip.mp4`` -> ``clip.restored.mp4``, ``photo.jpg`` -> ``photo.restored.jpg``, the folder
    ``shots`` -> ``shots.restored``; a video whose kind cannot be written becomes ``.mp4`` or ``.mkv``. With
    ``out`` an existing folder, a file goes into it under its own name; ``-`` is standard output.

    Raises:
        UsageError: a live source, or standard input, without ``out``; or ``out`` ends in a slash and there
            is no such folder for the file to go into; or the source is a folder, and ``out`` called like a
            file.
    """
    if out == str(STANDARD_OUTPUT):
        return STANDARD_OUTPUT
    if info.kind == "live" or spec == STANDARD_INPUT:
        if out is None:
            watch = ", or --console 8080 to look at it" if info.kind == "live" else ""
            raise UsageError(f"{spec} has no file name of its own; say where to write with --out{watch}")
        return Path(out)
    source = Path(spec)
    if out is not None and out.endswith(_SLASHES) and not source.is_dir() and not Path(out).is_dir():
        raise UsageError(f"the folder {out} does not exist; create it or choose another --out")
    if source.is_dir():
        return _folder_for(source, out)
    ending = source.suffix
    if info.kind == "video":
        ending = ending_of_video(ending)
    if info.kind == "images":
        ending = ending_of_result(ending)
    name = f"{source.stem}.restored{ending}"
    if out is None:
        return source.with_name(name)
    return Path(out) / name if Path(out).is_dir() else Path(out)


def _folder_for(source: Path, out: str | None) -> Path:
    if out is None:
        # '.' and '..' have names only once resolved.
        named = source.resolve() if source.name in ("", "..") else source
        return named.with_name(named.name + ".restored")
    if Path(out).suffix.lower() in (*CONTAINERS, *IMAGE_ENDINGS) and not Path(out).is_dir():
        raise UsageError(
            f"the folder {source} becomes a folder, and {out} is the name of a file; choose another --out"
        )
    return Path(out)
