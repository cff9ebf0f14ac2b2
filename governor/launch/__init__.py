"""Governing a Python program that knows nothing of it, in its own interpreter."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from governor.errors import InputError
from governor.units import Temperature

STARTUP = Path(__file__).parent / "startup"
VARIABLE = "GOVERNOR_RUN"
ISOLATING = {"I": "isolates it", "E": "ignores PYTHONPATH", "S": "keeps its site from loading"}
"""Options of Python by which it does not find :data:`STARTUP`."""
WITH_VALUE = "cmWX"
_PYTHON = re.compile(r"(python|pypy)[\d.]*[dt]?")
_POLYGLOT = re.compile(rb"""^'''exec' ("[^"\n]+"|\S+) """, re.MULTILINE)
"""How pip starts a script whose interpreter's path is too long, or has a space, for a shebang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What is asked of the governor in the program; as :class:`governor.EnergyGovernor` takes it.

    Attributes:
        limits: by knob the lowest and highest. ``thermal_limit``: by zone.
        record: the run record's path, None: none is written.
        profiles, workload: as of :class:`governor.EnergyGovernor`.
        log_format: ``text`` or ``json``, in which each decision goes to stderr; None: it does not.
    """

    latency_slo: str
    percentile: float
    device: str
    policy: str
    trials: int
    limits: dict[str, tuple[str | None, str | None]] | None = None
    thermal_limit: dict[str, Temperature] | None = None
    objective: str = "energy"
    power_cap: str | None = None
    record: str | None = None
    profiles: str | bool | None = None
    workload: str = ""
    log_format: str | None = None


def prepare(
    command: Sequence[str], options: Options, environment: Mapping[str, str]
) -> tuple[str, dict[str, str]]:
    """The program's path, and the environment in which its interpreter governs it.

    Raises:
        InputError: there is no such program, or it is none of Python's.
    """
    program = shutil.which(command[0], path=environment.get("PATH"))
    if program is None:
        raise InputError(f"there is no program {command[0]!r}; {_instead(command[0])}")
    interpreter = _interpreter(Path(program), command[1:])
    if interpreter is None:
        raise InputError(
            f"{program} is not a Python program, so nothing in it can be seen; let it show its "
            "inferences to: governor sidecar"
        )
    if letter := _isolating(interpreter):
        raise InputError(
            f"the program's Python is started with -{letter}, which {ISOLATING[letter]}, so it "
            "cannot be governed; leave that out, or use EnergyGovernor in the program"
        )
    before = environment.get("PYTHONPATH")
    path = str(STARTUP) if not before else os.pathsep.join((str(STARTUP), before))
    asked = json.dumps({**asdict(options), "pythonpath": before})
    return program, {**environment, "PYTHONPATH": path, VARIABLE: asked}


def _instead(word: str) -> str:
    """What may have been meant by the name of a program that is not there."""
    python = sys.executable or "python3"
    if _PYTHON.fullmatch(word):
        return f"name a Python that is, such as {python}"
    if Path(word).is_file():
        return f"run a script as: governor run -- {python} {word}"
    return "give its path, or the name of one on the PATH"


def _interpreter(program: Path, arguments: Sequence[str]) -> Sequence[str] | None:
    """The arguments of the Python that runs ``program``; None: another program does."""
    if _PYTHON.fullmatch(program.name):
        return arguments
    with program.open("rb") as file:
        head = file.read(1024)
    if not head.startswith(b"#!"):
        return None
    words = shlex.split(head.split(b"\n")[0][2:].decode(errors="replace"))
    if words and Path(words[0]).name == "env":
        words = [word for word in words[1:] if word != "-S"]
    if words and Path(words[0]).name == "sh" and (exec_line := _POLYGLOT.search(head)):
        words = [exec_line[1].decode(errors="replace").strip('"')]
    return words[1:] if words and _PYTHON.fullmatch(Path(words[0]).name) else None


def _isolating(arguments: Sequence[str]) -> str | None:
    """The option by which Python would not look at the path that it is given."""
    words = iter(arguments)
    for word in words:
        if not word.startswith("-") or word == "-":
            return None
        if word.startswith("--"):
            continue
        for place, letter in enumerate(word[1:], start=2):
            if letter in ISOLATING:
                return letter
            if letter in "cm":
                return None
            if letter in WITH_VALUE:
                if place == len(word):
                    next(words, None)
                break
    return None
