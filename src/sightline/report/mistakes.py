"""Errors by finding: how many of each kind every model makes, each count a door to its cases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import quote

from .charts import key
from .markup import Html, count, el, scroll, words
from .page import Page

KINDS = {"fp": "False positives", "fn": "Missed", "un": "Neither yes nor no", "no": "Wrong"}
SHUT, OPEN = ("tp", "fp", "tn", "fn", "un"), ("ok", "no")
REPORTED = "report:"
"""A topic with this before it: a finding that was, or was not, named in a report."""

Counts = Mapping[str, Mapping[str, Mapping[str, int]]]


def mistakes(page: Page) -> Html:
    """Findings by models and kinds of error; counts lead to the cases behind them."""
    models = [m for m in page.models if m in page.counts]
    topics = list(dict.fromkeys(topic for m in reversed(models) for topic in page.counts[m]))
    kinds = [k for k in KINDS if any(c.get(k) for m in models for c in page.counts[m].values())]
    if not topics or not kinds:
        return Html("")
    asked = sorted((t for t in topics if not t.startswith(REPORTED)), key=_by_errors(page.counts, models[-1]))
    named = sorted((t for t in topics if t.startswith(REPORTED)), key=_by_errors(page.counts, models[-1]))
    groups = [
        el("colgroup", el("col"), el("col")),
        [el("colgroup", [el("col") for _ in kinds]) for _ in models],
    ]
    above = el(
        "tr",
        el("th", "Finding", scope="col", rowspan=2),
        el("th", "Asked", scope="col", rowspan=2, class_="number"),
        [
            el("th", key(m, page.models.index(m)), scope="colgroup", colspan=len(kinds), class_="side")
            for m in models
        ],
    )
    below = el(
        "tr",
        [
            el("th", KINDS[k], scope="col", class_="number side" if k == kinds[0] else "number")
            for _ in models
            for k in kinds
        ],
    )
    wide = 2 + len(models) * len(kinds)
    blocks = [el("tbody", [_row(page, t, models, kinds) for t in asked])] if asked else []
    if named:
        title = el("tr", el("th", "Named in reports", colspan=wide, scope="rowgroup"), class_="group")
        blocks.append(el("tbody", title, [_row(page, t, models, kinds) for t in named]))
    table = el("table", groups, el("thead", above, below), blocks, class_="mistakes")
    return scroll(table, "Errors by finding")


def address(page: Page, model: str, kind: str, topic: str) -> str:
    """The fragment that opens the gallery on one kind of error of one model."""
    return f"#cases={page.models.index(model)}{kind},{quote(topic, safe='', errors='replace')}"


def _by_errors(counts: Counts, model: str) -> Callable[[str], tuple[int, str]]:
    """Topics with most errors of a model first."""

    def order(topic: str) -> tuple[int, str]:
        found = counts[model].get(topic, {})
        return -sum(found.get(k, 0) for k in KINDS), topic

    return order


def _row(page: Page, topic: str, models: Sequence[str], kinds: Sequence[str]) -> Html:
    some = next(page.counts[m][topic] for m in reversed(models) if topic in page.counts[m])
    name = words(topic.removeprefix(REPORTED))
    there = some.get("tp", 0) + some.get("fn", 0)
    shut = there + some.get("fp", 0) + some.get("tn", 0) > 0 and not some.get("un")
    present = el("span", f" {count(there)} present", class_="means") if shut else None
    asked = el("td", count(sum(some.get(k, 0) for k in SHUT + OPEN)), present, class_="number")
    cells = [_cell(page, topic, m, k, k == kinds[0]) for m in models for k in kinds]
    return el("tr", el("th", el("bdi", name), scope="row"), asked, cells)


def _cell(page: Page, topic: str, model: str, kind: str, first: bool) -> Html:
    known = page.counts[model].get(topic, {})
    found = known.get(kind, 0)
    shape = "number side" if first else "number"
    if not any(known.get(k) for k in (OPEN if kind in OPEN else SHUT)):
        return el("td", "–", class_=f"{shape} none")  # no question of this kind
    if not found:
        return el("td", "0", class_=f"{shape} none")
    said = f"{found} {KINDS[kind].lower()}, {model}, {words(topic)}: show the cases"
    return el(
        "td", el("a", count(found), href=address(page, model, kind, topic), aria_label=said), class_=shape
    )
