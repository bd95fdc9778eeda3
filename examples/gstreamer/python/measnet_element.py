"""A GStreamer element that restores video: ``videoconvert ! measnet model=small ! videoconvert``.

    export PYTHONPATH=src:.venv/lib/python3.11/site-packages GST_PLUGIN_PATH=$PWD/examples/gstreamer
    gst-launch-1.0 filesrc location=in.webm ! decodebin ! videoconvert ! queue ! measnet ! queue ! \
        videoconvert ! vp8enc ! webmmux ! filesink location=out.webm

Needs GStreamer's loader of Python elements, and its Python as that of the virtual environment (README.md).
"""

from __future__ import annotations

import gi
import numpy as np

from measnet import MEASNetError, Restorer

gi.require_version("Gst", "1.0")
gi.require_version("GstBase", "1.0")
from gi.repository import GObject, Gst, GstBase  # noqa: E402 - their versions are chosen first

Gst.init(None)
RGB = Gst.Caps.from_string("video/x-raw,format=RGB")


class MEASNet(GstBase.BaseTransform):
    """Takes a frame and gives it back restored."""

    __gstmetadata__ = (
        "MEASNet",
        "Filter/Effect/Video",
        "Restores noisy, rainy, hazy and dark video",
        "measnet",
    )
    __gsttemplates__ = (
        Gst.PadTemplate.new("sink", Gst.PadDirection.SINK, Gst.PadPresence.ALWAYS, RGB),
        Gst.PadTemplate.new("src", Gst.PadDirection.SRC, Gst.PadPresence.ALWAYS, RGB),
    )
    model = GObject.Property(type=str, default="nano", blurb="As measnet.Restorer takes it")

    def do_start(self) -> bool:
        try:
            self.restorer = Restorer(self.model)
        except MEASNetError as error:
            return self.fails(error)
        return True

    def do_stop(self) -> bool:
        self.restorer.close()
        return True

    def do_set_caps(self, taken: Gst.Caps, _: Gst.Caps) -> bool:
        size = taken.get_structure(0)
        self.size = size.get_value("height"), size.get_value("width")
        return True

    def do_transform(self, taken: Gst.Buffer, given: Gst.Buffer) -> Gst.FlowReturn:
        height, width = self.size
        # Rows are padded to multiples of 4 bytes; the padding is handed on.
        rows = np.frombuffer(taken.extract_dup(0, taken.get_size()), np.uint8).reshape(height, -1).copy()
        picture = rows[:, : width * 3].reshape(height, width, 3)
        try:
            rows[:, : width * 3] = self.restorer(picture).reshape(height, -1)
        except MEASNetError as error:
            self.fails(error)
            return Gst.FlowReturn.ERROR
        given.fill(0, rows.tobytes())
        return Gst.FlowReturn.OK

    def fails(self, error: MEASNetError) -> bool:
        kind, domain, code = Gst.MessageType.ERROR, Gst.library_error_quark(), Gst.LibraryError.FAILED
        self.message_full(kind, domain, code, str(error), None, __file__, "measnet", 0)
        return False


GObject.type_register(MEASNet)
__gstelementfactory__ = ("measnet", Gst.Rank.NONE, MEASNet)
