"""Watch of a camera of ``measnet-serve``, from the first try to reach it on."""

from __future__ import annotations

from measnet.runtime.live.events import Event, Events, State
from measnet.runtime.live.watch import Watch


class CameraWatch(Watch):
    """Watch of a camera that is tried until it shows a picture: until then no try is its end.

        connecting ── (not there) ── reconnecting ── running ── ended, failed

    Its source and its job enter states as they do alone; those of tries that failed are passed over.
    """

    def __init__(self, camera: str, events: Events) -> None:
        super().__init__(camera, events)
        self._trying = True

    def enter(self, state: State, words: str, **values: float | int | str) -> None:
        if state == "running":
            self._trying = False
        if not self._trying or (state == "connecting" and self.state is None):
            super().enter(state, words, **values)

    def try_again(self, words: str) -> None:
        """Tells why it is tried again; a note where it is not the first time."""
        if self.state == "reconnecting":
            self.events.say(Event(self.camera, "note", words))
        super().enter("reconnecting", words)

    def over(self, state: State, words: str) -> None:
        """Tells that it is over, by whatever state that has not been told yet."""
        self._trying = False
        if self.state not in ("ended", "failed"):
            self.enter(state, words)
