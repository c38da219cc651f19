"""Scores by subgroup: every group with its interval, the worst one, and the gap between best and worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .charts import Dot, Scale, key, ruler, scale, track
from .glossary import CHANCE, inline, label
from .markup import Html, bounds, count, digits, el, number, p_is, words
from .page import LOWER_IS_BETTER, MOST_CHANCE, Page

OPEN = 2
"""Metrics of an attribute that stand open; the others are folded."""
Row = Mapping[str, Any]


def groups(page: Page) -> Html:
    """One figure for each attribute and metric, the main metrics first."""
    rows = page.groups.get("rows", ())
    blocks = []
    for attribute in dict.fromkeys(str(row["attribute"]) for row in rows):
        known = {str(row["metric"]) for row in rows if row["attribute"] == attribute}
        made = [_panel(page, attribute, metric) for metric in page.metrics if metric in known]
        blocks.append(el("div", made[:OPEN], class_="panels"))
        if made[OPEN:]:
            name = f"{len(made) - OPEN} more metrics by {words(attribute)}"
            blocks.append(el("details", el("summary", name), el("div", made[OPEN:], class_="panels")))
        blocks.append(_left_out(page, attribute))
    return Html("".join(blocks))


def worst_groups(page: Page) -> list[str]:
    """For each attribute a sentence on the last model's worst group by the first metric, and on the gap."""
    told = []
    for attribute in dict.fromkeys(str(each["attribute"]) for each in page.groups.get("gaps", ())):
        metric = next((m for m in page.metrics if _gap(page, attribute, m)), "")
        gap = _gap(page, attribute, metric)
        if gap is None or not gap["worst"]:
            continue
        values = {
            str(row["group"]): row["value"]
            for row in page.groups["rows"]
            if (row["attribute"], row["metric"], row["model"]) == (attribute, metric, gap["model"])
        }
        low, best = (digits(values[str(gap[k])]) for k in ("worst", "best"))
        told.append(
            f"By {words(attribute)}, {gap['model']} has its worst {inline(metric)} for {gap['worst']} ({low}) and its "
            f"best for {gap['best']} ({best}): {_size(gap)}."
        )
    return told


def _gap(page: Page, attribute: str, metric: str, model: str | None = None) -> Row | None:
    """The gap of one model, by default of the last."""
    wanted = (attribute, metric, model or (page.models[-1] if page.models else ""))
    found = (g for g in page.groups.get("gaps", ()) if (g["attribute"], g["metric"], g["model"]) == wanted)
    return next(found, None)


def _size(gap: Row) -> str:
    """A gap, and whether groups that do not differ would show one like it."""
    p = number(gap.get("p"))
    text = f"a gap of {digits(gap['gap'])} {bounds(gap.get('low'), gap.get('high'))}".rstrip()
    if p is None:
        return text
    expected = number(gap.get("chance"))
    equal = (
        f", where groups that do not differ show {digits(expected)} on average"
        if expected is not None
        else ""
    )
    shown = "" if p < MOST_CHANCE else "; no difference between the groups is shown"
    return f"{text} ({p_is(p)}{equal}){shown}"


def _panel(page: Page, attribute: str, metric: str) -> Html:
    """Groups of one attribute by one metric, the last model's worst group first."""
    rows = [r for r in page.groups["rows"] if (r["attribute"], r["metric"]) == (attribute, metric)]
    models = [m for m in page.models if any(r["model"] == m for r in rows)]
    values = {m: {str(r["group"]): r for r in rows if r["model"] == m} for m in models}
    names = list(dict.fromkeys(name for m in reversed(models) for name in values[m]))
    sign = -1 if metric in LOWER_IS_BETTER else 1
    last = values[models[-1]]
    names.sort(key=lambda name: sign * float(last[name]["value"]) if name in last else float("inf"))
    line = CHANCE.get(metric)
    axis = scale([r.get(k) for r in rows for k in ("value", "low", "high")] + [line])
    worst = (_gap(page, attribute, metric, models[-1]) or {}).get("worst")
    bodies = []
    for name in names:
        size = next(values[m][name] for m in reversed(models) if name in values[m])
        told = f"{count(size.get('patients'))} patients, {count(size.get('n'))} answers"
        tag = el("span", "worst", class_="tag bad") if name == worst else None
        title = el(
            "th",
            el("bdi", words(name)),
            " ",
            el("span", told, class_="means"),
            " ",
            tag,
            colspan=3,
            scope="rowgroup",
        )
        lines = [_row(page, m, values[m][name], axis, line) for m in models if name in values[m]]
        bodies.append(el("tbody", el("tr", title, class_="group"), lines))
    foot = el(
        "tr", el("td"), el("td", ruler(axis, note=None if line is None else (line, "chance"))), el("td")
    )
    columns = el("colgroup", el("col", class_="name"), el("col"), el("col", class_="figure"))
    table = el(
        "table", columns, bodies, el("tfoot", foot, aria_hidden="true"), class_="dots",
        aria_label=f"{label(metric)} by {words(attribute)}",
    )  # fmt: skip
    caption = el("figcaption", el("b", label(metric)), f" by {words(attribute)}")
    return el("figure", caption, table, _below(page, attribute, metric, models))


def _row(page: Page, model: str, row: Row, axis: Scale, line: float | None) -> Html:
    """One model's score in one group."""
    series = page.models.index(model)
    dot = Dot(
        value=float(row["value"]), low=number(row.get("low")), high=number(row.get("high")), series=series
    )
    value = [
        el("span", digits(row["value"]), class_="value"),
        el("span", bounds(row.get("low"), row.get("high")), class_="ci"),
    ]
    return el(
        "tr", el("th", key(model, series), scope="row"), el("td", track(axis, [dot], line=line)),
        el("td", value, class_="number"),
    )  # fmt: skip


def _below(page: Page, attribute: str, metric: str, models: Sequence[str]) -> Html:
    """Gap and equity-scaled score of every model, and how the gap changed."""
    lines = []
    for model in models:
        gap = _gap(page, attribute, metric, model)
        if gap is not None:
            equity = bounds(gap.get("equity_low"), gap.get("equity_high"))
            scaled = (
                f"; equity-scaled score {digits(gap['equity'])} {equity}".rstrip()
                if gap.get("equity") is not None
                else ""
            )
            lines.append(el("p", key(model, page.models.index(model)), f" {_size(gap)}{scaled}."))
    for each in page.groups.get("changes", ()):
        if (each["attribute"], each["metric"]) == (attribute, metric):
            ends = bounds(each.get("low"), each.get("high"), signed=True)
            p = "" if number(each.get("p")) is None else f", {p_is(each['p'])}"
            text = f"{each['question']}: {digits(each['difference'], signed=True)} {ends}".rstrip()
            lines.append(el("p", el("bdi", f"{text}{p}."), class_="means"))
    return Html("".join(lines))


def _left_out(page: Page, attribute: str) -> Html:
    """The groups that took no part, with the reason."""
    lines = []
    for each in page.groups.get("left_out", ()):
        if each["attribute"] == attribute:
            size = f"({count(each.get('patients'))} patients, {count(each.get('n'))} answers)."
            text = ("Left out: ", el("bdi", words(each["group"])), f" {each.get('why', '')} {size}")
            lines.append(el("p", *text, class_="means"))
    return Html("".join(lines))
