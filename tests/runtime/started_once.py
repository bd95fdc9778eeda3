"""Programs that are linked once and run hundreds of times, by ``started_once.c``."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path

SECONDS = 60
"""The longest that a run may take."""

_one = threading.Lock()
_not_here: set[str] = set()


def run(*command: str) -> subprocess.CompletedProcess[bytes]:
    """Runs a program that reads no standard input: one that waits for it, or, where there is no C compiler or
    another C library, as ``subprocess.run`` does it."""
    with _one:
        done = None if command[0] in _not_here else _asked(command)
    if done is None:
        _not_here.add(command[0])
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=SECONDS)
    return done


def _asked(command: tuple[str, ...]) -> subprocess.CompletedProcess[bytes] | None:
    """The outcome of a run of the program that waits; None where none answers."""
    library = _library()
    if library is None:
        return None
    waiting = _waiting(command[0], library)
    words = b"".join(os.fsencode(word) + b"\0" for word in (str(Path.cwd()), *command))
    with Path(os.devnull).open() as nothing, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            socket.send_fds(waiting, [words], [nothing.fileno(), out.fileno(), err.fileno()])
            answer = waiting.recv(4)
        except ConnectionError:
            return None
        except TimeoutError:
            waiting.close()
            _waiting.cache_clear()  # that one would give this answer to the next question
            raise
        if not answer:
            return None
        for file in (out, err):
            file.seek(0)
        status = os.waitstatus_to_exitcode(int.from_bytes(answer, "little"))
        return subprocess.CompletedProcess(command, status, out.read(), err.read())


@cache
def _waiting(program: str, library: Path) -> socket.socket:
    """The socket of a program that waits. When it is closed, as when this process ends, so does that."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(SECONDS)
    preloaded = {"LD_PRELOAD": str(library), "LD_BIND_NOW": "1", "STARTED_ONCE": str(theirs.fileno())}
    with theirs:
        running = subprocess.Popen(
            [program],
            env=os.environ | preloaded,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    atexit.register(_ended, ours, running)
    return ours


def _ended(waiting: socket.socket, running: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(OSError), waiting:
        waiting.shutdown(socket.SHUT_RDWR)  # for forked children too, which have it open
    running.wait()


@cache
def _library() -> Path | None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    folder = tempfile.mkdtemp(prefix="measnet-started-once-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = Path(folder) / "started_once.so"
    source = Path(__file__).with_suffix(".c")
    words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(made), str(source), "-ldl"]
    done = subprocess.run(words, capture_output=True)
    return made if done.returncode == 0 else None
