"""Govern a real PyTorch detector on real video frames, in the shadow of an emulated board.

An ordinary machine has no clocks to set. So the network, the frames, the threads and the search
process are real, and the board is not: each inference is stretched by what an emulated Jetson's
present clocks would cost against its fastest ones, and energy is what the emulation accounts.

    python -m pip install torch opencv-python-headless
    python examples/real_detector.py --latency-slo 60ms
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from tiny_yolo import TinyYolo, detect
from torch import Tensor

from governor import Decision, EnergyGovernor, Pace, Status
from governor.units import format_duration, format_energy, format_percent

SIDE = 320
BOXES = 6


def write_video(path: Path, frames: int = 90) -> None:
    """Boxes that move over a gradient, as a Motion-JPEG file."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 30.0, (SIDE, SIDE))
    draw = np.random.default_rng(0)
    places = draw.uniform(0, SIDE, (BOXES, 2))
    speeds = draw.uniform(-6, 6, (BOXES, 2))
    shade = np.linspace(0, 160, SIDE, dtype=np.uint8)
    for _ in range(frames):
        frame = np.dstack([np.tile(shade, (SIDE, 1))] * 3)
        places = (places + speeds) % SIDE
        for x, y in places.astype(int).tolist():
            cv2.rectangle(frame, (x, y), (x + 40, y + 30), (40, 200, 250), -1)
        writer.write(frame)
    writer.release()


def read_video(path: Path) -> Iterator[np.ndarray]:
    """The frames of the file, again and again."""
    while True:
        video = cv2.VideoCapture(str(path))
        while True:
            there, frame = video.read()
            if not there:
                break
            yield frame
        video.release()


def to_tensor(frame: np.ndarray) -> Tensor:
    """BGR bytes, shape (h, w, 3), to RGB in 0..1, shape (1, 3, h, w)."""
    rgb = np.ascontiguousarray(frame[:, :, ::-1])
    return torch.from_numpy(rgb).permute(2, 0, 1).unsqueeze(0).float() / 255


def until_held(gov: EnergyGovernor, frames: Iterator[np.ndarray], hold_s: float) -> Iterator:
    """Frames until the governor has held its point for ``hold_s`` seconds."""
    held_s = 0.0
    last_s = time.perf_counter()
    for frame in frames:
        yield frame
        now_s = time.perf_counter()
        held_s += now_s - last_s if gov.phase == "hold" else 0.0
        last_s = now_s
        if held_s > hold_s:
            return


def say(decision: Decision) -> None:
    """What the governor does, as it does it."""
    if decision.kind != "wait":
        print(f"{decision.phase:>9} | {decision.kind:<8} | {decision.reason}", flush=True)


@torch.inference_mode()
def run(arguments: argparse.Namespace, video: Path) -> tuple[Status, int]:
    """Detect on frames until a point is held; returns the status and how many boxes were seen."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = TinyYolo().eval()
    boxes = 0
    with EnergyGovernor(
        arguments.latency_slo,
        device=arguments.device,
        policy=arguments.policy,
        trials=arguments.trials,
        pace=Pace(window_max_s=arguments.window, baseline_max_s=3 * arguments.window),
        callback=say,
    ) as gov:
        for frame in gov.watch(until_held(gov, read_video(video), arguments.hold)):
            boxes += len(detect(model(to_tensor(frame))[0]))
        return gov.status(), boxes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency-slo", default="60ms")
    parser.add_argument("--device", default="emulated:agx-orin/yolov8n")
    parser.add_argument("--policy", default="bayesian")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--window", type=float, default=6.0, help="seconds a trial may last")
    parser.add_argument("--hold", type=float, default=10.0, help="seconds to stay in hold")
    parser.add_argument("--json", type=Path, help="write the outcome here")
    arguments = parser.parse_args()

    print(f"Real network and frames; clocks and energy EMULATED by {arguments.device}.")
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, "frames.avi")
        write_video(video)
        status, boxes = run(arguments, video)
    print(f"{status.inferences} inferences, {boxes} boxes, {status.trials} trials")
    own = "the system's own governors; nothing better was found"
    print(f"held: {status.point or own}")
    print(
        f"latency at the percentile: {format_duration(status.latency_s)} "
        f"of {format_duration(status.slo_s)}"
    )
    print(f"inferences that missed it, in all: {status.violations}")
    print(
        f"emulated energy a frame: {format_energy(status.baseline_energy_j)} under the default "
        f"governors, {format_energy(status.held_energy_j)} now"
    )
    if status.saving is not None:
        print(f"saved (emulated): {format_percent(status.saving)}")
    if arguments.json:
        outcome = {
            "emulated": status.emulated,
            "inferences": status.inferences,
            "boxes": boxes,
            "trials": status.trials,
            "phase": status.phase,
            "slo_feasible": status.slo_feasible,
            "latency_s": status.latency_s,
            "baseline_energy_j": status.baseline_energy_j,
            "held_energy_j": status.held_energy_j,
        }
        arguments.json.write_text(json.dumps(outcome))


if __name__ == "__main__":
    main()
