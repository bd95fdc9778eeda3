"""The other side of an address: the certificate it has to show, and why it cannot be reached."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

from measnet.errors import UsageError
from measnet.runtime.live.address import shown

_TLS_PORTS = {"https": 443, "rtsps": 322, "rtmps": 443}
_ANSWER_SECONDS = 5.0


def tls_options(url: str, *, insecure: bool) -> dict[str, str]:
    """Options with which FFmpeg is to open ``url``; ``insecure`` takes any certificate.

    Trusted is what Python's ``ssl`` trusts: the system's certificates, or the file that SSL_CERT_FILE names.
    Raises UsageError for an address whose host or port cannot be read.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"{shown(url)} is not an address: {error}") from None
    if parts.scheme not in (*_TLS_PORTS, "http"):  # which may lead on to https
        return {}
    if insecure:
        return {"tls_verify": "0"}
    trusted = ssl.get_default_verify_paths().cafile
    return {"tls_verify": "1", **({"ca_file": trusted} if trusted else {})}


def why_refused(url: str, *, insecure: bool) -> str | None:
    """Says in words what FFmpeg calls an input/output error: a name that nobody has, or a certificate that is
    not trusted; None where it is neither. Asks the other side, which takes some seconds at most."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _TLS_PORTS.get(parts.scheme, 0)
        socket.getaddrinfo(host, port)
        if insecure or parts.scheme not in _TLS_PORTS:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_default_certs()
        with (
            socket.create_connection((host, port), timeout=_ANSWER_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return None
    except socket.gaierror:
        return f"no machine is called {host}; check the name, and that this machine is in the network"
    except ssl.SSLCertVerificationError as error:
        reason = error.verify_message.rstrip(".")
        return (
            f"its certificate is not trusted ({reason}); have the variable SSL_CERT_FILE name a file with "
            "the right one, or take any with --insecure"
        )
    except (OSError, ValueError):
        return None
