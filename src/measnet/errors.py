"""Every error this project raises on purpose, in one tree.

    MEASNetError                 exit 1: something failed on the way
    ├── UsageError               exit 2: a request that cannot be met as it is
    │   ├── InputError           a source is missing, empty, damaged or not what it claims to be
    │   ├── CheckpointError      a checkpoint is not a MEASNet, or not a sound one
    │   ├── GraphError           an ONNX file is not one of ours, or not a sound one
    │   ├── EngineError          an engine file is not one of ours, damaged, or for something else
    │   └── MissingPackageError  a part of the project was asked for whose packages are absent
    ├── SourceLostError          a camera or stream stayed away for too long; what it had sent is kept
    ├── StoppedError             exit 130: it was told to stop before there was anything to keep
    ├── OutputError              a result could not be written (disk full, folder gone)
    │   └── ClosedError          whoever looked at it has seen enough: no failure
    ├── BuildError               TensorRT did not build an engine
    ├── BackendError             the engine failed while it ran
    └── ParityError              the engine does not compute what the network computes

A message says what happened, with the numbers, and what to do about it, on one line.
"""

from __future__ import annotations

import errno
import importlib

from measnet.printable import LONGEST_VALUE, printable


class MEASNetError(Exception):
    """Root of the tree. ``exit_code`` is what a command line ends with."""

    exit_code = 1


class UsageError(MEASNetError):
    """A request that cannot be met as it is; the message says what to change."""

    exit_code = 2


class InputError(UsageError):
    """A source is missing, empty, damaged or not what it claims to be."""


class CheckpointError(UsageError):
    """A checkpoint is not a MEASNet, or not a sound one."""


class GraphError(UsageError):
    """An ONNX file is not one of ours, or not a sound one."""


class EngineError(UsageError):
    """An engine file is not one of ours, damaged, or for something else."""


class MissingPackageError(UsageError):
    """A part of the project was asked for whose packages are absent.

    ``extra`` is the extra of this distribution that installs them.
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs the package '{package}', which is not installed; "
            f"install it with: pip install 'measnet[{extra}]'"
        )
        self.package = package
        self.extra = extra


def need(what: str, extra: str, *modules: str) -> None:
    """Imports what ``what`` stands on, before any work. Raises MissingPackageError, which names ``extra``."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise MissingPackageError(what, error.name or module, extra) from None


class SourceLostError(MEASNetError):
    """A camera or stream stayed away for too long; what it had sent until then is kept."""


class StoppedError(MEASNetError):
    """A run was told to stop before there was anything to keep."""

    exit_code = 130


class OutputError(MEASNetError):
    """A result could not be written."""


class ClosedError(OutputError):
    """The viewer of a result closed it; a run without another result ends, and well."""


class BuildError(MEASNetError):
    """TensorRT did not build an engine."""


class BackendError(MEASNetError):
    """The engine failed while it ran."""


class ParityError(MEASNetError):
    """The engine does not compute what the network computes."""


def in_words(error: Exception) -> tuple[str, int]:
    """Words for an error that reached the end of a command, and the exit status."""
    if isinstance(error, MEASNetError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        name = printable(error.filename, LONGEST_VALUE)
        if error.errno == errno.ENAMETOOLONG:
            return f"the name {name} is longer than a name may be; choose a shorter one", UsageError.exit_code
        if isinstance(error, PermissionError):
            return (
                f"{name} may not be used by this user; check its permissions and those of its folders",
                UsageError.exit_code,
            )
    return f"{type(error).__name__}: {error} (a fault of this program; --debug shows where)", 1


def first_line(error: BaseException) -> str:
    """The first line of somebody else's error, with its type where the text alone says little."""
    lines = str(error).strip().splitlines() or [""]
    line = lines[0][:200]
    return line if len(line) > 20 else f"{type(error).__name__} {line}".strip()
