"""A page that shows source and result over each other, with a slider between them."""

from __future__ import annotations

import html
import json
import os
from importlib.resources import files
from pathlib import Path
from string import Template
from urllib.parse import quote

from measnet.errors import UsageError
from measnet.whole_file import write_whole

PLAYED = (".mp4", ".m4v", ".mov", ".webm")
"""Endings of videos that browsers play."""

SHOWN = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
"""Endings of pictures that browsers show."""


def check_page(*files: Path) -> None:
    """Raises ``UsageError`` for a file that no browser shows."""
    for file in files:
        if file.suffix.lower() not in (*PLAYED, *SHOWN):
            raise UsageError(
                f"browsers do not show {file.suffix or 'such'} files ({file.name}): "
                "use --compare side, or an --out ending in .mp4"
            )


def write_page(source: Path, restored: Path, target: Path, *, rate: float | None = None) -> None:
    """Writes a page beside ``restored`` that shows both files from where they lie; it holds nothing of them.

    ``rate`` is the frames per second of a video, for stepping by the arrow keys.
    Raises ``OutputError`` when it cannot be written.
    """
    video = restored.suffix.lower() in PLAYED
    values = {
        "title": html.escape(f"{source.name} and {restored.name}"),
        "source": _element(video, "source", _address(source, target.parent)),
        "restored": _element(video, "restored", _address(restored, target.parent)),
        "controls": _CONTROLS if video else "",
        "frame": json.dumps(1 / rate if rate else 0.04),
    }
    page = files("measnet.runtime").joinpath("slider.html").read_text("utf-8")
    write_whole(target, Template(page).substitute(values))


def _address(file: Path, folder: Path) -> str:
    """Gives the address of ``file``, seen from ``folder``."""
    relative = os.path.relpath(file.resolve(), folder.resolve())
    return quote(os.fsencode(Path(relative).as_posix()), safe="/")


def _element(video: bool, name: str, address: str) -> str:
    address = html.escape(address)
    if video:
        muted = " muted" if name == "restored" else ""
        return f'<video id="{name}" src="{address}" preload="auto" playsinline{muted}></video>'
    return f'<img id="{name}" src="{address}" alt="{name}">'


_CONTROLS = """<p class="controls">
<button id="play">Play</button>
<input id="moment" type="range" min="0" max="1" step="any" value="0" aria-label="Moment">
<output id="clock">0.00 s</output>
</p>"""
