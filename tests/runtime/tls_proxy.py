"""A real server inside TLS, with a certificate that nobody trusts until told to."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def inside_tls(port: int, folder: Path, name: str = "IP:127.0.0.1") -> Iterator[int]:
    """The port of a proxy that takes TLS and hands on what is inside, to one caller after another.

    Its certificate, for ``name``, is ``certificate.pem`` in the folder, signed by itself.
    """
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-addext", f"subjectAltName={name}"]
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def pump(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)

    def handle(plain: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as caller:
            # Who does not trust the certificate says nothing.
            if begun := caller.recv(65_536):
                with socket.create_connection(("127.0.0.1", port)) as inner:
                    inner.sendall(begun)
                    back = threading.Thread(target=pump, args=(inner, caller))
                    back.start()
                    pump(caller, inner)
                    back.join()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as plain:
                    handle(plain)

    listener = socket.create_server(("127.0.0.1", 0))
    serving = threading.Thread(target=serve)
    serving.start()
    try:
        yield listener.getsockname()[1]
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        serving.join()
