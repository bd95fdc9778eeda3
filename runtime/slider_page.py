"""A page that shows source and result over each other, with a slider between them."""

from __future__ import annotations

import html
import json
import os
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
    write_whole(target, _PAGE.substitute(values))


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

_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
  body { margin: 0; background: #16181c; color: #e4e6ea; font: 15px system-ui, sans-serif; }
  #stage { position: relative; width: fit-content; margin: auto; touch-action: none; cursor: ew-resize; }
  #stage > * { display: block; max-width: 100vw; max-height: calc(100vh - 6rem); }
  #restored { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--at, 50%)); }
  #line { position: absolute; inset: 0 auto 0 var(--at, 50%); width: 2px; background: #fff; }
  p { max-width: 60rem; margin: .6rem auto; padding: 0 1rem; }
  .controls { display: flex; gap: 1rem; align-items: center; }
  .controls input { flex: 1; }
  #said:not(:empty) { color: #ffb4a2; }
</style>
<div id="stage">
$source
$restored
<div id="line"></div>
</div>
$controls
<p><label>Source <input id="at" type="range" min="0" max="100" step="any" value="50"> restored</label></p>
<p id="said" role="status"></p>
<script>
"use strict";
const get = id => document.getElementById(id);
const stage = get("stage"), source = get("source"), restored = get("restored"), at = get("at");
const video = source.tagName === "VIDEO";
const place = share => { at.value = share; stage.style.setProperty("--at", share + "%"); };
at.addEventListener("input", () => place(at.value));
stage.addEventListener("pointermove", event => {
  const box = stage.getBoundingClientRect();
  if (event.buttons || event.pointerType === "mouse")
    place(Math.min(100, Math.max(0, 100 * (event.clientX - box.left) / box.width)));
});
for (const side of [source, restored]) {
  side.addEventListener("error", () => {
    get("said").textContent = "This browser cannot show " + decodeURI(side.getAttribute("src"));
  });
}
const ready = () => { document.body.dataset.state = "ready"; };
if (!video) {
  Promise.all([source.decode(), restored.decode()]).then(ready, () => {});
} else {
  const play = get("play"), moment = get("moment"), clock = get("clock");
  let waiting = 2;
  for (const side of [source, restored]) {
    side.addEventListener("loadeddata", () => { if (--waiting === 0) ready(); }, {once: true});
  }
  const go = time => {
    time = Math.min(source.duration || 0, Math.max(0, time));
    source.currentTime = restored.currentTime = time;
  };
  const show = () => {
    moment.max = source.duration || 1;
    moment.value = source.currentTime;
    clock.textContent = source.currentTime.toFixed(2) + " s";
  };
  const toggle = () => {
    if (source.paused) { restored.currentTime = source.currentTime; source.play(); restored.play(); }
    else { source.pause(); restored.pause(); restored.currentTime = source.currentTime; }
  };
  play.addEventListener("click", toggle);
  moment.addEventListener("input", () => go(Number(moment.value)));
  source.addEventListener("play", () => { play.textContent = "Pause"; });
  source.addEventListener("pause", () => { play.textContent = "Play"; });
  source.addEventListener("ended", () => restored.pause());
  source.addEventListener("timeupdate", show);
  source.addEventListener("loadedmetadata", show);
  addEventListener("keydown", event => {
    if (event.target.tagName === "INPUT" || event.target.tagName === "BUTTON") return;
    if (event.key === " ") { event.preventDefault(); toggle(); }
    if (event.key === "ArrowRight") go(source.currentTime + $frame);
    if (event.key === "ArrowLeft") go(source.currentTime - $frame);
  });
  // The two drift apart while they play: the result follows the source.
  const follow = () => {
    if (!source.paused && !restored.seeking) {
      const late = source.currentTime - restored.currentTime;
      if (Math.abs(late) > 0.15) restored.currentTime = source.currentTime;
      else restored.playbackRate = 1 + Math.max(-0.3, Math.min(0.3, late * 2));
    }
    requestAnimationFrame(follow);
  };
  follow();
}
</script>
</html>
""")
