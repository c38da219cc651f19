"""What the last step broke: answers that were right before and are wrong after, the worst first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .card import Card, rank, states
from .charts import key
from .gallery import mark, picture, said
from .markup import Html, count, digits, el, number, words
from .page import Page

SHOWN = 8


def regressions(page: Page) -> Html:
    """The worst broken answers with picture, question, right answer and both answers."""
    models = page.answering
    if len(models) < 2:
        return Html("")
    before, after = models[-2:]
    found = [
        (card, place, turn)
        for place, card in enumerate(page.ordered)
        for turn in card.turns
        if "broken" in states(turn, models)
    ]
    found.sort(key=lambda each: rank(each[2], after))
    items = [_item(page, *each, before, after) for each in found[:SHOWN]]
    if not items:
        return (
            el("p", f"No answer that was right with {before} is wrong with {after}.")
            if page.gallery
            else Html("")
        )
    total = max(page.changes.get("broke", 0), len(found))
    more = el("a", f"All {count(total)} broken answers, case by case", href="#cases=broken")
    return Html(el("ol", items, class_="regressions") + el("p", more))


def balance(page: Page) -> str:
    """How many answers the last step mended and how many it broke, in one sentence; empty for one model."""
    turns, fixed, broke = (page.changes.get(k, 0) for k in ("turns", "fixed", "broke"))
    if len(page.models) < 2 or not turns:
        return ""
    before, after = page.models[-2:]
    return (
        f"Of {count(turns)} answers, {after} mends {count(fixed)} that {before} had wrong and breaks {count(broke)} "
        "that it had right."
    )


def _item(page: Page, card: Card, place: int, turn: Mapping[str, Any], before: str, after: str) -> Html:
    """One broken answer."""
    topic = str(turn.get("topic", ""))
    sides = [
        el("div", el("dt", key(m, page.models.index(m))), el("dd", _said(turn, m), class_="answer"))
        for m in (before, after)
    ]
    truth = el("div", el("dt", "Right answer"), el("dd", said(turn.get("answer", "")), class_="gold"))
    text = el(
        "div",
        el("p", el("span", words(topic), class_="topic") if topic else None, said(turn.get("question", ""))),
        el("dl", truth, sides),
        el("p", _fall(turn), " ", el("a", "The whole case", href=f"#case={place}"), class_="means"),
    )
    return el("li", picture(card, "clean", card.picture), text)


def _said(turn: Mapping[str, Any], model: str) -> list[Html | None]:
    """What a model said, with its sign and how sure it was."""
    sure = number(turn.get("confidence", {}).get(model))
    shown = el("span", f"confidence {digits(sure)}", class_="probability") if sure is not None else None
    return [
        mark(turn.get("right", {}).get(model)),
        el("span", said(turn.get("answers", {}).get(model, "")), shown),
    ]


def _fall(turn: Mapping[str, Any]) -> str:
    """How far the right answer fell, where that is known."""
    drop = number(turn.get("drop"))
    return "" if drop is None else f"The right answer lost {digits(drop)} nats of log-probability."
