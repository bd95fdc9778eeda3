"""A folder of images that grows picture by picture, so that a run that was cut off can be taken up again."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from measnet.errors import OutputError
from measnet.image_header import result_name
from measnet.runtime.frame import Frame
from measnet.runtime.sinks import Begun, Sink
from measnet.runtime.sinks.aside import partial_name, write_error
from measnet.runtime.sinks.images import ImageEncoder, picture_of
from measnet.runtime.sinks.manifest import Header, Manifest, is_count
from measnet.runtime.sinks.part_folder import PartFolder, is_plain_file, sync_folder


class ImageFolderSink(Sink):
    """Writes each frame to a file called as its source (``result_name``), in the channels that one had.

    Args:
        target: the folder that the result becomes; files of other names that are there already stay.
        source: the folder that the frames come from. A picture that has changed there since it was
            restored counts as not restored.
    """

    resumable = True

    def __init__(self, target: Path, source: Path) -> None:
        super().__init__()
        self._target = target
        self._source = source
        self._folder = PartFolder(target)
        self._pictures = self._folder.path / "pictures"
        self._encoder = ImageEncoder()
        self.finished: dict[str, dict[str, Any]] = {}
        """The pictures that are there already, by their sources' names, with the manifest's lines on them."""

    def kept(self) -> int:
        """See Sink.kept."""
        return len(self.finished)

    def begin(self, header: Header, *, restart: bool) -> Begun:
        """See Sink.begin."""
        header = self._folder.begin(header, restart=restart)
        manifest = self._folder.manifest
        try:
            self.finished = self._sound(manifest)
            named = len({str(part.get("name")) for part in manifest.parts})
            if self._folder.lost or manifest.torn or len(self.finished) < named:
                self.warnings.append(
                    f"{self._folder.path.name}: some pictures are damaged or missing, or their sources have "
                    "changed; these were made again"
                )
            manifest.keep(len(manifest.parts))
            self._make_room()
        except OSError as error:
            self._folder.release()
            raise write_error(self._target, error) from None
        for part in self.finished.values():
            self._encoder.lost.update(dict.fromkeys(part["lost"]))
        names = frozenset(self.finished)
        return Begun(len(names), names, header.settings)

    def begun_before(self, header: Header) -> int:
        """See Sink.begun_before."""
        manifest = self._folder.begun_before(header)
        return 0 if manifest is None else len(self._sound(manifest))

    def write(self, frame: Frame) -> None:
        """See Sink.write. Every frame must have its ``picture``."""
        picture = picture_of(frame)
        name = picture.path.name
        place, aside = self._pictures / result_name(picture.path), self._folder.path / "picture.part"
        data = self._encoder.encode(frame.pixels, picture, place.suffix.lower())
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(place)
            sync_folder(self._pictures)
            part = {
                "name": name,
                "bytes": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "source": _stamp(picture.path),
                "lost": list(self._encoder.lost),
            }
            self._folder.manifest.add(part)
        except OSError as error:
            raise write_error(self._target, error) from None
        self.finished[name] = part

    def finish(self, *, partial: bool = False) -> Path | None:
        """See Sink.finish. A partial result is a folder of its own, beside the one that grows."""
        if not self.finished:
            self._folder.discard()
            return None
        target = partial_name(self._target, folder=True) if partial else self._target
        try:
            if partial:
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(self._pictures, target, copy_function=_linked)
            else:
                _move_folder(self._pictures, target)
                sync_folder(target.parent)
        except (OSError, shutil.Error) as error:
            self.abort()
            if isinstance(error, OSError) and error.errno is not None:
                raise write_error(self._target, error) from None
            raise OutputError(f"writing {target} failed: {error}") from None
        self.warnings += self._encoder.losses()
        if partial:
            self._folder.release()
        else:
            self._folder.discard()
        return target

    def abort(self) -> None:
        """See Sink.abort. Pictures that are finished stay."""
        if self.finished:
            self._folder.release()
        else:
            self._folder.discard()

    def _sound(self, manifest: Manifest) -> dict[str, dict[str, Any]]:
        """The pictures that are there and as the manifest says, of sources that are as they were."""
        newest = {part["name"]: part for part in manifest.parts if _is_part(part)}
        return {name: part for name, part in newest.items() if self._is_sound(name, part)}

    def _is_sound(self, name: str, part: dict[str, Any]) -> bool:
        place = self._pictures / result_name(Path(name))
        try:
            if self._pictures.is_symlink() or not is_plain_file(place, part["bytes"]):
                return False
            with place.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            return digest == part.get("sha256") and _stamp(self._source / name) == part.get("source")
        except OSError:
            return False

    def _make_room(self) -> None:
        """The folder for the pictures, with none in it that would smuggle itself into the result."""
        if self._pictures.is_symlink() or (self._pictures.exists() and not self._pictures.is_dir()):
            self._pictures.unlink()
        self._pictures.mkdir(exist_ok=True)
        results = {result_name(Path(name)) for name in self.finished}
        for place in self._pictures.iterdir():
            if place.name in results:
                continue
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink()


def _stamp(path: Path) -> list[int]:
    """Size in bytes and time of the last change in nanoseconds: they tell whether a source is the same."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _is_part(part: dict[str, Any]) -> bool:
    name, lost = part.get("name"), part.get("lost")
    return (
        isinstance(name, str)
        and name not in ("", ".", "..")
        and not any(sign in name for sign in "/\\\0")
        and is_count(part.get("bytes"))
        and isinstance(lost, list)
        and all(isinstance(line, str) for line in lost)
    )


def _linked(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)
    return target


def _move_folder(source: Path, target: Path) -> None:
    if not target.exists():
        source.rename(target)
        return
    # A folder that stood there may hold files of its own: only those of the same name go.
    for file in source.iterdir():
        file.replace(target / file.name)
    source.rmdir()
