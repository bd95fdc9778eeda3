"""Peers: checks of addresses, of certificates, and of why one cannot be reached."""

from __future__ import annotations

import os
import re
import socket
import ssl
from urllib.parse import SplitResult, urlsplit

from measnet.errors import UsageError
from measnet.runtime.live.credentials import without_secrets
from measnet.runtime.live.srt import parse_query
from measnet.runtime.live.waits import Waits

_TLS_PORTS = {"https": 443, "rtsps": 322, "rtmps": 443}
_PORT_NEEDED = ("tcp", "udp", "srt")
_CALLED = re.compile(r"listen=[^0]|mode=listener", re.IGNORECASE)
_OF_ANOTHER_NAME = (62, 63, 64)  # OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and those of e-mail and IP


_NO_TLS = "no TLS"


def check_address(url: str) -> SplitResult:
    """The parts of ``url``. Raises UsageError where nobody could be called by it: no host, no port that there
    can be, or none where one is needed, or options that srt:// has not."""
    try:
        parts = urlsplit(url)
        port = parts.port
        if parts.scheme == "srt":
            parse_query(parts.query)
    except ValueError as error:
        raise UsageError(f"{without_secrets(url)} is not an address: {error}") from None
    if not parts.hostname and parts.scheme != "udp" and not _CALLED.search(parts.query):
        raise UsageError(
            f"{without_secrets(url)} is not an address: it names no machine; write {parts.scheme}://HOST"
        )
    if parts.scheme in _PORT_NEEDED and not port:
        raise UsageError(
            f"{without_secrets(url)} is not an address: it has no port; write {parts.scheme}://HOST:PORT"
        )
    return parts


def tls_options(url: str, *, insecure: bool) -> dict[str, str]:
    """Options with which FFmpeg is to open ``url``; ``insecure`` takes any certificate.

    Trusted is what Python's ``ssl`` trusts: the system's certificates, or the file that SSL_CERT_FILE names.
    Raises UsageError for an address that is none, and for a file that holds no certificates.
    """
    scheme = check_address(url).scheme
    if scheme not in (*_TLS_PORTS, "http"):  # which may lead on to https
        return {}
    if insecure:
        return {"tls_verify": "0"}
    trusted = _named_certificates() if scheme in _TLS_PORTS else None
    trusted = trusted or ssl.get_default_verify_paths().cafile
    return {"tls_verify": "1", **({"ca_file": trusted} if trusted else {})}


def why_refused(url: str, waits: Waits, *, insecure: bool) -> str | None:
    """Finds the reason for an input/output error of FFmpeg: an unknown name, a certificate that is not
    trusted, or a port without TLS; None for any other. Asks the other side, which has half as long as it had
    to answer."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _TLS_PORTS.get(parts.scheme, 0)
        socket.getaddrinfo(host, port)
        if parts.scheme not in _TLS_PORTS:
            return None
        with socket.create_connection((host, port), timeout=waits.opening / 2) as plain:
            why = _why_no_tls(plain, host, insecure=insecure)
        if why == _NO_TLS:
            return f"port {port} there speaks no TLS; use {parts.scheme[:-1]}://, or the port that does"
        return why
    except socket.gaierror:
        return f"no machine is called {host}; check the name, and that this machine is in the network"
    except (OSError, ValueError):
        return None


def _why_no_tls(plain: socket.socket, host: str, *, insecure: bool) -> str | None:
    """Tries to begin TLS; None where it can be."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_default_certs()
    try:
        with context.wrap_socket(plain, server_hostname=host):
            return None
    except ssl.SSLCertVerificationError as error:
        reason = error.verify_message.rstrip(".")
        if error.verify_code in _OF_ANOTHER_NAME:
            return (
                f"its certificate is one of another machine ({reason}); use the name that it was made for, "
                "or take any with --insecure"
            )
        return (
            f"its certificate is not trusted ({reason}); have the variable SSL_CERT_FILE name a file with "
            "the right one, or take any with --insecure"
        )
    except (ssl.SSLError, OSError):  # a plain server answers in its own words, waits for more, or hangs up
        return _NO_TLS


def _named_certificates() -> str | None:
    """The file that SSL_CERT_FILE names. Raises UsageError where it holds no certificate."""
    named = os.environ.get("SSL_CERT_FILE")
    if not named:
        return None
    try:
        ssl.create_default_context(cafile=named)
    except OSError as error:  # ssl.SSLError is one
        why = "is no certificate" if isinstance(error, ssl.SSLError) else f"cannot be read ({error.strerror})"
        raise UsageError(
            f"the variable SSL_CERT_FILE names {named}, which {why}; have it name a file of certificates in "
            "PEM, or unset it"
        ) from None
    return named
