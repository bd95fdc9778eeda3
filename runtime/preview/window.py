"""A window with the picture, by Tk, which comes with Python.

OpenCV's own windows are not used: this project depends on the package without them, and where there is no
display they end the whole process.
"""

from __future__ import annotations

from collections.abc import Callable

from measnet.runtime.preview.screen import NoScreenError
from measnet.runtime.preview.shown import Picture, Room

OF_THE_DISPLAY = 0.8
"""How much of it the window takes at most."""


class Window:
    """A window, to be used in the thread that made it. Once closed, by q or Esc too, it stays closed.

    Raises:
        NoScreenError: there is no Tk or no display.
    """

    outlasts = False

    def __init__(self, title: str) -> None:
        try:
            import tkinter
        except ImportError:
            raise NoScreenError(
                "this Python has no tkinter (Debian and Ubuntu: apt install python3-tk)"
            ) from None
        try:
            root = tkinter.Tk(className="measnet")
        except tkinter.TclError as error:
            raise NoScreenError(str(error)) from None
        # Kept until this object goes: Tcl ends the process when another thread happens to collect it.
        self._root = root
        self._failure = tkinter.TclError
        self.open = True
        root.title(title)
        root.resizable(False, False)
        self._photo = tkinter.PhotoImage(master=root)
        tkinter.Label(root, image=self._photo, borderwidth=0, background="black").pack()
        self._room = Room(
            int(root.winfo_screenwidth() * OF_THE_DISPLAY), int(root.winfo_screenheight() * OF_THE_DISPLAY)
        )
        root.protocol("WM_DELETE_WINDOW", self.close)
        for key in ("<q>", "<Escape>"):
            root.bind(key, lambda event: self.close())

    def room(self) -> Room:
        """See Screen.room."""
        return self._room

    def show(self, picture: Picture) -> None:
        """See Screen.show."""
        height, width = picture.shape[:2]
        self._attempt(
            lambda: self._photo.configure(data=b"P6 %d %d 255\n" % (width, height) + picture.tobytes())
        )

    def attend(self) -> None:
        """See Screen.attend."""
        self._attempt(self._root.update)

    def close(self) -> None:
        """See Screen.close."""
        self._attempt(self._root.destroy)
        self.open = False

    def _attempt(self, step: Callable[[], object]) -> None:
        """Does nothing to a window that the person closed, be it in this very step."""
        if not self.open:
            return
        try:
            step()
        except self._failure:
            self.open = False
