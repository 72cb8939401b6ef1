"""Lines over minutes as an SVG picture, one panel below the other. In: points. Out: text. It knows nothing of what they
mean."""

from __future__ import annotations

import math
from typing import NamedTuple
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _LEFT, _TOP = 760, 250, 70, 40  # of one panel, and where its axes meet
_RIGHT, _BOTTOM = 130, 40
_COLOURS = ("#1971c2", "#868e96", "#d9480f", "#2f9e44")
_FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"


class Curve(NamedTuple):
    """What one was measured: (minute, middle, worst). The middle is drawn strong, the worst thin."""

    name: str
    points: list[tuple[float, float, float]]


class Panel(NamedTuple):
    """Lines that share their axes. The upright one counts in powers of ten."""

    title: str
    lines: list[Curve]


def draw(*panels: Panel) -> str:
    """The picture. A panel without any point is left out."""
    kept = [panel for panel in panels if any(line.points for line in panel.lines)]
    height = max(1, len(kept)) * _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" font-family="{_FONT}" font-size="12">',
        f"<title>{escape('; '.join(panel.title for panel in kept))}</title>",
        f'<rect width="{_WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    for place, panel in enumerate(kept):
        parts += _panel(panel, place * _HEIGHT)
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, above: int) -> list[str]:
    """One panel; `above`: the height of those above it."""
    points = [point for line in panel.lines for point in line.points]
    last = max(minute for minute, _, _ in points)
    low = math.floor(math.log10(min(middle for _, middle, _ in points)))
    high = max(low + 1, math.ceil(math.log10(max(worst for _, _, worst in points))))
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def at(minute: float, value: float) -> str:
        up = (math.log10(value) - low) / (high - low)
        return f"{_LEFT + wide * minute / last:.1f},{above + _TOP + tall * (1 - up):.1f}"

    parts = [f'<text x="{_LEFT}" y="{above + 24}" font-weight="600" fill="#212529">{escape(panel.title)}</text>']
    for power in range(low, high + 1):
        start, y = at(0, 10.0**power).split(",")
        parts.append(f'<path d="M{start} {y}h{wide}" stroke="#dee2e6"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y}" dy="4" text-anchor="end" fill="#495057">{10.0**power:g}</text>')
    for quarter in range(5):
        minute = last * quarter / 4
        x, y = at(minute, 10.0**low).split(",")
        word = f"{minute:.0f} min" if quarter else "0"
        parts.append(f'<text x="{x}" y="{y}" dy="20" text-anchor="middle" fill="#495057">{word}</text>')
    for place, (line, colour) in enumerate(zip(panel.lines, _COLOURS, strict=False)):
        if not line.points:
            continue
        for value, width in ((1, 2.2), (2, 0.7)):
            path = "L".join(at(point[0], point[value]) for point in line.points)
            parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        x, y = _WIDTH - _RIGHT + 12, above + _TOP + 20 * place
        parts.append(f'<path d="M{x} {y}h20" stroke="{colour}" stroke-width="2.2"/>')
        parts.append(f'<text x="{x + 26}" y="{y}" dy="4" fill="#212529">{escape(line.name)}</text>')
    return parts
