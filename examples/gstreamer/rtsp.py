"""Serves a camera restored: RTSP in, RTSP out, always the newest frame.

    python examples/gstreamer/rtsp.py rtsp://camera/stream 8554
    ffplay rtsp://127.0.0.1:8554/restored

The camera is read while somebody watches, once for all who do. The address may be anything that uridecodebin
opens. Listens on this machine alone. Needs GStreamer with PyGObject and GstRtspServer (examples/README.md).
"""

from __future__ import annotations

import sys
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - their versions are chosen first

sys.path.append(str(Path(__file__).parent / "python"))
from measnet_element import MEASNet  # noqa: E402 - its folder is added first

NEWEST = "queue leaky=downstream max-size-buffers=1 max-size-bytes=0 max-size-time=0"
H264 = "x264enc tune=zerolatency speed-preset=veryfast ! rtph264pay name=pay0 config-interval=1"


def main(address: str, port: str) -> None:
    Gst.init(None)
    Gst.Element.register(None, "measnet", Gst.Rank.NONE, MEASNet)
    factory = GstRtspServer.RTSPMediaFactory()
    restored = f"{NEWEST} ! measnet ! queue ! videoconvert"
    factory.set_launch(f'( uridecodebin uri="{address}" ! videoconvert ! {restored} ! {H264} )')
    factory.set_shared(True)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    server.get_mount_points().add_factory("/restored", factory)
    if not server.attach(None):
        sys.exit(f"port {port} is taken")
    print(f"rtsp://127.0.0.1:{server.get_bound_port()}/restored", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(*sys.argv[1:3])
