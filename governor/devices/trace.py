"""Trace CSV: measured sweeps, one setting a row, as ``replay`` reads and ``sweep`` writes them."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from governor.errors import InputError
from governor.space import FloatArray, Space

_KNOBS = {
    "cpu_cores": ("cpu_cores", 1.0),
    "cpu_mhz": ("cpu_hz", 1e6),
    "gpu_mhz": ("gpu_hz", 1e6),
    "emc_mhz": ("emc_hz", 1e6),
}
"""Column of each knob: its name here, and base units per unit of the column."""

EMULATED = " (emulated)"
"""Stands behind the name of an emulated device."""

_MOST = 1e15
"""No number of a trace is larger in SI units, and none is smaller than its inverse."""
MOST_BYTES = 2**28
"""A larger file is no trace: some million settings are measured in years."""

BATCH_SIZE = "batch_size"
_COLUMNS = ("device", "workload", "batch_size", *_KNOBS, "latency_ms", "power_w", "energy_j")


@dataclass(frozen=True, eq=False)
class Sweep:
    """All measured settings of one workload at one batch size on one device.

    Attributes:
        batch_size: items in one inference; 1 where it is a knob, as :func:`join` makes it.
        space: the ``n`` settings, in the order of the file; only the knobs that varied.
        latency_s: seconds of one inference (one batch), shape ``(n,)``.
        energy_j: joules of ``batch_size`` items, shape ``(n,)``: of one inference, or of one
            item where the batch size is a knob.
        power_w: watts, shape ``(n,)``.
    """

    device: str
    workload: str
    batch_size: int
    space: Space
    latency_s: FloatArray
    energy_j: FloatArray
    power_w: FloatArray

    def __str__(self) -> str:
        batch = "any" if self.joint else self.batch_size
        return f"{self.device} {self.workload} batch {batch}"

    @property
    def emulated(self) -> bool:
        """Whether the file says of its device that it was emulated."""
        return self.device.endswith(EMULATED)

    @property
    def board(self) -> str:
        """The device's name, without what says that it was emulated."""
        return self.device.removesuffix(EMULATED)

    @property
    def joint(self) -> bool:
        """Whether the batch size is a knob of its settings."""
        return BATCH_SIZE in self.space.names

    def items(self, row: int) -> int:
        """Items in one inference at that row."""
        if not self.joint:
            return self.batch_size
        return int(self.space.settings[row, self.space.names.index(BATCH_SIZE)])

    @cached_property
    def all_max_latency_s(self) -> float:
        """Seconds of one inference at the all-max corner."""
        return float(self.latency_s[self.space.fastest])

    @cached_property
    def mean_power_w(self) -> FloatArray:
        """Watts as the energy and the latency have it, shape ``(n,)``; traces round each."""
        sizes = [self.items(row) for row in range(len(self.space))] if self.joint else 1
        return self.energy_j * np.array(sizes) / self.latency_s

    def optimum(self, slo_s: float) -> int:
        """The row of least energy among those that keep ``slo_s`` seconds.

        Where none keeps it: the row of least latency.
        """
        keeps = self.latency_s <= slo_s
        if not np.any(keeps):
            return int(np.argmin(self.latency_s))
        return int(np.argmin(np.where(keeps, self.energy_j, np.inf)))


@dataclass(frozen=True, slots=True)
class _Row:
    """One data row: its line in the file, and its cells by column."""

    path: Path
    line: int
    cells: dict[str, str]

    def error(self, column: str, problem: str) -> InputError:
        return InputError(f"{self.path}, line {self.line}, column {column}: {problem}")

    def text(self, column: str) -> str:
        if not self.cells[column]:
            raise self.error(column, f"is empty; write the {column.replace('_', ' ')}")
        return self.cells[column]

    def number(self, column: str, scale: float) -> float:
        text = self.cells[column]
        try:
            value = float(text) * scale
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value <= 0 or "_" in text:
            raise self.error(column, f"{text!r} is not a positive number; correct or drop this row")
        if not 1.0 / _MOST <= value <= _MOST:
            raise self.error(column, f"{text!r} is beyond all measure; correct or drop this row")
        return value

    def count(self, column: str) -> int:
        value = self.number(column, 1.0)
        if value != int(value):
            raise self.error(column, f"{value:g} is not a whole number; correct or drop this row")
        return int(value)


def read_traces(paths: Sequence[str | Path]) -> list[Sweep]:
    """The sweeps in these files, in order of appearance.

    Raises:
        InputError: a file that cannot be read or is not a trace, with line and column; or a
            sweep that occurs in two files.
    """
    found: dict[str, Path] = {}
    sweeps: list[Sweep] = []
    for path in map(Path, paths):
        for sweep in _read_file(path):
            if str(sweep) in found:
                raise InputError(
                    f"{path}: the sweep {sweep} is in {found[str(sweep)]} too; give it once"
                )
            found[str(sweep)] = path
            sweeps.append(sweep)
    return sweeps


def join(sweeps: Sequence[Sweep]) -> list[Sweep]:
    """The sweeps of a device and workload made one, with the batch size as a knob.

    Raises:
        InputError: they do not vary the same knobs, or there is one batch size only.
    """
    groups: dict[tuple[str, str], list[Sweep]] = {}
    for sweep in sweeps:
        groups.setdefault((sweep.device, sweep.workload), []).append(sweep)
    return [_joined(name, group) for name, group in groups.items()]


def _joined(name: tuple[str, str], group: list[Sweep]) -> Sweep:
    names = group[0].space.names
    if len(group) < 2:
        raise InputError(
            f"{group[0]}: is the only batch size of {' '.join(name)}; a joint search needs several"
        )
    if any(sweep.space.names != names for sweep in group):
        raise InputError(
            f"{' '.join(name)}: other knobs vary at other batch sizes; search them one by one"
        )
    sizes = np.repeat([sweep.batch_size for sweep in group], [len(s.space) for s in group])
    settings = np.vstack([sweep.space.settings for sweep in group])
    return Sweep(
        *name,
        1,
        Space.of_settings((*names, BATCH_SIZE), np.column_stack((settings, sizes))),
        latency_s=np.concatenate([sweep.latency_s for sweep in group]),
        energy_j=np.concatenate([sweep.energy_j / sweep.batch_size for sweep in group]),
        power_w=np.concatenate([sweep.power_w for sweep in group]),
    )


def write_trace(path: str | Path, sweeps: Iterable[Sweep]) -> None:
    """Write sweeps as one trace; knobs that a sweep does not have stay blank.

    Raises:
        InputError: a sweep has a knob that a trace has no column for.
        OSError: the file cannot be written.
    """
    columns = {name: column for column, (name, _) in _KNOBS.items()}
    sweeps = list(sweeps)
    for name in (name for sweep in sweeps for name in sweep.space.names):
        if name not in columns:
            raise InputError(f"a trace has no column for {name}; leave that knob fixed")
    with Path(path).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, restval="")
        writer.writeheader()
        for sweep in sweeps:
            for row, setting in enumerate(sweep.space.settings.tolist()):
                knobs = {
                    columns[name]: _decimal(value / _KNOBS[columns[name]][1])
                    for name, value in zip(sweep.space.names, setting, strict=True)
                }
                writer.writerow(
                    {
                        "device": sweep.device,
                        "workload": sweep.workload,
                        "batch_size": sweep.batch_size,
                        **knobs,
                        "latency_ms": _decimal(sweep.latency_s[row] * 1e3),
                        "power_w": _decimal(sweep.power_w[row]),
                        "energy_j": _decimal(sweep.energy_j[row]),
                    }
                )


def _decimal(value: float) -> str:
    return f"{value:.12g}"


def _read_file(path: Path) -> list[Sweep]:
    groups: dict[tuple[str, str, int], list[_Row]] = {}
    for row in _rows(path):
        key = (row.text("device"), row.text("workload"), row.count("batch_size"))
        groups.setdefault(key, []).append(row)
    if not groups:
        raise InputError(f"{path}: has no rows below its header; give a trace of measurements")
    return [_sweep(key, rows) for key, rows in groups.items()]


def _rows(path: Path) -> Iterator[_Row]:
    """Each data row of the file; blank lines are passed over."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    nothing: list[str] = []
    try:
        header = [name.strip() for name in next(reader, nothing)]
        _check_header(path, header)
        for cells in reader:
            if not any(map(str.strip, cells)):  # of blanks, as spreadsheets leave them
                continue
            if len(cells) != len(header):
                column = header[len(cells)] if len(cells) < len(header) else header[-1]
                raise InputError(
                    f"{path}, line {reader.line_num}, column {column}: {len(cells)} "
                    f"cell{'s' * (len(cells) != 1)} under a header of {len(header)}; give each "
                    "column one cell"
                )
            named = dict(zip(header, (cell.strip() for cell in cells), strict=True))
            yield _Row(path, reader.line_num, named)
    except csv.Error as error:
        raise InputError(
            f"{path}, line {reader.line_num}: is not CSV ({error}); give a comma-separated trace"
        ) from error


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}); give the path of a trace CSV"
        ) from error
    if len(data) > MOST_BYTES:
        raise InputError(
            f"{path}: is larger than any trace ({MOST_BYTES >> 20} MiB); give a trace CSV"
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}, line {line}: byte {data[error.start]:#04x} is not UTF-8; "
            "save the trace as UTF-8 text"
        ) from error


def _check_header(path: Path, header: list[str]) -> None:
    if not header:
        raise InputError(f"{path}: is empty; give a trace CSV with the header {','.join(_COLUMNS)}")
    for sign, named in ((";", "';'"), ("\t", "a tab")):
        if len(header) == 1 and sign in header[0]:
            raise InputError(f"{path}, line 1: is separated by {named}; save it with commas")
    for column in _COLUMNS:
        if column not in header:
            raise InputError(
                f"{path}, line 1, column {column}: is missing from the header; add it"
                + (" and leave it blank where it did not vary" if column in _KNOBS else "")
            )
        if header.count(column) > 1:
            raise InputError(f"{path}, line 1, column {column}: occurs twice; drop one of them")


def _sweep(key: tuple[str, str, int], rows: list[_Row]) -> Sweep:
    device, workload, batch_size = key
    return Sweep(
        device,
        workload,
        batch_size,
        _space(rows),
        latency_s=np.array([row.number("latency_ms", 1e-3) for row in rows]),
        energy_j=np.array([row.number("energy_j", 1.0) for row in rows]),
        power_w=np.array([row.number("power_w", 1.0) for row in rows]),
    )


def _space(rows: list[_Row]) -> Space:
    """The settings of these rows, by the knobs that vary in them (or one, if none varies)."""
    given = [column for column in _KNOBS if any(row.cells[column] for row in rows)]
    if not given:
        raise rows[0].error("gpu_mhz", f"every knob is blank; fill in one of {', '.join(_KNOBS)}")
    values = np.array([[_level(row, column) for column in given] for row in rows])
    lines: dict[tuple[float, ...], int] = {}
    for row, levels in zip(rows, values.tolist(), strict=True):
        setting = tuple(levels)
        if setting in lines:
            raise row.error(
                given[-1], f"this setting is on line {lines[setting]} already; keep one of the two"
            )
        lines[setting] = row.line
    varies = [i for i in range(len(given)) if np.ptp(values[:, i]) > 0] or [len(given) - 1]
    return Space.of_settings([_KNOBS[given[i]][0] for i in varies], values[:, varies])


def _level(row: _Row, column: str) -> float:
    if not row.cells[column]:
        raise row.error(
            column, "is blank here and set in other rows of this sweep; fill it in everywhere"
        )
    if column == "cpu_cores":
        return float(row.count(column))
    # Whole hertz: 345.6 MHz * 1e6 must be the same float as any other way to write it.
    level = float(round(row.number(column, _KNOBS[column][1])))
    if level == 0:
        raise row.error(column, f"{row.cells[column]!r} is under one hertz; write megahertz")
    return level
