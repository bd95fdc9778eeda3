"""Lists of pieces (HLS) inside TLS: each piece shows a certificate too, while FFmpeg asks the list alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import av

from measnet.errors import InputError
from measnet.runtime.live.credentials import without_secrets
from measnet.runtime.live.peer import why_refused
from measnet.runtime.live.waits import Waits

if TYPE_CHECKING:
    from av.container import InputContainer

# FFmpeg then takes no piece at all; other formats have no such option.
_NO_PIECES = {"allowed_segment_extensions": "none"}
# FFmpeg can ask once more only over connections of its own.
_OVER_OURS = {"http_persistent": "0", "http_multiple": "0"}
_INSIDE_TLS = ("https://", "crypto+https://", "crypto:https://")


def open_checked(url: str, options: Mapping[str, str], waits: Waits) -> InputContainer:
    """Opens an ``https://`` address as ``av.open`` does with ``options`` for its container; those for TLS
    hold for the pieces of a list too.

    Raises:
        InputError: a piece lies where the certificate is not trusted, or where there is no TLS.
        FFmpegError: as ``av.open``.
    """
    limits = waits.opening, waits.silence
    try:
        opened = av.open(
            url,
            mode="r",
            container_options={**options, **_NO_PIECES},
            metadata_errors="replace",
            timeout=limits,
        )
        if "hls" not in opened.format.name:
            return opened
        opened.close()
    except av.error.InvalidDataError:
        pass  # a list, or nothing that is known
    return av.open(
        url,
        mode="r",
        format="hls",
        container_options={**options, **_OVER_OURS},
        metadata_errors="replace",
        timeout=limits,
        io_open=_Pieces(options, waits).open,
    )


class _Pieces:
    """Opens what a list leads to, and the list itself.

    The first error ends it: FFmpeg would go on to the next piece, and PyAV prints a second error.
    """

    def __init__(self, options: Mapping[str, str], waits: Waits) -> None:
        self._tls = {name: options[name] for name in ("tls_verify", "ca_file") if name in options}
        self._waits = waits
        self._failed = False

    def open(self, url: str, flags: int, options: Mapping[str, str]) -> _Piece:
        """As ``av.open`` wants it for ``io_open``."""
        if self._failed:
            return _Piece()
        try:
            return _Piece(self._opened(url, options))
        except (av.error.HTTPClientError, av.error.HTTPServerError):
            return _Piece()  # players pass over pieces that are gone
        except BaseException:
            self._failed = True
            raise

    def _opened(self, url: str, options: Mapping[str, str]) -> InputContainer:
        if not url.startswith(_INSIDE_TLS):
            raise InputError(
                f"its list leads to {without_secrets(url)}, where there is no TLS; take any server with "
                "--insecure"
            )
        try:
            return av.open(
                url,
                mode="r",
                format="data",
                container_options={**options, **self._tls},
                timeout=(self._waits.opening, self._waits.silence),
            )
        except av.error.FFmpegError:
            plain = url.removeprefix("crypto").lstrip("+:")
            why = why_refused(plain, self._waits, insecure=False)
            if why is None:
                raise
            raise InputError(f"its list leads to {without_secrets(plain)}: {why}") from None


class _Piece:
    """A file that is read once; without a container there is nothing in it."""

    def __init__(self, container: InputContainer | None = None) -> None:
        self._container = container
        self._packets: Iterator[bytes] = iter(())
        if container is not None:
            self._packets = (bytes(packet) for packet in container.demux())
        self._left = b""

    def read(self, size: int) -> bytes:
        """Gives up to ``size`` bytes; none at the end."""
        self._left = self._left or next(self._packets, b"")
        given, self._left = self._left[:size], self._left[size:]
        return given

    def close(self) -> None:
        """Ends the connection."""
        if self._container is not None:
            self._container.close()
