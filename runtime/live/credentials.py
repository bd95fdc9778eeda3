"""Addresses as they may be shown: without credentials. All that people read goes through here, ``ps`` too."""

from __future__ import annotations

import re
import sys

HIDDEN = "***"

_ADDRESS = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?", re.IGNORECASE | re.DOTALL)
_PORT = re.compile(r".*:\d*|[^:]*|\[[^]]*\]", re.DOTALL)

# Any other parameter of an address may be a password: each maker of cameras has its own name for it.
_HARMLESS = frozenset(
    {
        *("channel", "subtype", "stream", "profile", "resolution", "width", "height", "fps", "camera"),
        *("listen", "timeout", "mode", "latency", "transport", "localaddr", "localport", "ttl", "reuse"),
        *("pkt_size", "fifo_size", "buffer_size", "overrun_nonfatal", "tcp", "udp", "unicast", "proto"),
    }
)


def without_secrets(spec: str) -> str:
    """``spec`` with ``***`` in place of user, password, keys and tokens; a path or a camera stays as it is.

    Of ``rtmp://``, the last part of the path is hidden too, as services take a secret key for a name there.
    """
    found = _ADDRESS.fullmatch(spec)
    if found is None:
        return spec
    scheme, place, path, query, _ = (part or "" for part in found.groups())
    user, at, host = place.rpartition("@")
    if not at and not _PORT.fullmatch(host) and "@" in spec:
        # A password with a slash or a question mark in it, which was to be written as %2F or %3F.
        return f"{scheme}://{HIDDEN}@{spec.rpartition('@')[2]}" if "?" not in spec else f"{scheme}://{HIDDEN}"
    if scheme.lower().startswith("rtmp") and path.count("/") > 1:
        path = f"{path.rpartition('/')[0]}/{HIDDEN}"
    return f"{scheme}://{HIDDEN + at if user or at else ''}{host}{path}{_without_values(query)}"


def has_secrets(spec: str) -> bool:
    """Says whether ``shown`` hides any of it."""
    return without_secrets(spec) != spec


def hide_arguments() -> None:
    """Has ``ps`` show this process without the credentials it was started with; nothing where there are
    none. A program that looked at the very beginning may have seen them: a file of cameras is safer."""
    arguments = [_argument_shown(argument) for argument in sys.orig_argv]
    if arguments == sys.orig_argv:
        return
    from setproctitle import setproctitle

    setproctitle(" ".join(arguments))


def _argument_shown(argument: str) -> str:
    # --out=ADDRESS, -oADDRESS, -yoADDRESS
    option = re.match(r"--?[\w-]+=|-[a-z]*?o", argument)
    before = option[0] if option else ""
    return before + without_secrets(argument[len(before) :])


def _without_values(query: str) -> str:
    def hidden(pair: re.Match[str]) -> str:
        name, equals, value = pair[0].partition("=")
        if name.lower() in _HARMLESS:
            return f"{name}{equals}{value}"
        return f"{name}={HIDDEN}" if equals else HIDDEN

    return "?" + re.sub(r"[^&;]+", hidden, query[1:]) if query else ""
