"""What the pictures that matplotlib draws share: colours, axes, files."""

from __future__ import annotations

import io
import os
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from governor.errors import InputError, MissingExtraError

# matplotlib declares no types for the keyword arguments that all its drawing takes.
Axes = Any
Figure = Any

# Okabe & Ito's palette (https://jfly.uni-koeln.de/color): told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7F7F7F", "#E69F00", "#56B4E9")
INK, FAINT, GRID = "#222222", "#6B6B6B", "#E6E6E6"


def check_format(path: Path, formats: tuple[str, ...]) -> None:
    """Find out before the work whether a picture can be drawn to ``path``.

    Raises:
        InputError: the ending is none of ``formats``.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix.lower() not in formats:
        raise InputError(f"{path} is no plot that can be drawn; end it in {', '.join(formats)}")
    empty_figure(1.0, 1.0)


def empty_figure(width_in: float, height_in: float) -> Figure:
    """A white figure of that size in inches.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    if "MPLCONFIGDIR" not in os.environ and not _home_is_writable():
        os.environ["MPLCONFIGDIR"] = _settings_folder().name
    try:
        figure = import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report") from error
    return figure(figsize=(width_in, height_in), facecolor="white")


def _home_is_writable() -> bool:
    """Whether matplotlib can keep its settings and fonts there; if not, it says so on stderr."""
    home = Path(os.path.expanduser("~"))
    for variable, usual in (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache")):
        folder = Path(os.environ.get(variable) or home / usual).absolute()
        there = next(each for each in (folder, *folder.parents) if each.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            return False
    return True


@cache
def _settings_folder() -> TemporaryDirectory[str]:
    """Removed when the process ends."""
    return TemporaryDirectory(prefix="governor-matplotlib-")


def prepare(axes: Axes, title: str) -> None:
    """Give axes their title and take away what is not data."""
    axes.set_title(title, loc="left", size=10.5, color=INK, pad=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT)
    axes.grid(axis="y", color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, length=0, labelbottom=True)


def svg(figure: Figure) -> str:
    """The figure as SVG text; the same figures give the same text."""
    text = io.StringIO()
    # Neither the date nor a random salt of the ids.
    with import_module("matplotlib").rc_context({"svg.hashsalt": "governor"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def inline(figure: Figure) -> str:
    """The figure as an SVG element for a page."""
    text = svg(figure)
    return text[text.index("<svg") :]
