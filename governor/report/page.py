"""The shell of every page: self-contained, without scripts, for screens of any width and theme."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark;
  --paper: #fff; --card: #f6f7f9; --ink: #1c1e21; --faint: #646a73; --rule: #dfe2e6;
  --kept: #0072b2; --missed: #c8500a; --chosen: #00875f; --base: #646a73; --warn: #fdf1e3;
  --r1: #0072b2; --r2: #c8500a; --r3: #00875f; --r4: #a3447f; --r5: #8a6d00; --r6: #3d8fbf }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14161a; --card: #1d2026; --ink: #e8eaed; --faint: #9aa1ab; --rule: #343941;
  --kept: #56b4e9; --missed: #f08c4a; --chosen: #35c997; --base: #a3aab4; --warn: #33271a;
  --r1: #56b4e9; --r2: #f08c4a; --r3: #35c997; --r4: #dd8fbd; --r5: #d9b93c; --r6: #9bd0ef } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 68rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 }
h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem }
h3 { font-size: 1rem; margin: 0 }
p, ul, ol { margin: .4rem 0 }
.faint, caption, figcaption { color: var(--faint) }
.badge { display: inline-block; border: 1px solid currentColor; border-radius: 1rem;
  padding: 0 .7rem; font-size: .8rem; font-weight: 600; letter-spacing: .04em; color: var(--missed);
  margin-bottom: .5rem }
.badge.real { color: var(--chosen) }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem;
  margin: 1.2rem 0 }
.tile { background: var(--card); border-radius: .6rem; padding: .7rem .9rem }
.tile b { display: block; font-size: 1.45rem; line-height: 1.3; font-weight: 650 }
.tile span { color: var(--faint); font-size: .85rem; display: block; line-height: 1.35 }
.good { color: var(--chosen) } .bad { color: var(--missed) }
.charts { display: grid; gap: .9rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 25rem), 1fr)) }
figure { margin: 0; background: var(--card); border-radius: .6rem; padding: .8rem .6rem .5rem;
  min-width: 0 }
figcaption { font-size: .85rem; line-height: 1.4; padding: 0 .3rem .2rem }
figcaption b { color: var(--ink); font-size: .95rem; display: block }
.key { display: inline-block; white-space: nowrap; margin-right: .8rem }
.key::before { content: ""; display: inline-block; width: .9rem; height: .25rem;
  margin-right: .3rem; vertical-align: middle; background: currentColor; border-radius: 1px }
figure > svg, body > svg { display: block; width: 100%; height: auto;
  font: 13px system-ui, sans-serif }
svg text { fill: var(--faint) }
svg .end { text-anchor: end } svg .middle { text-anchor: middle } svg .bold { font-weight: 600 }
svg .mark { paint-order: stroke; stroke: var(--card); stroke-width: 3px; stroke-linejoin: round }
.grid, .axis { stroke: var(--rule); fill: none } .axis { stroke: var(--faint) }
.line { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round }
.dashed { stroke-width: 1.3; stroke-dasharray: 5 4 }
.thin { stroke-width: 1; opacity: .55 } .error { color: var(--faint); stroke-width: 1 }
.dust { stroke: var(--faint); stroke-width: 3; stroke-linecap: round; opacity: .28; fill: none }
.area { fill: currentColor; opacity: .22 }
.front { color: var(--faint); stroke-width: 1.4 } .spot { fill: var(--faint) }
.kept { color: var(--kept) } .missed { color: var(--missed) } .chosen { color: var(--chosen) }
.base { color: var(--base) } .slo { color: var(--missed) }
g.kept circle, g.missed circle, g.base rect, g.chosen polygon { fill: currentColor;
  stroke: var(--card); stroke-width: 1.2 }
g.chosen polygon { stroke: #fff }
g.missed circle { fill: var(--card); stroke: currentColor; stroke-width: 2 }
svg g .mark, svg .mark.slo, svg .mark.base { fill: currentColor }
svg g.kept .mark, svg g.missed .mark { fill: var(--ink) }
.over { fill: var(--missed); opacity: .09 } .empty { fill: var(--rule); opacity: .35 }
.cell { shape-rendering: crispEdges } .cell.out { opacity: .3 }
.odd { fill: var(--faint); opacity: .09 } .even { fill: none }
.r1 { color: var(--r1) } .r2 { color: var(--r2) } .r3 { color: var(--r3) }
.r4 { color: var(--r4) } .r5 { color: var(--r5) } .r6 { color: var(--r6) }
.scroll { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal }
caption { text-align: left; padding: .4rem 0; font-size: .85rem }
th, td { padding: .28rem .9rem .28rem 0; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--rule) }
th:first-child, .text { text-align: left } td.text { white-space: normal; min-width: 14rem }
th { font-weight: 600 }
pre { background: var(--card); border-radius: .6rem; padding: .8rem 1rem; overflow-x: auto;
  font: 13px/1.5 ui-monospace, monospace; overflow-wrap: normal }
details { margin: .8rem 0 } summary { cursor: pointer; color: var(--faint) }
nav { margin: .5rem 0 2rem } nav a { margin-right: 1rem; display: inline-block }
a { color: var(--kept) }
section + section { margin-top: 3.5rem }
@media print { figure, .tile, pre { break-inside: avoid } }
"""


def page(title: str, body: str) -> str:
    """One self-contained HTML page; ``body`` is HTML, ``title`` plain text."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def figure(title: str, caption: str, svg: str, keys: Iterable[tuple[str, str]] = ()) -> str:
    """A chart with its words; ``keys``: style and name of what the colours stand for."""
    shown = "".join(f'<span class="key {style}">{escape(name)}</span>' for style, name in keys)
    return (
        f"<figure><figcaption><b>{escape(title)}</b>{escape(caption)}"
        f"{'<br>' if shown else ''}{shown}</figcaption>{svg}</figure>"
    )


def tile(value: str, words: str, style: str = "") -> str:
    """A figure that matters."""
    shown = f'<b class="{style}">{escape(value)}</b><span>{escape(words)}</span>'
    return f'<div class="tile">{shown}</div>'


def table(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], text: int = -1) -> str:
    """A table that scrolls by itself where it is too wide; column ``text`` holds sentences."""
    head = "".join(
        f"<th{' class=text' if n == text else ''}>{escape(name)}</th>"
        for n, name in enumerate(heads)
    )
    body = "".join(
        f"<tr><th>{escape(first)}</th>"
        + "".join(
            f'<td class="text">{escape(cell)}</td>' if n == text else f"<td>{escape(cell)}</td>"
            for n, cell in enumerate(cells, 1)
        )
        + "</tr>"
        for first, *cells in rows
    )
    return (
        f'<div class="scroll"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
