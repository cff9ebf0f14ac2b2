"""Charts as inline SVG: text that a page's style sheet colours, for light and for dark.

All charts share one size in user units, small enough that their text stays readable where a
phone's screen shrinks them. Hovering over a mark shows its figures, without any script.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from governor.space import FloatArray

Box = tuple[float, float, float, float]
"""Left, top, right and bottom of a rectangle in user units."""

WIDTH, HEIGHT = 480.0, 340.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 14.0, 16.0, 44.0
CHARACTER = 7.4
"""About the width of a character of the 13 px that a page's style sheet sets."""
ASCENT, DESCENT = 10.0, 2.0
"""The same above and below its base line."""
MOST_COVERED = 0.25
"""A name that covers others by more of its own area is left to the tip of its mark."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Values from ``low`` to ``high`` along one side of a chart.

    Attributes:
        name: with its unit.
        ticks: value and label of each mark; None: round numbers.
    """

    name: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]] | None = None
    log: bool = False

    def share(self, value: float) -> float:
        """Where ``value`` lies, 0 at ``low`` and 1 at ``high``."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(value, 1e-300))
        return (at - low) / (high - low) if high > low else 0.5

    def marks(self, most: int) -> list[tuple[float, str]]:
        """At most about so many ticks."""
        if self.ticks is not None:
            return [tick for tick in self.ticks if self.low <= tick[0] <= self.high]
        if self.log:
            return _decades(self.low, self.high)
        step = _round_step((self.high - self.low) / most)
        first = math.ceil(self.low / step - 1e-9)
        return [
            (n * step, f"{n * step:.10g}") for n in range(first, int(self.high / step + 1e-9) + 1)
        ]


def axis(name: str, values: Iterable[float], margin: float = 0.06, zero: bool = False) -> Axis:
    """An axis that holds all the finite ``values``; from 0 where asked for."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(known), max(known)
    room = margin * ((high - low) or abs(high) or 1.0)
    return Axis(name, 0.0 if zero else low - room, high + room)


@dataclass(frozen=True, slots=True)
class _Named:
    """A mark and its name.

    Attributes:
        places: where the name may stand, the best first: x and y of its base line, and whether
            it ends there.
        optional: the name is left out where it would cover others.
    """

    style: str
    shape: str
    tip: str
    text: str
    text_style: str
    places: Sequence[tuple[float, float, bool]]
    optional: bool = False

    def box(self, place: tuple[float, float, bool]) -> Box:
        """What the name covers there, about."""
        x, y, ends = place
        width = CHARACTER * len(self.text)
        left = x - width if ends else x
        return left, y - ASCENT, left + width, y + DESCENT

    def draw(self, place: tuple[float, float, bool]) -> str:
        """The text element."""
        x, y, ends = place
        style = self.text_style + (" end" if ends else "")
        return f'<text class="{style}" x="{x:g}" y="{y:g}">{escape(self.text)}</text>'


class Chart:
    """Collects marks and draws them; methods take data, not user units."""

    def __init__(self, label: str, x: Axis, y: Axis, height: float = HEIGHT) -> None:
        """``label``: what a screen reader says."""
        self.x, self.y = x, y
        self._label = label
        self._height = height
        self._below: list[str] = []
        self._marks: list[str] = []
        self._above: list[_Named] = []
        self._shapes: list[Box] = []

    def at(self, x: float, y: float) -> tuple[float, float]:
        """In user units; far outside is not endlessly far."""
        right = LEFT + min(max(self.x.share(x), -2.0), 3.0) * (WIDTH - LEFT - RIGHT)
        down = 1.0 - min(max(self.y.share(y), -2.0), 3.0)
        return round(right, 1), round(TOP + down * (self._height - TOP - BOTTOM), 1)

    def height_of(self, dy: float) -> float:
        """How high so much of y is drawn, in user units, where the axis is no logarithmic one."""
        return dy / (self.y.high - self.y.low) * (self._height - TOP - BOTTOM)

    def band(self, low: float, high: float, style: str, tip: str = "") -> None:
        """Between two values of x, over the whole height, behind everything."""
        (left, top), (right, bottom) = self.at(low, self.y.high), self.at(high, self.y.low)
        left, right = max(left, LEFT), min(right, WIDTH - RIGHT)
        if right > left:
            self._below.append(
                f'<rect class="{style}" x="{left}" y="{top}" width="{right - left:.1f}" '
                f'height="{bottom - top:.1f}">{_tip(tip)}</rect>'
            )

    def line(self, points: Sequence[tuple[float, float]], style: str, step: bool = False) -> None:
        """Through all points; a NaN interrupts it. ``step``: level until the next point."""
        path, pen = "", "M"
        for x, y in points:
            if not math.isfinite(x + y):
                pen = "M"
                continue
            right, down = self.at(x, y)
            path += f"H{right}V{down}" if step and pen == "L" else f"{pen}{right} {down}"
            pen = "L"
        if path:
            self._marks.append(f'<path class="line {style}" d="{path}"/>')

    def area(
        self, low: Sequence[tuple[float, float]], high: Sequence[tuple[float, float]], style: str
    ) -> None:
        """Between two lines, behind what is drawn later."""
        corners = " ".join("{},{}".format(*self.at(x, y)) for x, y in (*low, *reversed(high)))
        self._marks.append(f'<polygon class="area {style}" points="{corners}"/>')

    def dust(self, points: Sequence[tuple[float, float]]) -> None:
        """Many faint dots."""
        path = "".join("M{} {}h0".format(*self.at(x, y)) for x, y in points)
        self._marks.append(f'<path class="dust" d="{path}"/>')

    def spot(self, x: float, y: float, tip: str) -> None:
        """A small mark, there to be hovered over."""
        right, down = self.at(x, y)
        self._marks.append(
            f'<circle class="spot" cx="{right}" cy="{down}" r="2.6">{_tip(tip)}</circle>'
        )

    def dot(self, x: float, y: float, style: str, tip: str, text: str = "") -> None:
        """One mark, with ``text`` beside it where there is room."""
        right, down = self.at(x, y)
        circle = f'<circle cx="{right}" cy="{down}" r="5"/>'
        self._mark(style, circle, (right, down), 5, tip, text, optional=True)

    def star(self, x: float, y: float, tip: str, text: str = "") -> None:
        """The mark of what was chosen, with ``text`` beside it."""
        right, down = self.at(x, y)
        corners = " ".join(
            f"{right + r * math.sin(a):.1f},{down - r * math.cos(a):.1f}"
            for r, a in ((11 if n % 2 == 0 else 4.6, n * math.pi / 5) for n in range(10))
        )
        polygon = f'<polygon points="{corners}"/>'
        self._mark("chosen", polygon, (right, down), 8, tip, text, style_of_text="mark bold")

    def square(self, x: float, y: float, tip: str, text: str = "") -> None:
        """The mark of the baseline."""
        right, down = self.at(x, y)
        rect = f'<rect x="{right - 5}" y="{down - 5}" width="10" height="10"/>'
        self._mark("base", rect, (right, down), 5, tip, text)

    def _mark(
        self,
        style: str,
        shape: str,
        at: tuple[float, float],
        radius: float,
        tip: str,
        text: str,
        *,
        style_of_text: str = "mark",
        optional: bool = False,
    ) -> None:
        """A shape, and its name to its right or left, above or below."""
        right, down = at
        aside = radius + 2
        places = [
            (right + sign * far * aside, down + drop, sign < 0)
            for far in (1, 2)
            for drop in ((16, -6) if radius > 5 else (-6, 16))
            for sign in (1, -1)
        ]
        self._shapes.append((right - radius, down - radius, right + radius, down + radius))
        self._above.append(_Named(style, shape, tip, text, style_of_text, places, optional))

    def error(self, x: float, y: float, dx: float, dy: float) -> None:
        """One standard error either way."""
        (left, up), (right, down) = self.at(x - dx, y + dy), self.at(x + dx, y - dy)
        middle, level = self.at(x, y)
        self._marks.append(
            f'<path class="line error" d="M{left} {level}H{right}M{middle} {up}V{down}"/>'
        )

    def cell(self, low: tuple[float, float], high: tuple[float, float], fill: str, style: str,
             tip: str) -> None:  # fmt: skip
        """A rectangle between two corners."""
        (left, bottom), (right, top) = self.at(*low), self.at(*high)
        self._marks.append(
            f'<rect class="{style}" x="{left}" y="{top}" width="{right - left:.1f}" '
            f'height="{bottom - top:.1f}" fill="{fill}">{_tip(tip)}</rect>'
        )

    def upright(self, x: float, text: str, style: str = "slo") -> None:
        """A dashed line at a value of x, named at one of its ends, on the side that has room."""
        (right, top), (_, bottom) = self.at(x, self.y.high), self.at(x, self.y.low)
        if not LEFT <= right <= WIDTH - RIGHT:
            return
        self._marks.append(f'<path class="line dashed {style}" d="M{right} {top}V{bottom}"/>')
        sides = [(right - 5, True), (right + 5, False)]
        places = [
            (aside, down, end)
            for down in (top + 11, bottom - 7)
            for aside, end in (sides if right > WIDTH / 2 else sides[::-1])
        ]
        self._above.append(_Named(style, "", "", text, f"mark {style}", places))

    def level(self, y: float, text: str, style: str = "slo") -> None:
        """A dashed line at a value of y, named at one of its ends, above or below."""
        (left, down), (right, _) = self.at(self.x.low, y), self.at(self.x.high, y)
        if not TOP <= down <= self._height - BOTTOM:
            return
        self._marks.append(f'<path class="line dashed {style}" d="M{left} {down}H{right}"/>')
        places = [
            (aside, down + drop, end)
            for aside, end in ((right - 2, True), (left + 4, False))
            for drop in (-5, 14)
        ]
        self._above.append(_Named(style, "", "", text, f"mark {style}", places))

    def draw(self) -> str:
        """The SVG element."""
        left, top = LEFT - 1, TOP - 6
        width, height = WIDTH - LEFT - RIGHT + 8, self._height - TOP - BOTTOM + 10
        return (
            f'<svg viewBox="0 0 {WIDTH:g} {self._height:g}" role="img" '
            f'aria-label="{escape(self._label)}">{"".join(self._below)}{"".join(self._frame())}'
            # what lies outside the axes is cut off
            f'<svg x="{left}" y="{top}" width="{width}" height="{height}" '
            f'viewBox="{left} {top} {width} {height}">{"".join(self._marks)}</svg>'
            f"{''.join(self._named())}</svg>"
        )

    def _named(self) -> Iterator[str]:
        """Marks with their names, each name where it covers least of what is there already."""
        inside = np.array([[LEFT - 4, TOP - 10, WIDTH, self._height - BOTTOM]])
        count = len(self._shapes)
        taken = np.empty((count + len(self._above), 4))
        taken[:count] = np.reshape(self._shapes, (count, 4))
        texts: dict[int, str] = {}
        for number in sorted(range(len(self._above)), key=lambda n: self._above[n].optional):
            named = self._above[number]
            if not named.text:
                continue
            area = CHARACTER * len(named.text) * (ASCENT + DESCENT)
            covered, best = min(
                (_shared(box, taken[:count]) + 2 * (area - _shared(box, inside)), n)
                for n, box in enumerate(map(named.box, named.places))
            )
            if not (named.optional and covered > MOST_COVERED * area):
                taken[count] = named.box(named.places[best])
                count += 1
                texts[number] = named.draw(named.places[best])
        for number, named in enumerate(self._above):
            drawn = named.shape + texts.get(number, "") + _tip(named.tip)
            yield f'<g class="{named.style}">{drawn}</g>'

    def _frame(self) -> Iterator[str]:
        bottom = self._height - BOTTOM
        for value, text in self.y.marks(6):
            _, down = self.at(self.x.low, value)
            yield f'<path class="grid" d="M{LEFT} {down}H{WIDTH - RIGHT}"/>'
            yield f'<text class="tick end" x="{LEFT - 7}" y="{down + 4.5}">{escape(text)}</text>'
        for value, text in self.x.marks(7):
            right, _ = self.at(value, self.y.low)
            yield f'<path class="grid" d="M{right} {bottom}v4"/>'
            yield (f'<text class="tick middle" x="{right}" y="{bottom + 18}">{escape(text)}</text>')
        yield f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>'
        yield (
            f'<text class="name middle" x="{(LEFT + WIDTH - RIGHT) / 2}" '
            f'y="{self._height - 8}">{escape(self.x.name)}</text>'
        )


def ramp(share: float) -> str:
    """A colour for a share in [0, 1]: dark blue for little to yellow for much.

    Steps of Viridis (van der Walt and Smith, 2015, CC0), which colour-blind readers can order.
    """
    place = min(max(share, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    low = min(int(place), len(_VIRIDIS) - 2)
    mixed = (
        round(a + (place - low) * (b - a))
        for a, b in zip(_VIRIDIS[low], _VIRIDIS[low + 1], strict=True)
    )
    return "#{:02x}{:02x}{:02x}".format(*mixed)


_VIRIDIS = (
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141),
    (39, 173, 129), (92, 200, 99), (170, 220, 50), (253, 231, 37),
)  # fmt: skip


def _shared(box: Box, others: FloatArray) -> float:
    """The area that a box covers of all the others, shape ``(n, 4)``."""
    left, top, right, bottom = box
    width = np.minimum(right, others[:, 2]) - np.maximum(left, others[:, 0])
    height = np.minimum(bottom, others[:, 3]) - np.maximum(top, others[:, 1])
    return float(np.sum(np.maximum(width, 0.0) * np.maximum(height, 0.0)))


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def _round_step(width: float) -> float:
    """The least of 1, 2, 2.5, 5 times a power of ten that is not below ``width``."""
    if not width > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(width))
    return next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0) if m * power >= width * (1 - 1e-9))


def _decades(low: float, high: float) -> list[tuple[float, str]]:
    """Powers of ten, and where those are few, their 2 and 5 fold."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1.0,) if len(powers) > 4 else (1.0, 2.0, 5.0)
    values = [step * 10.0**power for power in powers for step in steps]
    return [(value, f"{value:g}") for value in values if low <= value <= high]
