"""How sure models are: reliability diagrams, risk against coverage, and when a model should abstain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .charts import SERIES, key, marker
from .glossary import label
from .markup import Html, bounds, count, digits, el, number, scroll
from .page import Page

LEFT, WIDE, TOP, TALL = 15.0, 80.0, 8, 150
TICKS = (0.0, 0.5, 1.0)
SHOWN = ("ece", "brier", "aurc")
Range = tuple[float, float]


def confidence(page: Page) -> Html:
    """One reliability diagram a model, one chart of risk against coverage, and the thresholds."""
    known = {m: page.calibration[m] for m in page.models if m in page.calibration}
    if not known:
        return Html("")
    figures = [_reliability(m, found, page.models.index(m)) for m, found in known.items()]
    curves = {m: found["curve"] for m, found in known.items() if found.get("curve")}
    figures += [_risk(page, curves)] if curves else []
    return Html(el("div", figures, class_="curves") + _table(page, known) + _thresholds(page))


def _reliability(model: str, found: Mapping[str, Any], series: int) -> Html:
    """Accuracy by confidence, with intervals; dots on the diagonal are what confidence promises."""
    low = min([0.5, *(float(b["confidence"]) for b in found["bins"])])
    across: Range = (low, 1.0)
    shapes = [el("line", x1=f"{LEFT}%", x2=f"{LEFT + WIDE}%", y1=_y(low), y2=_y(1.0), class_="zero")]
    for each in found["bins"]:
        x = _x(float(each["confidence"]), across)
        ends = number(each.get("low")), number(each.get("high"))
        if ends[0] is not None and ends[1] is not None:
            reach = el("line", x1=x, x2=x, y1=_y(ends[0]), y2=_y(ends[1]), class_="interval")
            shapes.append(el("g", reach, class_=f"s{series % SERIES}"))
        shapes.append(marker(series, x=x, y=float(_y(float(each["accuracy"])))))
    told = ", ".join(f"{digits(b['accuracy'])} at {digits(b['confidence'])}" for b in found["bins"])
    chart = _plane(shapes, across, (0.0, 1.0), f"{model}, accuracy by confidence: {told}")
    caption = el("figcaption", key(model, series), " accuracy by confidence")
    return el("figure", caption, chart, class_="small")


def _risk(page: Page, curves: Mapping[str, Sequence[Sequence[float]]]) -> Html:
    """The error rate among the surest answers by how many are given, one line a model."""
    highest = max(y for points in curves.values() for _, y in points) or 1.0
    up: Range = (0.0, min(1.0, highest * 1.05))
    lines = []
    for model, points in curves.items():
        places = " ".join(f"{100 * x:.2f},{100 * (1 - y / up[1]):.2f}" for x, y in points)
        line = el("polyline", points=places, class_="line")
        lines.append(el("g", line, class_=f"s{page.models.index(model) % SERIES}"))
    plot = el(
        "svg", lines, x=f"{LEFT}%", y=TOP, width=f"{WIDE}%", height=TALL, viewBox="0 0 100 100",
        preserveAspectRatio="none", overflow="visible",
    )  # fmt: skip
    told = ", ".join(f"{m} {digits(points[-1][1])}" for m, points in curves.items())
    chart = _plane([plot], (0.0, 1.0), up, f"Error rate by share answered; if all are answered: {told}")
    caption = el("figcaption", "Error rate of the surest answers, by the share that is given")
    return el("figure", caption, chart, class_="small")


def _plane(shapes: Sequence[Html], across: Range, up: Range, name: str) -> Html:
    """Two axes with three ticks each, and what is drawn between them."""
    grid = []
    for tick in TICKS:
        x, y = up[0] + tick * (up[1] - up[0]), f"{TOP + (1 - tick) * TALL:.1f}"
        grid.append(el("line", x1=f"{LEFT}%", x2=f"{LEFT + WIDE}%", y1=y, y2=y, class_="gridline"))
        grid.append(el("text", digits(x), x=f"{LEFT - 2}%", y=y, dy="0.35em", class_="tick end"))
        beneath = across[0] + tick * (across[1] - across[0])
        grid.append(el("text", digits(beneath), x=_x(beneath, across), y=TOP + TALL + 17, class_="tick"))
    height = TOP + TALL + 22
    return el("svg", grid, shapes, class_="curve", width="100%", height=height, role="img", aria_label=name)


def _x(value: float, across: Range) -> str:
    return f"{LEFT + WIDE * (value - across[0]) / ((across[1] - across[0]) or 1.0):.2f}%"


def _y(share: float) -> str:
    return f"{TOP + (1 - share) * TALL:.1f}"


def _table(page: Page, known: Mapping[str, Mapping[str, Any]]) -> Html:
    """The numbers behind the charts, one column a model."""
    heads = [el("th", key(m, page.models.index(m)), scope="col") for m in known]
    body = []
    for name in SHOWN:
        cells = [_score(found["measures"].get(name)) for found in known.values()]
        body.append(el("tr", el("th", label(name), scope="row"), cells))
    sizes = [el("td", f"{count(f.get('n'))} of {count(f.get('patients'))} patients") for f in known.values()]
    body.append(el("tr", el("th", "Answers", scope="row"), sizes))
    head = el("tr", el("th", "Lower is better", scope="col"), heads)
    table = el("table", el("thead", head), el("tbody", body), class_="scores")
    return scroll(table, "Calibration")


def _score(found: Mapping[str, Any] | None) -> Html:
    if found is None:
        return el("td", "–")
    interval = el("span", bounds(found.get("low"), found.get("high")), class_="ci")
    return el("td", el("span", digits(found.get("value")), class_="value"), interval)


def _thresholds(page: Page) -> Html:
    """What each threshold promises, and what it did on the answers shown here."""
    if not page.abstain:
        return Html("")
    blocks = [el("h3", "When to abstain")]
    for model, found in page.abstain["models"].items():
        blocks.append(el("p", el("b", model), f": {found['promise']}."))
        test = found.get("test")
        if test:
            shares = {
                name: f"{digits(test[name]['value'])} {_ends(test[name])}" for name in ("answered", "wrong")
            }
            text = f"Here it gives {shares['answered']} of a patient's answers; {shares['wrong']} are given and wrong"
            rate = number(test["error"]["value"])
            text += (
                f"; of the given ones {digits(rate)} {_ends(test['error'])} are wrong."
                if rate is not None
                else "."
            )
            blocks.append(el("p", text))
    return Html("".join(blocks))


def _ends(found: Mapping[str, Any]) -> str:
    return bounds(found.get("low"), found.get("high"))
