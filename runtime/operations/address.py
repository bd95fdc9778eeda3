"""Addresses that a server listens at, as the command line takes them: ``8080``, ``0.0.0.0:8080``."""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from dataclasses import dataclass

from measnet.errors import UsageError

LOOPBACK = "127.0.0.1"

_ADDRESS = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.%\w]+\]|[^\s:\[\]/@]*):)?(?P<port>\d{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """A host of this machine and a port, 0 to 65535; 0 is any that is free."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Reads ``[HOST:]PORT``; without a host it is ``127.0.0.1``. Raises UsageError."""
        found = _ADDRESS.fullmatch(text.strip())
        if found is None or int(found["port"]) > 65535:
            raise UsageError(f"{text} is not [HOST:]PORT, as in 8080 or 0.0.0.0:8080")
        return cls((found["host"] or LOOPBACK).strip("[]"), int(found["port"]))

    @property
    def is_loopback(self) -> bool:
        """Says whether programs of this machine alone can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def listen(self, option: str) -> socket.socket:
        """Opens the socket. ``option`` is what the user gave it by. Raises UsageError."""
        try:
            family, _, _, _, place = socket.getaddrinfo(
                self.host, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            both = self.host == "::" and socket.has_dualstack_ipv6()
            made = socket.create_server(place[:2], family=family, dualstack_ipv6=both, backlog=256)
            # Those accepted inherit it. Without it each answer would wait 40 ms for the receipt of its head.
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made
        except OSError as error:
            raise UsageError(f"{option} {self}: {_why(error)}") from None


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "the port is taken; give another one, or end the program that listens there"
    if error.errno == errno.EACCES:
        return "this user may not listen there; give a port from 1024 on"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address; give one of its own, or 0.0.0.0 for all of them"
    return f"cannot listen there ({error.strerror or error})"


def is_free(host: str, port: int) -> bool:
    """Says whether nobody listens there yet."""
    try:
        with socket.create_server((host, port)):
            return True
    except OSError:
        return False
