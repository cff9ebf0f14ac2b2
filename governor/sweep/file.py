"""What a sweep leaves behind: a trace, every repeat of it, and where it came from.

``-o sweep.csv`` makes three files. ``sweep.repeats.csv`` gets a line as soon as a measurement
is done, and is flushed to the disk, so that a sweep that was killed goes on from there.
``sweep.csv`` is the trace that ``governor replay`` reads: the mean of the repeats of each
setting. ``sweep.json`` says what was measured, on what, and how.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import stat
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from governor import __version__
from governor.devices.device import Device
from governor.devices.trace import EMULATED, write_trace
from governor.devices.trace import Sweep as Trace
from governor.errors import InputError
from governor.space import OperatingPoint, Space
from governor.sweep.schedule import Measurement
from governor.sweep.sweep import Failure, Measured, Rules
from governor.trial import Trial

_FIGURES = (
    "latency_s",
    "latency_se_s",
    "mean_latency_s",
    "mean_latency_se_s",
    "energy_j",
    "energy_se_j",
    "power_w",
    "duration_s",
)
_COUNTS = ("inferences", "items")
FORMAT = 1


class _Begun(BaseModel):
    """What is taken from the file of a sweep that was begun before."""

    fingerprint: str
    starts: list[dict[str, Any]] = []


class SweepFile:
    """The three files of one sweep.

    Attributes:
        done: what was measured so far, in order.
    """

    def __init__(
        self,
        path: Path,
        knobs: Sequence[str],
        about: Mapping[str, Any],
        started: Mapping[str, Any] | None = None,
    ) -> None:
        """Take up a sweep that was begun there, or begin one.

        Args:
            path: of the trace.
            knobs: columns of the repeats, in order.
            about: what identifies this sweep: device, workload, settings, rules. A sweep begun
                with anything else in it is another one; see :func:`describe`.
            started: where and how it is begun or gone on with now, for the reader; see
                :func:`governor.sweep.provenance.provenance`.

        Raises:
            InputError: there is another sweep, or no file can be written there.
        """
        self.path = path
        self.repeats_path = path.with_suffix(".repeats.csv")
        self.about_path = path.with_suffix(".json")
        self.done: list[Measured] = []
        self._knobs = tuple(knobs)
        self._columns = ("repeat", *self._knobs, *_COUNTS, *_FIGURES, "temperature_c")
        self._about = about
        fingerprint = sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        self._head: dict[str, Any] = {"format": FORMAT, "fingerprint": fingerprint, **about}
        self._starts = [] if started is None else [dict(started)]
        if self.repeats_path.exists():
            self._starts = [*self._check_same(fingerprint), *self._starts]
            self.done = self._read()
        else:
            self._check_free()
            self._begin()

    def _begin(self) -> None:
        """Nothing is left of a beginning for which there is no room."""
        there = self.about_path.exists()
        try:
            self._write_about({})
            self._append(self._columns)
        except OSError as error:
            self.repeats_path.unlink(missing_ok=True)
            if not there:
                self.about_path.unlink(missing_ok=True)
            raise InputError(
                f"{self.path}: the sweep cannot be begun there ({error.strerror}); give another -o"
            ) from error

    def _check_same(self, fingerprint: str) -> list[dict[str, Any]]:
        """What is known of the starts before this one."""
        found = self._begun()
        if found is None or found.fingerprint != fingerprint:
            raise InputError(
                f"{self.repeats_path}: holds another sweep (other device, workload, settings or "
                "rules); give another -o, or --overwrite"
            )
        return found.starts

    def _check_free(self) -> None:
        """No file of somebody else's is written over; a sweep killed at once left its story."""
        for path in (self.path, self.about_path):
            if path.exists() and (path == self.path or self._begun() is None):
                raise InputError(
                    f"{path}: is there already, and no sweep was begun in {self.repeats_path}; "
                    "give another -o, or --overwrite"
                )

    def _begun(self) -> _Begun | None:
        try:
            return _Begun.model_validate_json(self.about_path.read_bytes())
        except (OSError, ValueError):
            return None

    def remaining(self, measurements: Sequence[Measurement]) -> list[Measurement]:
        """Those that are not done yet."""
        done = {one.measurement for one in self.done}
        return [measurement for measurement in measurements if measurement not in done]

    def keep(self, measured: Measured) -> None:
        """Write one measurement down, to the disk.

        Raises:
            OSError: it could not be written; what was written before stays whole.
        """
        trial = measured.trial
        point = measured.measurement.point or OperatingPoint({})
        self._append(
            (
                measured.measurement.repeat,
                *(_decimal(point[name]) if name in point else "" for name in self._knobs),
                *(getattr(trial, name) for name in _COUNTS),
                *(_decimal(getattr(trial, name)) for name in _FIGURES),
                _decimal(measured.temperature_c),
            )
        )
        self.done.append(measured)

    def _append(self, cells: Sequence[object]) -> None:
        line = io.StringIO(newline="")
        csv.writer(line, lineterminator="\n").writerow(cells)
        with self.repeats_path.open("ab", buffering=0) as file:
            before = os.fstat(file.fileno())
            data = line.getvalue().encode()
            try:
                while data:
                    data = data[file.write(data) :]
                os.fsync(file.fileno())
            except OSError:
                if stat.S_ISREG(before.st_mode):
                    file.truncate(before.st_size)
                raise

    def _read(self) -> list[Measured]:
        """The measurements of the file; a last line that was cut short is cut off."""
        data = self.repeats_path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with self.repeats_path.open("r+b") as file:
                file.truncate(len(whole))
        rows = list(csv.reader(whole.decode("utf-8").splitlines()))
        if not rows:
            self._append(self._columns)
            return []
        if tuple(rows[0]) != self._columns:
            raise InputError(f"{self.repeats_path}, line 1: is not the header of this sweep")
        return [self._measured(line, row) for line, row in enumerate(rows[1:], 2)]

    def _measured(self, line: int, row: list[str]) -> Measured:
        try:
            cells = dict(zip(self._columns, row, strict=True))
            knobs = {name: float(cells[name]) for name in self._knobs if cells[name]}
            figures: dict[str, Any] = {name: float(cells[name]) for name in _FIGURES}
            figures |= {name: int(cells[name]) for name in _COUNTS}
            trial = Trial(
                point=OperatingPoint(knobs) if knobs else None,
                **figures,
            )
            measurement = Measurement(trial.point, int(cells["repeat"]))
            return Measured(
                measurement=measurement, trial=trial, temperature_c=float(cells["temperature_c"])
            )
        except ValueError as error:
            raise InputError(
                f"{self.repeats_path}, line {line}: is no measurement ({error}); remove the line"
            ) from error

    def finish(self, failures: Sequence[Failure]) -> None:
        """Write the trace and the rest of its story from what is done so far.

        Raises:
            OSError: one cannot be written; what was there before stays whole.
        """
        traces = self.traces()
        if traces:
            _replace(self.path, lambda part: write_trace(part, traces))
        default = self.repeats(None)
        self._write_about(
            {
                "settings_measured": sum(len(trace.space) for trace in traces),
                "default_governors": None if not default else means(default),
                "failed": [str(failure) for failure in failures],
            }
        )

    def _write_about(self, results: dict[str, Any]) -> None:
        text = json.dumps(
            {**self._head, "starts": self._starts, **results}, indent=1, allow_nan=False
        )
        _replace(self.about_path, lambda part: part.write_text(text + "\n", encoding="utf-8"))

    def repeats(self, point: OperatingPoint | None) -> list[Trial]:
        """All measurements of a setting; None: of the system's own governors."""
        return [one.trial for one in self.done if one.measurement.point == point]

    def traces(self) -> list[Trace]:
        """The mean of the repeats, a trace for each batch size."""
        groups: dict[OperatingPoint, list[Trial]] = defaultdict(list)
        for one in self.done:
            if one.measurement.point is not None:
                groups[one.measurement.point].append(one.trial)
        sizes: dict[int, list[OperatingPoint]] = defaultdict(list)
        for point, trials in groups.items():
            sizes[_batch_size(trials[0])].append(point)
        return [self._trace(size, sizes[size], groups) for size in sorted(sizes)]

    def _trace(
        self,
        batch_size: int,
        points: list[OperatingPoint],
        groups: dict[OperatingPoint, list[Trial]],
    ) -> Trace:
        names = [name for name in self._knobs if name != "batch_size"]
        points = sorted(points, key=lambda point: [point[name] for name in names])
        figures = [means(groups[point]) for point in points]
        return Trace(
            str(self._about["device"]) + (EMULATED if self._about["emulated"] else ""),
            str(self._about["workload"]),
            batch_size,
            Space.of_settings(names, np.array([[p[n] for n in names] for p in points])),
            latency_s=np.array([mean["mean_latency_s"] for mean in figures]),
            energy_j=np.array([mean["energy_j"] * batch_size for mean in figures]),
            power_w=np.array([mean["power_w"] for mean in figures]),
        )


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _batch_size(trial: Trial) -> int:
    return round(trial.items / trial.inferences)


def means(trials: Sequence[Trial]) -> dict[str, float]:
    """The figures of a setting: means over its repeats, in s, J an item and W."""
    return {
        name: float(np.mean([getattr(trial, name) for trial in trials]))
        for name in ("latency_s", "mean_latency_s", "energy_j", "power_w")
    }


def _decimal(value: float) -> str:
    return "nan" if math.isnan(value) else f"{value:.9g}"


def describe(
    device: Device, workload: str, space: Space, rules: Rules, repeats: int = 1, seed: int = 0
) -> dict[str, Any]:
    """What a sweep is: one that differs in any of this is another sweep."""
    return {
        "device": device.info.name,
        "description": device.info.description,
        "emulated": device.info.emulated,
        "total_rail": device.info.total_rail,
        "workload": workload,
        "levels": {knob.name: list(knob.levels) for knob in space.knobs},
        "settings": len(space),
        "repeats": repeats,
        "seed": seed,
        "rules": {
            name: value if math.isfinite(value) else None for name, value in asdict(rules).items()
        },
        "governor_version": __version__,
    }
