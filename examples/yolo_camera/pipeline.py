"""A YOLO camera pipeline: capture, detect, draw; at the camera's frame rate, until stopped.

    python pipeline.py                          # a generated video, a random-weight network
    python pipeline.py --source 0               # a camera; or rtsp://..., or a file
    python pipeline.py --governed               # governed in this process, three lines
    python pipeline.py --sidecar                # shows its frames to governor sidecar

Ultralytics' YOLO is used where it is installed (pip install ultralytics), with its own weights.
Else it is the small network of tiny_yolo.py with random weights: its boxes mean nothing.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import cv2
import numpy as np

sys.path.append(str(Path(__file__).parent.parent))

Detect = Callable[[np.ndarray], np.ndarray]
"""A BGR frame, shape ``(h, w, 3)``, to boxes as x1, y1, x2, y2, score, shape ``(k, 5)``."""


def frames(source: str, fps: float) -> Iterator[np.ndarray]:
    """Of a camera's index, an RTSP stream, a file that is repeated; ``""``: a generated one.

    What is no live camera is played at ``fps``; a frame that comes too late is skipped, as a
    camera would.
    """
    if source.isdigit() or source.startswith("rtsp://"):
        yield from _read(cv2.VideoCapture(int(source) if source.isdigit() else source), source)
        return
    with tempfile.TemporaryDirectory() as folder:
        if not source:
            from real_detector import write_video

            source = str(Path(folder, "generated.avi"))
            write_video(Path(source))
        due_s = time.monotonic()
        while True:
            for frame in _read(cv2.VideoCapture(source), source):
                late_s = time.monotonic() - due_s
                due_s += max(1, -(-late_s // (1 / fps))) / fps if late_s > 0 else 1 / fps
                time.sleep(max(0.0, due_s - time.monotonic()))
                yield frame


def _read(video: cv2.VideoCapture, source: str) -> Iterator[np.ndarray]:
    if not video.isOpened():
        raise SystemExit(f"cannot open the video source {source!r}")
    try:
        while True:
            there, frame = video.read()
            if not there:
                return
            yield frame
    finally:
        video.release()


def detector(weights: str) -> tuple[Detect, str]:
    """What finds boxes, and what it is."""
    try:
        from ultralytics import YOLO
    except ImportError:
        return _random_detector(), "a small YOLO with RANDOM weights (ultralytics is not installed)"
    model = YOLO(weights)
    return lambda frame: model(frame, verbose=False)[0].boxes.data[:, :5].cpu().numpy(), weights


def _random_detector() -> Detect:
    import torch
    from real_detector import to_tensor
    from tiny_yolo import TinyYolo
    from tiny_yolo import detect as best_boxes

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = TinyYolo().eval()

    @torch.inference_mode()
    def detect(frame: np.ndarray) -> np.ndarray:
        found = best_boxes(model(to_tensor(frame))[0], keep=20)
        return torch.cat((found[:, :4], found[:, 4:].amax(dim=1, keepdim=True)), dim=1).numpy()

    return detect


def draw(frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The frame with its boxes."""
    for x1, y1, x2, y2, score in boxes.tolist():
        cv2.rectangle(frame, (int(x1), int(y1)), (int(x2), int(y2)), (60, 220, 60), 1)
        cv2.putText(frame, f"{score:.2f}", (int(x1), int(y1) + 10), 0, 0.3, (255, 255, 255), 1)
    return frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="", help="camera index, rtsp:// URL or file")
    parser.add_argument("--fps", type=float, default=15.0, help="of a file or the generated video")
    parser.add_argument("--weights", default="yolov8n.pt", help="of Ultralytics' YOLO")
    parser.add_argument("--governed", action="store_true", help="in this process")
    parser.add_argument("--latency-slo", default="50ms", help="with --governed")
    parser.add_argument("--device", default="auto", help="with --governed")
    parser.add_argument("--sidecar", action="store_true", help="show frames to governor sidecar")
    parser.add_argument("--save", type=Path, help="keep the latest frame with its boxes here")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))

    detect, what = detector(arguments.weights)
    print(f"detecting with {what}", flush=True)
    camera = frames(arguments.source, arguments.fps)
    for _, frame in zip(range(3), camera, strict=False):  # lazy initialisation is no inference
        detect(frame)

    if arguments.governed:
        from governor import EnergyGovernor

        with EnergyGovernor(arguments.latency_slo, device=arguments.device) as gov:
            loop(camera, detect, gov.inference, arguments.save)
    elif arguments.sidecar:
        from governor.sidecar.client import frame as inference

        loop(camera, detect, inference, arguments.save)
    else:
        loop(camera, detect, nullcontext, arguments.save)


def loop(
    camera: Iterator[np.ndarray],
    detect: Detect,
    inference: Callable[[], object],
    save: Path | None,
) -> None:
    """Detect and draw on frame after frame."""
    saved_s = 0.0
    for frame in camera:
        with inference():
            boxes = detect(frame)
        drawn = draw(frame, boxes)
        if save is not None and time.monotonic() - saved_s > 1.0:
            saved_s = time.monotonic()
            cv2.imwrite(str(save), cv2.resize(drawn, None, fx=2, fy=2))


if __name__ == "__main__":
    main()
