"""A YOLO camera pipeline and a sidecar that governs it: both started here, the outcome shown.

    python demo.py                              # on an emulated Jetson AGX Orin
    python demo.py --device auto --source 0     # on a Jetson, with its camera

On an emulated board the network, frames, processes and sockets are real; the board is not: the
client sleeps after each frame for as long as the emulated clocks would have made it longer.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from governor.units import format_duration, format_energy, format_percent

HERE = Path(__file__).parent
SIDECAR = "from governor.cli.main import main; raise SystemExit(main())"
START_S = 60.0
"""So long, loading a network may take."""
COLOURS = {"baseline": "#d9d9d9", "profile": "#fde0b6", "search": "#cfe2f3", "hold": "#d5ead5",
           "fallback": "#f6cfcf"}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--latency-slo", default="60ms", help="well within the 67 ms of 15 fps")
    parser.add_argument("--device", default="emulated:agx-orin/yolov8n")
    parser.add_argument("--source", default="", help="camera index, rtsp:// URL or file")
    parser.add_argument("--fps", type=float, default=15.0)
    parser.add_argument("--policy", default="bayesian")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--hold", type=float, default=15.0, help="seconds to stay in hold")
    parser.add_argument(
        "--longest", type=float, default=180.0, help="seconds after the first frame"
    )
    parser.add_argument("--output", type=Path, default=Path("yolo-camera"), help="a folder")
    arguments = parser.parse_args()
    output = arguments.output
    output.mkdir(parents=True, exist_ok=True)
    record = output / "run.jsonl"
    record.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        status = run(arguments, Path(folder), record)
    show(status)
    draw(record, output / "timeline.png", status)
    print(f"look at {output / 'timeline.png'} and {output / 'frame.png'}; record: {record}")


def run(arguments: argparse.Namespace, folder: Path, record: Path) -> dict:
    """Both processes, until the point has been held for long enough; the last status."""
    socket, status_file = folder / "sidecar.sock", folder / "status.json"
    sidecar = subprocess.Popen(
        [sys.executable, "-c", SIDECAR, "sidecar", "--latency-slo", arguments.latency_slo,
         "--device", arguments.device, "--socket", str(socket), "--status-file", str(status_file),
         "--policy", arguments.policy, "--trials", str(arguments.trials), "--record", str(record)],
    )  # fmt: skip
    emulated = arguments.device.startswith("emulated:")
    pipeline = subprocess.Popen(
        [sys.executable, HERE / "pipeline.py", "--sidecar", "--source", arguments.source, "--fps",
         str(arguments.fps), "--save", str(arguments.output / "frame.png")],
        env={**os.environ, "GOVERNOR_SOCKET": str(socket), "GOVERNOR_EMULATED": str(int(emulated))},
    )  # fmt: skip
    until_s = time.monotonic() + START_S + arguments.longest
    held_s = seen_s = None
    status: dict = {}
    try:
        while time.monotonic() < until_s:
            time.sleep(0.5)
            for process in (sidecar, pipeline):
                if process.poll() is not None:
                    raise SystemExit(f"{process.args[1:3]} ended by itself: {process.returncode}")
            if status_file.exists():
                status = json.loads(status_file.read_text())
            if seen_s is None and status.get("inferences"):
                seen_s = time.monotonic()
                until_s = seen_s + arguments.longest
            if status.get("phase") != "hold":
                held_s = None
            elif held_s is None:
                held_s = time.monotonic()
            elif time.monotonic() - held_s > arguments.hold:
                break
    finally:
        sidecar.send_signal(signal.SIGTERM)
        pipeline.terminate()
        sidecar.wait(20)
        pipeline.wait(20)
    return status  # from while it governed


def show(status: dict) -> None:
    """The outcome, for a terminal."""
    app = status["apps"]["main"]
    label = "EMULATED, not measured on hardware" if status["emulated"] else "measured"
    lines = {
        "device": f"{status['device']} ({label})",
        "phase": status["phase"],
        "bound": f"p{100 * app['percentile']:g} <= {_time(app['slo_s'])}",
        "latency": _time(app["latency_s"]),
        "frames": f"{app['inferences']}, {app['violations']} over the bound",
        "trials": str(status["trials"]),
    }
    for name, key in (("before", "baseline_energy_j"), ("now", "held_energy_j")):
        energy_j = status[key]
        lines[name] = "not known" if energy_j is None else f"{format_energy(energy_j)} a frame"
    if status["saving"] is not None:
        lines["saved"] = format_percent(status["saving"])
    elif None not in (status["baseline_energy_j"], status["held_energy_j"]):
        lines["saved"] = "not known: frames took another time when 'before' was measured"
    print()
    for name, text in lines.items():
        print(f"{name:>9}  {text}")


def _time(seconds: float | None) -> str:
    return "not known yet" if seconds is None else format_duration(seconds)


def draw(record: Path, picture: Path, status: dict) -> None:
    """Latency, energy and clocks over time, from the run record."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    lines = [json.loads(line) for line in record.read_text().splitlines()]
    header = next(line for line in lines if line["record"] == "header")
    every = [line for line in lines if line["record"] == "window"]
    windows = [window for window in every if window["inferences"]]
    figure, axes = pyplot.subplots(3, 1, figsize=(9, 7.5), sharex=True, layout="constrained")
    figure.suptitle(f"YOLO camera pipeline under governor sidecar: {header['description']}")
    for axis in axes:
        for window in every:
            axis.axvspan(window["start_s"], window["end_s"], color=COLOURS[window["phase"]], lw=0)
        axis.spines[["top", "right"]].set_visible(False)
    latency, energy, clocks = axes
    _steps(latency, windows, lambda w: 1e3 * w["latency_s"], "latency at the percentile")
    if (bound_s := status["apps"]["main"]["slo_s"]) is not None:
        label = f"bound, {format_duration(bound_s)}"
        latency.axhline(1e3 * bound_s, color="#b03030", lw=1.2, ls="--", label=label)
    latency.set_ylabel("ms")
    _finish(latency)
    _steps(energy, windows, lambda w: 1e3 * w["energy_j"], "energy a frame", "#2a6f3c")
    for key, text in (("baseline_energy_j", "before"), ("held_energy_j", "now")):
        if status[key] is not None:
            energy.axhline(1e3 * status[key], color="#555555", lw=0.8, ls=":")
            energy.text(1.0, 1e3 * status[key], f" {text}", transform=energy.get_yaxis_transform(),
                        fontsize=8, va="bottom" if text == "before" else "top")  # fmt: skip
    energy.set_ylabel("mJ")
    _finish(energy)
    for knob, colour in zip(header["levels"], ("#1f77b4", "#9467bd", "#e08214"), strict=False):
        _steps(clocks, windows, lambda w, k=knob: 1e-6 * w["point"][k],
               f"{knob.removesuffix('_hz').upper()} clock set", colour)  # fmt: skip
    clocks.set_ylabel("MHz")
    _finish(clocks)
    clocks.set_xlabel("seconds since the start; where no clock is drawn, the system's own govern")
    phases = [pyplot.Rectangle((0, 0), 1, 1, color=COLOURS[p]) for p in COLOURS]
    figure.legend(phases, COLOURS, loc="outside lower center", fontsize=8, ncols=5, frameon=False)
    figure.savefig(picture, dpi=120)


def _finish(axis) -> None:
    """From zero, with room for the legend above the data."""
    if not axis.lines:
        return  # nothing was known, or set
    axis.set_ylim(0, 1.25 * axis.dataLim.ymax)
    axis.legend(loc="upper right", fontsize=8, ncols=3, frameon=False)


def _steps(axis, windows, value, label, colour="#1f4e79") -> None:
    """A level for each window; what is not known is left out."""
    for window in windows:
        try:
            y = value(window)
        except TypeError:
            continue
        axis.plot([window["start_s"], window["end_s"]], [y, y], color=colour, lw=2, label=label)
        label = None


if __name__ == "__main__":
    main()
