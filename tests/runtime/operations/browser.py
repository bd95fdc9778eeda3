"""A real browser without a window, driven through Chromium's own protocol over two pipes."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)


class Browser:
    """One page. ``said`` collects what it wrote to its console and the errors of its scripts."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._numbers = itertools.count(1)
        self._pending = b""
        self._session: str | None = None
        self.said: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **values: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": values}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            if answer.get("method") in (
                "Runtime.exceptionThrown",
                "Log.entryAdded",
                "Runtime.consoleAPICalled",
            ):
                self.said.append(json.dumps(answer["params"]))

    def size(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait("document.body !== null && document.readyState === 'complete'")

    def value(self, script: str) -> Any:
        """Runs ``script`` in the page; returns its value, or that of its promise."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script: str, seconds: float = 60) -> Any:
        """Waits until ``script`` is true, and returns what it is."""
        until = time.monotonic() + seconds
        while not (found := self.value(script)):
            assert time.monotonic() < until, (
                f"never true: {script}; the page says {self.text()} {self.said[-3:]}"
            )
            time.sleep(0.1)
        return found

    def text(self) -> str:
        return str(self.value("document.body?.innerText"))

    def key(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, path: Path, kind: str = "png") -> Path:
        shot = self.call("Page.captureScreenshot", format=kind)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def _next(self) -> Any:
        while b"\0" not in self._pending:
            assert select.select([self._answers], [], [], 60)[0], "the browser says nothing"
            more = os.read(self._answers, 1 << 20)
            assert more, "the browser is gone"
            self._pending += more
        first, _, self._pending = self._pending.partition(b"\0")
        return json.loads(first)


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Starts it with an empty profile in ``profile``, and ends it."""
    assert CHROMIUM is not None
    read_commands, write_commands = os.pipe()
    read_answers, write_answers = os.pipe()
    # Chromium reads commands from descriptor 3 and writes answers to 4.
    script = f'exec 3<&{read_commands} 4>&{write_answers}; exec "$0" "$@"'
    command = [
        "bash",
        "-c",
        script,
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
    ]
    command += ["--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run", "about:blank"]
    process = subprocess.Popen(
        command,
        pass_fds=(read_commands, write_answers),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_commands)
    os.close(write_answers)
    try:
        yield Browser(write_commands, read_answers)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(write_commands)
        os.close(read_answers)
