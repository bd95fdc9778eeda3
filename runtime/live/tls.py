"""TLS: the other side's certificate is checked, by those that this system trusts."""

from __future__ import annotations

import socket
import ssl
from urllib.parse import urlsplit

_PORTS = {"https": 443, "rtsps": 322, "rtmps": 443}
_ANSWER_SECONDS = 5.0


def tls_options(url: str, *, insecure: bool) -> dict[str, str]:
    """Options with which FFmpeg is to open ``url``; ``insecure`` takes any certificate.

    Trusted is what Python's ``ssl`` trusts: the system's certificates, or the file that SSL_CERT_FILE names.
    """
    if urlsplit(url).scheme not in (*_PORTS, "http"):  # which may lead on to https
        return {}
    if insecure:
        return {"tls_verify": "0"}
    trusted = ssl.get_default_verify_paths().cafile
    return {"tls_verify": "1", **({"ca_file": trusted} if trusted else {})}


def why_untrusted(url: str) -> str | None:
    """Asks the other side for its certificate, and says in words why it is not trusted; None where it is, or
    nobody answers in TLS."""
    try:
        parts = urlsplit(url)
        where = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_default_certs()
        with (
            socket.create_connection(where, timeout=_ANSWER_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=where[0]),
        ):
            return None
    except ssl.SSLCertVerificationError as error:
        reason = error.verify_message.rstrip(".")
        return (
            f"its certificate is not trusted ({reason}); have the variable SSL_CERT_FILE name a file with "
            "the right one, or take any with --insecure"
        )
    except (OSError, KeyError, ValueError):
        return None
