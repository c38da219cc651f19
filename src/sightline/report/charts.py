"""Charts as inline SVG that needs no script and no namespace address.

Positions along the axis are percentages and text is never scaled, so that one chart is as sharp and as
legible on a phone as on a desktop. A model keeps one colour (after Okabe and Ito's colour-blind-safe palette,
as CSS classes `s0` to `s5`) and one marker shape throughout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .markup import Html, el, number

SERIES = 6
SHAPES = (
    "M0,-4.6A4.6,4.6 0 1 1 0,4.6A4.6,4.6 0 1 1 0,-4.6Z",
    "M-4.1,-4.1H4.1V4.1H-4.1Z",
    "M0,-5.7L5.7,0L0,5.7L-5.7,0Z",
    "M0,-5.2L5,3.8H-5Z",
    "M0,5.2L5,-3.8H-5Z",
    "M-5,-1.7H-1.7V-5H1.7V-1.7H5V1.7H1.7V5H-1.7V1.7H-5Z",
)
SMOOTH_FROM = 40
"""Curves with at least this many points also get a running mean."""


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear axis: its ends, in the metric's unit, and its ticks, a round step apart."""

    low: float
    high: float
    ticks: tuple[float, ...]
    step: float

    def at(self, value: float) -> float:
        """Position of a value as a share of the axis, 0 to 1, clipped."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    def percent(self, value: float) -> str:
        """Position of a value as an SVG percentage."""
        return f"{100 * self.at(value):.2f}%"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dot:
    """One estimate: its value and interval, its series (colour and shape) and its height in pixels."""

    value: float
    low: float | None = None
    high: float | None = None
    series: int = 0
    hollow: bool = False
    y: float = 14.0


def scale(values: Iterable[float | None], *, count: int = 4, pad: float = 0.06) -> Scale:
    """An axis with round ticks that holds all values.

    Args:
        values: what must fit; None and non-finite entries are ignored.
        count: about how many intervals between ticks.
        pad: empty share of the axis at each end, so that no marker is cut.
    """
    finite = [v for v in map(number, values) if v is not None] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    if high - low < 1e-12 * max(1.0, abs(high)):
        reach = abs(high) * 0.1 or 1.0
        low, high = low - reach, high + reach
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.8)
    margin = pad * (high - low)
    low, high = low - margin, high + margin
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return Scale(low, high, tuple(round(i * step, 12) for i in range(first, last + 1)), step)


def marker(series: int, *, hollow: bool = False, x: str | None = None, y: float = 0.0) -> Html:
    """A series' shape; hollow where it stands for something weaker (no image, interval over zero)."""
    path = el("path", d=SHAPES[series % SERIES], class_="mark hollow" if hollow else "mark")
    inner = el("svg", path, x=x or "0", y=f"{y:g}", overflow="visible", width="1", height="1")
    return el("g", inner, class_=f"s{series % SERIES}")


def key(name: str, series: int) -> Html:
    """A model's name beside its marker, as legends and table heads show it."""
    sign = el(
        "svg",
        el("g", marker(series), transform="translate(7 7)"),
        class_="key",
        width=14,
        height=14,
        aria_hidden="true",
    )
    return el("span", sign, el("bdi", name), class_="model")


def track(axis: Scale, dots: Sequence[Dot], *, line: float | None = None) -> Html:
    """One row of a dot-and-interval chart, as wide as its cell. Numbers stand beside it as text."""
    shapes = [
        el("line", x1=axis.percent(t), x2=axis.percent(t), y1=0, y2="100%", class_="gridline")
        for t in axis.ticks
    ]
    return _plot(shapes, axis, dots, line, 28)


def bar(axis: Scale, dot: Dot, *, line: float | None = None) -> Html:
    """A small dot-and-interval chart under a number: the axis is a rule, and ticks would only distract."""
    rule = el("line", x1="0", x2="100%", y1=dot.y, y2=dot.y, class_="gridline")
    return _plot([rule], axis, [dot], line, round(2 * dot.y))


def _plot(shapes: list[Html], axis: Scale, dots: Sequence[Dot], line: float | None, height: int) -> Html:
    if line is not None:
        shapes.append(
            el("line", x1=axis.percent(line), x2=axis.percent(line), y1=0, y2="100%", class_="zero")
        )
    for dot in dots:
        y = f"{dot.y:g}"
        if dot.low is not None and dot.high is not None:
            reach = el(
                "line", x1=axis.percent(dot.low), x2=axis.percent(dot.high), y1=y, y2=y, class_="interval"
            )
            shapes.append(el("g", reach, class_=f"s{dot.series % SERIES}"))
        shapes.append(marker(dot.series, hollow=dot.hollow, x=axis.percent(dot.value), y=dot.y))
    return el("svg", shapes, class_="track", width="100%", height=height, aria_hidden="true")


def ruler(axis: Scale, *, note: tuple[float, str] | None = None, signed: bool = False) -> Html:
    """Tick labels under (or over) the rows of a chart, with one named place, e.g. chance."""
    texts = [
        el("text", _tick(t, axis.step, signed), x=axis.percent(t), y=12, class_="tick") for t in axis.ticks
    ]
    if note is not None:
        # A name in the middle of a tick near the edge would be cut off.
        place = "tick named start" if axis.at(note[0]) < 0.15 else "tick named"
        texts.append(el("text", note[1], x=axis.percent(note[0]), y=27, class_=place))
    return el("svg", texts, class_="ruler", width="100%", height=32 if note else 16, aria_hidden="true")


def curve(points: Sequence[tuple[float, float]], *, name: str, series: int = 1, smooth: bool = True) -> Html:
    """A line chart with axes: steps across, the value upwards; a running mean over long noisy curves.

    Args:
        points: (step, value), finite, in order of step.
        name: what is plotted; becomes the chart's accessible name together with first and last value.
        series: colour.
        smooth: whether a running mean may be drawn; not for what has no noise, such as the learning rate.
    """
    height = 150
    steps, values = [p[0] for p in points], [p[1] for p in points]
    across, up = scale(steps, count=3, pad=0.0), scale(values, count=3, pad=0.06)
    left, wide, tall = 15.0, 82.0, height - 26
    shapes = []
    for tick in up.ticks:
        y = f"{6 + (1 - up.at(tick)) * tall:.1f}"
        shapes.append(el("line", x1=f"{left}%", x2=f"{left + wide}%", y1=y, y2=y, class_="gridline"))
        shapes.append(el("text", _short(tick), x=f"{left - 2}%", y=y, dy="0.35em", class_="tick end"))
    for tick in across.ticks:
        x = f"{left + wide * across.at(tick):.2f}%"
        shapes.append(el("text", _short(tick), x=x, y=height - 3, class_="tick"))
    thick = _smooth(points) if smooth and len(points) >= SMOOTH_FROM else points
    lines = [_line(points, across, up, "line thin")] if thick is not points else []
    lines.append(_line(thick, across, up, "line"))
    plot = el(
        "svg",
        lines,
        x=f"{left}%",
        y=6,
        width=f"{wide}%",
        height=tall,
        viewBox="0 0 100 100",
        preserveAspectRatio="none",
        overflow="visible",
    )
    last = thick[-1]
    dot = el(
        "circle",
        cx=f"{left + wide * across.at(last[0]):.2f}%",
        cy=f"{6 + (1 - up.at(last[1])) * tall:.1f}",
        r=3.2,
        class_="end-dot",
    )
    ends = [f"{_short(value)} at step {_short(step)}" for step, value in (points[0], points[-1])]
    return el(
        "svg",
        shapes,
        el("g", plot, dot, class_=f"s{series % SERIES}"),
        class_="curve",
        width="100%",
        height=height,
        role="img",
        aria_label=f"{name}: from {ends[0]} to {ends[1]}",
    )


def points_of(records: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    """The finite (step, value) pairs of one logged quantity, in order of step."""
    found = [(number(r.get("step")), number(r.get(name))) for r in records]
    return sorted((s, v) for s, v in found if s is not None and v is not None)


def _tick(value: float, step: float, signed: bool) -> str:
    """A tick label with as many decimals as the step between ticks needs."""
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    text = f"{value:+.{places}f}" if signed and value else f"{value:.{places}f}"
    return text.replace("-", "−")


def _line(points: Sequence[tuple[float, float]], across: Scale, up: Scale, kind: str) -> Html:
    coordinates = " ".join(f"{100 * across.at(s):.2f},{100 * (1 - up.at(v)):.2f}" for s, v in points)
    return el("polyline", points=coordinates, class_=kind)


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Centred running mean over a tenth of the curve, narrower at its ends so that it does not lag."""
    reach, found = max(1, len(points) // 20), []
    for i, (step, _) in enumerate(points):
        side = min(reach, i, len(points) - 1 - i)
        window = [v for _, v in points[i - side : i + side + 1]]
        found.append((step, sum(window) / len(window)))
    return found


def _short(value: float) -> str:
    """A tick in at most six characters: learning rates as `5e-4`, steps without decimals."""
    if value == 0:
        return "0"
    if abs(value) < 0.01 or abs(value) >= 1e5:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")
