"""Restores what an OpenCV camera shows, always the newest frame, into a window or a file.

    python examples/camera_loop.py 0 window
    python examples/camera_loop.py udp://127.0.0.1:5000 out.mp4

The source is whatever cv2.VideoCapture opens: the number of a camera, an address, a file. A window needs
opencv-python in place of opencv-python-headless. Ends with the source, by Ctrl-C, or by Esc in the window.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np

from measnet import Restorer

SILENCE = 5000  # milliseconds after which an address that sends nothing has ended
PACE = 25  # frames a second of the file: a frame is repeated as long as it is shown


def main(source: str, sink: str) -> None:
    camera = opened(source)
    # OpenCV's order of colours.
    with contextlib.suppress(KeyboardInterrupt), Restorer("nano", channel_order="bgr") as restorer:
        print(f"{restore(camera, restorer, sink)} frames restored")


def restore(camera: cv2.VideoCapture, restorer: Restorer, sink: str) -> int:
    """Restores until the end, and counts the frames."""
    writer, frames, written, started = None, 0, 0, 0.0
    try:
        for restored in restorer.stream(newest(camera), in_flight=1):
            started = started or time.monotonic()
            frames += 1
            if sink == "window":
                cv2.imshow("restored", restored)
                if cv2.waitKey(1) == 27:
                    break
                continue
            if writer is None:
                size = restored.shape[1], restored.shape[0]
                writer = cv2.VideoWriter(sink, cv2.VideoWriter.fourcc(*"mp4v"), PACE, size)
            while written <= (time.monotonic() - started) * PACE:
                writer.write(restored)
                written += 1
    except KeyboardInterrupt:
        pass
    finally:
        if writer is not None:
            writer.release()
    return frames


def opened(source: str) -> cv2.VideoCapture:
    """The camera, or the end of the program."""
    if source.isdecimal():
        camera = cv2.VideoCapture(int(source))
    else:
        waits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, SILENCE, cv2.CAP_PROP_READ_TIMEOUT_MSEC, SILENCE]
        camera = cv2.VideoCapture(source, cv2.CAP_FFMPEG, waits)
    if not camera.isOpened():
        sys.exit(f"{source} cannot be opened")
    return camera


def newest(camera: cv2.VideoCapture) -> Iterator[np.ndarray]:
    """Frames as they are wanted, the newest each time: a thread reads all, so that none grows old waiting."""
    arrived, frame, left = threading.Condition(), None, False

    def read() -> None:
        nonlocal frame, left
        while not left:
            there, pixels = camera.read()
            with arrived:
                frame, left = (pixels if there else frame), left or not there
                arrived.notify()
        camera.release()

    def is_news() -> bool:
        return frame is not None or left

    reader = threading.Thread(target=read)
    reader.start()
    try:
        while True:
            with arrived:
                arrived.wait_for(is_news)
                taken, frame = frame, None
            if taken is None:
                return
            yield taken
    finally:
        left = True
        reader.join()


if __name__ == "__main__":
    main(*sys.argv[1:3])
