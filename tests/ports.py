"""Ports of the loopback for programs that open them themselves, and whether they have."""

from __future__ import annotations

import random
import socket
from pathlib import Path

_CHANCE = random.SystemRandom()
_NOT_GIVEN_OUT = range(10_000, 32_768)
"""Programs that want any port get a higher one from Linux, which may be one that was picked just before."""


def free_port() -> int:
    """A port that nobody has, neither for connections nor for datagrams, picked by chance."""
    while True:
        port = _CHANCE.choice(_NOT_GIVEN_OUT)
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as one:
                    one.bind(("127.0.0.1", port))
        except OSError:
            continue
        return port


def is_up(port: int) -> bool:
    """Says whether somebody listens there, for connections or for datagrams, without calling."""
    for table, listening in (("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")):
        path = Path("/proc/net", table)
        rows = path.read_text().splitlines()[1:] if path.exists() else []
        if any(row.split()[1].endswith(f":{port:04X}") and row.split()[3] == listening for row in rows):
            return True
    return False
