"""One connection to a camera or a stream, read in a thread of its own, so that nobody waits for a network."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, TypeAlias

from measnet.errors import MEASNetError
from measnet.runtime.frame import Frame, StreamInfo
from measnet.runtime.live.interrupt import end_calls_when

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

CLOCK = Fraction(1, 90_000)
"""Step of the times that this machine gives: that of MP4 and MPEG-TS."""

ROOM = 4
"""Frames and packets that may wait to be taken."""


class Connection(ABC):
    """Opened by its constructor, which raises InputError. Used by one thread."""

    info: StreamInfo
    """Properties of this connection's stream; times of its frames and packets count from its first frame."""

    codec: str
    finished = False
    """True of a stream that says how long it is, and so will not grow any more."""

    def __init__(self) -> None:
        self.damaged = 0
        """Frames that could not be decoded."""

        self.warnings: list[str] = []

    @property
    def picture(self) -> str:
        """Size, rate and codec, in words."""
        rate = f"{float(self.info.rate):.4g} fps, " if self.info.rate else ""
        return f"{self.info.width}x{self.info.height}, {rate}{self.codec}"

    @abstractmethod
    def items(self) -> Iterator[Frame | Packet[Stream]]:
        """Frames, of whatever size they have, and packets of other streams. Raises InputError."""

    @abstractmethod
    def over(self) -> Over:
        """Says why ``items`` came to an end."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of it."""


@dataclass(frozen=True, slots=True)
class Over:
    """The end of a connection."""

    why: str
    ended: bool = False
    """True where the stream itself came to its end."""

    closed: bool = False
    """True where the other side closed the connection in good order, and no more is known."""

    error: BaseException | None = None
    """Raised in its thread, if anything was."""


if TYPE_CHECKING:
    Item: TypeAlias = Connection | Frame | Packet[Stream] | Over


class Feed:
    """Opens a connection and reads it, in a thread: gives the connection, its frames and packets, and Over.

    Args:
        connect: opens it; called in that thread.
    """

    def __init__(self, connect: Callable[[], Connection]) -> None:
        self._connect = connect
        self._items: deque[Item] = deque()
        self._changed = threading.Condition()
        self._called_off = threading.Event()
        self._idle = False
        # A look-up of a name cannot be interrupted: the program may end without it.
        self._thread = threading.Thread(target=self._work, name="measnet-connection", daemon=True)
        self._thread.start()

    def get(self, seconds: float) -> Item | None:
        """Waits so long for the next item; None where none came, or it was called off."""
        with self._changed:
            self._idle = False
            self._changed.wait_for(lambda: self._items or self._called_off.is_set(), max(0.0, seconds))
            if self._called_off.is_set() or not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def idle(self) -> None:
        """Until the next ``get``, drops the oldest items where there is no room, and waits for none."""
        with self._changed:
            self._idle = True
            self._changed.notify_all()

    @property
    def has_more(self) -> bool:
        """Says whether something waits to be taken."""
        return bool(self._items)

    def call_off(self) -> None:
        """Has it end soon, and whoever waits for it go on at once."""
        self._called_off.set()
        with self._changed:
            self._changed.notify_all()

    def end(self, seconds: float) -> None:
        """Calls it off and waits so long for its thread to end, which closes the connection."""
        self.call_off()
        self._thread.join(seconds)

    def _work(self) -> None:
        end_calls_when(self._called_off)
        try:
            over = self._read()
        except MEASNetError as error:
            over = Over(str(error), error=error)
        except BaseException as error:
            over = Over(f"{type(error).__name__}: {error}", error=error)
        self._put(over)

    def _read(self) -> Over:
        connection = self._connect()
        try:
            going_on = self._put(connection)
            items = connection.items()
            while going_on and (item := next(items, None)) is not None:
                going_on = self._put(item)
            return connection.over()
        finally:
            connection.close()

    def _put(self, item: Item) -> bool:
        """Waits for room; False once it is called off."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle or len(self._items) < ROOM or self._called_off.is_set())
            while self._idle and len(self._items) >= ROOM:
                self._items.popleft()
            self._items.append(item)
            self._changed.notify_all()
            return not self._called_off.is_set()
