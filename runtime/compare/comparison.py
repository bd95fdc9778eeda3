"""What ``--compare`` makes beside a result, decided and checked before the run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from measnet.errors import MEASNetError, OutputError, UsageError
from measnet.image_header import result_name
from measnet.runtime.compare.page import check_page, write_page
from measnet.runtime.compare.pictures import compare_pictures
from measnet.runtime.compare.video import compare_videos
from measnet.runtime.frame import StreamInfo
from measnet.runtime.options import Comparing, Encoding
from measnet.runtime.sinks.aside import Aside, check_target
from measnet.runtime.sources import Source
from measnet.runtime.sources.images import Images


class Comparison:
    """The comparison of one input with its result.

    Args:
        source: the input: a video, a picture, or a folder of pictures.
        info: what was found in it.
        result: the result's name; it need not exist yet.
        how: ``side`` by side, ``split`` down the middle, or a page with a ``slider``.
        overwrite: replace a comparison that exists.

    Raises:
        UsageError: there is nothing to compare such an input by.
    """

    def __init__(
        self, source: Path, info: StreamInfo, result: Path, how: Comparing, *, overwrite: bool = False
    ) -> None:
        if info.kind == "live":
            raise UsageError("--compare needs a file: a live source is gone once it has been restored")
        folder = source.is_dir()
        if how == "slider":
            if folder:
                raise UsageError(
                    "--compare slider takes one video or picture; for a folder use side or split"
                )
            check_page(source, result)
        self.target = _target(result, how, folder)
        check_target(self.target, [source], overwrite=overwrite)
        self._source = source
        self._info = info
        self._how = how

    def make(
        self,
        result: Path,
        reopen: Callable[[], Source],
        *,
        encoding: Encoding | None = None,
        on_progress: Callable[[int], None] = lambda frames: None,
        stop: threading.Event | None = None,
    ) -> bool:
        """Compares ``result`` with its source, which ``reopen`` opens as it was opened for the run.

        Returns whether it is whole; nothing is left when ``stop`` was set.
        Raises ``MEASNetError``, and leaves nothing.
        """
        if self._how == "slider":
            write_page(self._source, result, self.target, rate=float(self._info.rate or 25))
        elif self._info.kind == "video":
            return compare_videos(
                reopen(),
                result,
                self.target,
                self._how,
                encoding=encoding,
                on_progress=on_progress,
                stop=stop,
            )
        elif self._source.is_dir():
            return self._pictures(result, on_progress, stop or threading.Event())
        else:
            compare_pictures(self._source, result, self.target, self._how)
        return True

    def _pictures(self, result: Path, on_progress: Callable[[int], None], stop: threading.Event) -> bool:
        assert self._how != "slider"
        aside = Aside(self.target)
        aside.discard()
        try:
            aside.path.mkdir()
        except OSError as error:
            raise OutputError(f"the folder {aside.path} cannot be made: {error.strerror}") from None
        try:
            there = {picture.name: picture for picture in result.iterdir()}
            sources = [path for path in Images(self._source).paths if result_name(path) in there]
            for number, source in enumerate(sources, start=1):
                if stop.is_set():
                    aside.discard()
                    return False
                picture = there[result_name(source)]
                compare_pictures(source, picture, aside.path / picture.name, self._how)
                on_progress(number)
            aside.keep()
        except MEASNetError:
            aside.discard()
            raise
        return True


def _target(result: Path, how: Comparing, folder: bool) -> Path:
    """``clip.restored.mp4`` -> ``clip.restored.compare.mp4``, or ``.html`` for a page."""
    if folder:
        return result.with_name(f"{result.name}.compare")
    return result.with_name(f"{result.stem}.compare{'.html' if how == 'slider' else result.suffix}")
