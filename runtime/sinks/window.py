"""A window on this machine's screen: ffplay, which reads what goes down a pipe."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile

from measnet.errors import ClosedError, OutputError, UsageError
from measnet.runtime.frame import StreamInfo
from measnet.runtime.live.watch import Watch
from measnet.runtime.sinks.standard_output import PipeSink
from measnet.runtime.sinks.target import Target, Window

_NOTHING_WAITS = ("-fflags", "nobuffer", "-flags", "low_delay", "-framedrop", "-probesize", "32")
_CLOSED = (0, 123, -signal.SIGINT)
"""Exit statuses of ffplay: its window was closed, or it was told to end, as Ctrl-C tells it too."""

_ENDS = 5.0
"""Seconds within which a player is gone that reads no more."""

_LAST = 10.0
"""Seconds that the player gets at the end to show the frames in the pipe."""


class WindowSink(PipeSink):
    """Shows frames in a window called like the camera. Closing it is no failure.

    Args:
        info: what belongs to the source.
        watch: hears that it was closed; has the name.

    Raises:
        UsageError: there is no player, or no screen.
    """

    def __init__(self, info: StreamInfo, watch: Watch) -> None:
        command, drivers = find_player()
        self._watch = watch
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the player
        self._process = subprocess.Popen(
            [*command, "-window_title", watch.camera],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._said,
            env={**os.environ, **drivers},
        )
        atexit.register(self._process.kill)  # one that is paused never sees the end of the pipe
        assert self._process.stdin is not None
        super().__init__(Window(), info, self._process.stdin)

    def finish(self, *, partial: bool = False) -> Target | None:
        """See Sink.finish. Frames still in the pipe are shown first."""
        try:
            target = super().finish(partial=partial)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LAST)
        except ClosedError:
            target = Window()
        self.abort()
        return target

    def abort(self) -> None:
        """See Sink.abort. The window is gone."""
        self._process.kill()
        self._process.wait()
        super().abort()
        self._said.close()

    def _failed(self, error: OSError) -> OutputError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            if self._process.wait(_ENDS) in _CLOSED:
                self._watch.say("sink", "the window was closed")
                return ClosedError("the window was closed")
        return OutputError(f"the window is gone ({self._reason()})")

    def _reason(self) -> str:
        self._said.seek(0)
        return _reason(self._said.read(), self._process.returncode)


def find_player() -> tuple[list[str], dict[str, str]]:
    """Finds the player: its command, up to its input, and the variables that its environment needs.

    It is started once without input to see whether it could show any. Raises UsageError where it is not
    installed, or there is no screen.
    """
    program = shutil.which("ffplay")
    if program is None:
        raise UsageError("a window needs ffplay, which comes with ffmpeg: apt install ffmpeg")
    drivers = {}
    if sys.platform == "linux" and "SDL_VIDEODRIVER" not in os.environ:
        # Left to itself, it would draw where nobody sees it.
        screens = {"wayland": "WAYLAND_DISPLAY", "x11": "DISPLAY"}
        found = [driver for driver, variable in screens.items() if os.environ.get(variable)]
        if not found:
            raise UsageError(
                "a window needs a screen: set DISPLAY or WAYLAND_DISPLAY, or look at it with --console 8080"
            )
        drivers["SDL_VIDEODRIVER"] = ",".join(found)
    command = [program, "-v", "fatal", "-autoexit", "-an", *_NOTHING_WAITS, "-f", "yuv4mpegpipe", "-i", "-"]
    tried = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, env={**os.environ, **drivers}
    )
    if tried.returncode != 0:
        reason = _reason(tried.stderr, tried.returncode)
        raise UsageError(f"no window can be opened ({reason}); choose another --out")
    return command, drivers


def _reason(said: bytes, status: int | None) -> str:
    lines = [line.strip() for line in said.decode(errors="replace").splitlines()]
    words = [line for line in lines if line and "XDG_RUNTIME_DIR" not in line]
    return words[0] if words else f"ffplay ended with status {status}"
