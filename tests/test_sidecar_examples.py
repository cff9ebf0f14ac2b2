"""The examples of a sidecar run as they are, against a sidecar's own sources."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from governor.instrument.explicit import SpanRecorder
from governor.instrument.stream import Stream
from governor.sidecar.feed import Feed
from governor.sidecar.sources import Datagrams

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def heard(tmp_path):
    """A sidecar's socket, and what arrives there for ``main``."""
    recorder = SpanRecorder(time.perf_counter)
    recorder.start()
    feed = Feed("main", Stream(recorder))
    source = Datagrams(tmp_path / "sidecar.sock", {"main": feed})
    ending = threading.Event()
    thread = threading.Thread(target=source.run, args=(ending,))
    thread.start()
    yield source, feed
    ending.set()
    thread.join(10.0)


def debian_python():
    python = shutil.which("python3", path="/usr/bin")
    probe = "import gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst"
    if python is None or subprocess.run([python, "-c", probe], capture_output=True).returncode:
        pytest.skip(
            "no GStreamer for Python; apt-get install python3-gi gir1.2-gstreamer-1.0 "
            "gstreamer1.0-plugins-base"
        )
    return python


def test_each_buffer_through_a_gstreamer_element_is_an_inference(heard):
    source, feed = heard
    done = subprocess.run(
        [debian_python(), EXAMPLES / "gstreamer_probe.py", "--frames", "30"],
        env={**os.environ, "GOVERNOR_SOCKET": str(source.path)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "30 inferences shown" in done.stdout
    assert feed.counts["taken"] == 30


def test_a_gstreamer_pipeline_without_the_element_is_refused(heard):
    done = subprocess.run(
        [debian_python(), EXAMPLES / "gstreamer_probe.py", "--element", "nvinfer"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert "no element named 'nvinfer'" in done.stderr
    assert done.returncode == 1


def test_the_yolo_camera_pipeline_shows_its_frames_to_a_sidecar(torch, cv2, heard, tmp_path):
    source, feed = heard
    child = subprocess.Popen(
        [sys.executable, EXAMPLES / "yolo_camera" / "pipeline.py", "--sidecar", "--save",
         str(tmp_path / "frame.png")],
        env={**os.environ, "GOVERNOR_SOCKET": str(source.path)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for _ in range(3000):
            if feed.counts["taken"] > 3 and (tmp_path / "frame.png").exists():
                break
            time.sleep(0.02)
        child.terminate()
        said, _ = child.communicate(timeout=30)
    finally:
        child.kill()
    assert feed.counts["taken"] > 3
    assert "detecting with" in said
    assert child.returncode == 0


def test_one_command_starts_pipeline_and_sidecar_and_draws_the_outcome(torch, cv2, tmp_path):
    pytest.importorskip("matplotlib", reason="pip install matplotlib")
    done = subprocess.run(
        [sys.executable, EXAMPLES / "yolo_camera" / "demo.py", "--output", str(tmp_path / "out"),
         "--policy", "fixed", "--longest", "3"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "EMULATED, not measured on hardware" in done.stdout
    assert "frames" in done.stdout
    assert (tmp_path / "out" / "timeline.png").read_bytes().startswith(b"\x89PNG")
    lines = (tmp_path / "out" / "run.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["emulated"]
