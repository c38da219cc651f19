"""What retrieved reports do: scores with and without them, and how far a model relies on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .charts import key
from .glossary import label
from .markup import Child, Html, bounds, count, digits, el, number, scroll
from .page import RELIANCE, Page

HEADLINES = ("accuracy", "exact_match", "balanced_accuracy", "finding_f1", "rouge_l", "bleu")
COUNTS = {
    "over_reliance": ("right_to_wrong", "wrong_aided", "errors"),
    "harm": ("right_to_wrong", "right_unaided", "right answers"),
    "help": ("wrong_to_right", "wrong_unaided", "wrong answers"),
}


def headline(page: Page) -> str | None:
    """The metric that is shown with and without reports: the first that some model has both ways."""
    return next(
        (
            metric
            for metric in HEADLINES
            if any(page.row(m, "clean", metric) and page.row(m, "unaided", metric) for m in page.models)
        ),
        None,
    )


def retrieval(page: Page) -> Html:
    """Rows by models: a score with and without reports, their paired difference, and the rates of reliance."""
    metric = headline(page)
    rates = [r for r in RELIANCE if any(page.row(m, "clean", r) for m in page.models)]
    if metric is None and not rates:
        return Html("")
    rows: list[tuple[str, list[Html]]] = []
    if metric is not None:
        for image, words in (("clean", "with reports"), ("unaided", "without")):
            cells = [_score(page.row(m, image, metric)) for m in page.models]
            rows.append((f"{label(metric)} {words}", cells))
        rows.append(("Difference", [_difference(page, m, metric) for m in page.models]))
    for rate in rates:
        notes = [_of(_counts(page, m), rate) for m in page.models]
        cells = [_score(page.row(m, "clean", rate), note) for m, note in zip(page.models, notes, strict=True)]
        rows.append((label(rate), cells))
    heads = [el("th", key(m, page.models.index(m)), scope="col") for m in page.models]
    head = el("tr", el("th", "Reports", scope="col"), heads)
    body = [el("tr", el("th", name, scope="row"), cells) for name, cells in rows]
    table = el("table", el("thead", head), el("tbody", body), class_="scores")
    return scroll(table, "With and without retrieved reports")


def _difference(page: Page, model: str, metric: str) -> Html:
    """The paired difference, with reports minus without."""
    pair = page.pair((model, "clean"), (model, "unaided"), metric)
    return _cell(digits(pair[0], signed=True), bounds(*pair[1:], signed=True)) if pair else el("td", "–")


def _counts(page: Page, model: str) -> dict[str, float]:
    """Turns by what reports did to them; empty where the model was not asked without reports."""
    raw = page.parts.get((model, "clean", "over_reliance"), {})
    counts = {k: v for k, x in raw.items() if (v := number(x)) is not None}
    row = page.row(model, "clean", "over_reliance")
    turns = number(row.get("n")) if row else None
    if turns is not None and "right_unaided" in counts:
        counts["wrong_unaided"] = turns - counts["right_unaided"]
    return counts


def _of(counts: Mapping[str, float], rate: str) -> str | None:
    """`12 of 80 errors`, where both numbers are known."""
    part, whole, name = COUNTS.get(rate, ("", "", ""))
    return f"{count(counts[part])} of {count(counts[whole])} {name}" if {part, whole} <= set(counts) else None


def _score(row: Mapping[str, Any] | None, note: str | None = None) -> Html:
    if row is None:
        return el("td", "–")
    return _cell(digits(row["value"]), bounds(row.get("low"), row.get("high")), note)


def _cell(value: str, interval: str, note: str | None = None) -> Html:
    parts: list[Child] = [el("span", value, class_="value"), el("span", interval, class_="ci")]
    return el("td", parts, el("div", note, class_="means") if note else None)
