"""Tables in a terminal, however narrow it is."""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

LEAST = 14
"""Columns that may fold are not narrower than their longest word, or this."""


class TitledTable(Table):
    """Under a title that may be wider than it; a list of rows where the columns do not fit."""

    heading = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.heading:
            yield Text(self.heading, style="bold")
        natural = self.__rich_measure__(console, options.update_width(10_000)).maximum
        if natural - sum(map(_slack, self.columns)) <= options.max_width:
            yield from super().__rich_console__(console, options)
        else:
            yield from self._list()

    def _list(self) -> RenderResult:
        """A row: its first cell, and below it the others after their columns' headers."""
        columns = [list(map(str, (column.header, *column.cells))) for column in self.columns]
        headers, *rows = zip(*columns, strict=True)
        names = [" ".join(header.replace("-\n", "-").split()) for header in headers]
        for row, cells in zip(self.rows, rows, strict=True):
            pairs = list(zip(names, cells, strict=True))[1:]
            told = "; ".join(f"{name} {cell}" for name, cell in pairs if cell)
            yield Text.from_markup(cells[0], style=row.style or "")
            yield Padding(Text.from_markup(told), (0, 0, 0, 2))


def _slack(column: Column) -> int:
    """By how much it may be narrower than it would like to be."""
    if column.no_wrap:
        return 0
    lines = [line for cell in (column.header, *column.cells) for line in str(cell).split("\n")]
    words = [word for line in lines for word in line.split()]
    widest, longest = (max(map(cell_len, each), default=0) for each in (lines, words))
    return max(widest - min(longest, LEAST), 0)
