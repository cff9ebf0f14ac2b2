"""The boards that come with the project, and those of files of one's own."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

from governor.errors import InputError, problem_of, unknown_name
from governor.roofline.board import Board
from governor.roofline.board_file import parse_board

_ORDER = (
    "nano", "tx2", "xavier-nx", "agx-xavier", "orin-nano", "orin-nx", "agx-orin", "rtx-3080",
)  # fmt: skip


def board_names() -> list[str]:
    """The boards that come with the project, oldest Jetson first."""
    return list(_ORDER)


def load_board(name: str | Path) -> Board:
    """The board called ``name``, or that of a file: a path, or text that ends in ``.toml``.

    Raises:
        InputError: no such board or file, or something in the file cannot be used.
    """
    if str(name).endswith(".toml"):
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"cannot read the board file {path}: {problem_of(error)}") from error
        return parse_board(text, path.stem, str(path))
    if name not in _ORDER:
        other = "or give the path of a board file that ends in .toml"
        raise unknown_name("board", str(name), _ORDER, other)
    return _stock(str(name))


@cache
def _stock(name: str) -> Board:
    return parse_board(board_text(name), name, f"{name}.toml")


def board_text(name: str) -> str:
    """The file of the stock board called ``name``, as it stands."""
    return files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
