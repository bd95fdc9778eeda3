"""Restores the frames of a GStreamer pipeline: appsink takes them out, appsrc puts them back.

    python examples/gstreamer/pipeline.py \
        "filesrc location=in.mp4 ! decodebin" "x264enc ! mp4mux ! filesink location=out.mp4"

The first argument makes video, the second takes it; cameras, RTSP and screens are written as for
gst-launch-1.0. Needs GStreamer with PyGObject (examples/README.md says how a virtual environment finds it).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import gi
import numpy as np

from measnet import Restorer

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402 - its version is chosen first

Gst.init(None)


def main(source: str, sink: str) -> None:
    reader = Gst.parse_launch(
        f"{source} ! videoconvert ! video/x-raw,format=RGB ! appsink name=out sync=false max-buffers=2"
    )
    writer = Gst.parse_launch(f"appsrc name=in format=time ! videoconvert ! {sink}")
    exit_, entry = reader.get_by_name("out"), writer.get_by_name("in")
    being_restored: list[Gst.Sample] = []

    def pictures() -> Iterator[np.ndarray]:
        while not exit_.get_property("eos"):
            sample = exit_.emit("try-pull-sample", Gst.SECOND // 10)
            if sample is not None:
                being_restored.append(sample)
                yield picture_in(sample)
            ended(reader)

    reader.set_state(Gst.State.PLAYING)
    writer.set_state(Gst.State.PLAYING)
    try:
        with Restorer("nano") as restorer:
            for restored in restorer.stream(pictures()):
                entry.emit("push-sample", like(being_restored.pop(0), restored))
                while entry.get_property("current-level-buffers") > 1 and not ended(
                    writer, Gst.SECOND // 100
                ):
                    pass
        entry.emit("end-of-stream")
        while not ended(writer, Gst.SECOND):
            pass
    finally:
        reader.set_state(Gst.State.NULL)
        writer.set_state(Gst.State.NULL)


def ended(pipeline: Gst.Pipeline, wait: int = 0) -> bool:
    """Waits so many nanoseconds for the pipeline's end; ends the program with its error if it has one."""
    message = pipeline.get_bus().timed_pop_filtered(wait, Gst.MessageType.EOS | Gst.MessageType.ERROR)
    if message is not None and message.type == Gst.MessageType.ERROR:
        sys.exit(message.parse_error()[0].message)
    return message is not None


def picture_in(sample: Gst.Sample) -> np.ndarray:
    """H W 3, of a sample of RGB. Rows in GStreamer are padded to multiples of 4 bytes."""
    size = sample.get_caps().get_structure(0)
    height, width = size.get_value("height"), size.get_value("width")
    buffer = sample.get_buffer()
    rows = np.frombuffer(buffer.extract_dup(0, buffer.get_size()), np.uint8).reshape(height, -1)
    return rows[:, : width * 3].reshape(height, width, 3)


def like(sample: Gst.Sample, picture: np.ndarray) -> Gst.Sample:
    """A sample with ``picture``, of the same times and format as ``sample``."""
    rows = picture.reshape(picture.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    buffer, before = Gst.Buffer.new_wrapped(padded.tobytes()), sample.get_buffer()
    buffer.pts, buffer.dts, buffer.duration = before.pts, before.dts, before.duration
    return Gst.Sample.new(buffer, sample.get_caps(), sample.get_segment(), None)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except GLib.Error as error:  # of a pipeline that cannot be
        sys.exit(error.message)
