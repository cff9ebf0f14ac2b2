"""Show a GStreamer or DeepStream pipeline's inferences to governor sidecar, by pad probes.

A buffer's time from the sink pad to the source pad of the element that infers is one inference.
With DeepStream that element is nvinfer; here, where there is none, a videoscale stands for it:

    governor sidecar --latency-slo 50ms --socket /tmp/sidecar.sock &
    GOVERNOR_SOCKET=/tmp/sidecar.sock python3 gstreamer_probe.py
    python3 gstreamer_probe.py --pipeline "filesrc location=a.mp4 ! decodebin ! ... ! \\
        nvinfer name=infer config-file-path=yolo.txt ! fakesink"

Needs Debian's python3-gi and gir1.2-gstreamer-1.0 and, beside it or in the package, the client.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402 - the version must be required first

try:
    from governor_client import Client  # governor/sidecar/client.py, copied beside this file
except ImportError:
    sys.path.append(str(Path(__file__).parent.parent / "governor" / "sidecar"))
    from client import Client

PIPELINE = (
    "videotestsrc is-live=true num-buffers={frames} ! video/x-raw,width=1280,height=720,"
    "framerate=30/1 ! videoscale name=infer method=lanczos ! video/x-raw,width=320,height=320 ! "
    "fakesink sync=false"
)
MOST = 256
"""Buffers under way; what an element swallows must not be kept for ever."""


def watch(element: Gst.Element, client: Client) -> None:
    """Time each buffer through the element; buffers are told apart by their timestamps."""
    began_s: dict[int, float] = {}

    def enters(_pad: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        if len(began_s) >= MOST:
            began_s.clear()
        began_s[info.get_buffer().pts] = time.monotonic()
        return Gst.PadProbeReturn.OK

    def leaves(_pad: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        start_s = began_s.pop(info.get_buffer().pts, None)
        if start_s is not None:
            client.record(start_s, time.monotonic())
        return Gst.PadProbeReturn.OK

    element.get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, enters)
    element.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, leaves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pipeline", default=PIPELINE)
    parser.add_argument("--element", default="infer", help="the name of the one that infers")
    parser.add_argument("--frames", type=int, default=-1, help="of the test pattern; -1: no end")
    arguments = parser.parse_args()
    Gst.init(None)
    pipeline = Gst.parse_launch(arguments.pipeline.replace("{frames}", str(arguments.frames)))
    element = pipeline.get_by_name(arguments.element)
    if element is None:
        raise SystemExit(f"the pipeline has no element named {arguments.element!r}")
    client = Client()
    watch(element, client)
    loop = GLib.MainLoop()
    bus = pipeline.get_bus()
    bus.add_signal_watch()
    problems: list[str] = []

    def heard(_bus: Gst.Bus, message: Gst.Message) -> None:
        if message.type == Gst.MessageType.ERROR:
            problems.append(str(message.parse_error()[0]))
        if message.type in (Gst.MessageType.ERROR, Gst.MessageType.EOS):
            loop.quit()

    bus.connect("message", heard)
    pipeline.set_state(Gst.State.PLAYING)
    try:
        loop.run()
    except KeyboardInterrupt:
        pass
    finally:
        pipeline.set_state(Gst.State.NULL)
    print(f"{client.sent} inferences shown to the sidecar, {client.lost} while there was none")
    if problems:
        raise SystemExit(problems[0])


if __name__ == "__main__":
    main()
