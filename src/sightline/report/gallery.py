"""The gallery: cases with their pictures, the right answers and what each model said, worst first.

Cases beyond the first few stand in `template` elements: a browser neither lays them out nor decodes their pictures
until the script moves them into the page.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

from .card import Card, kind_of, states
from .charts import key
from .glossary import kind
from .markup import Html, count, digits, el, number, words
from .mistakes import KINDS
from .page import Page

OPEN = 12
"""Cases that are in the page from the start, and that one more press shows."""
LONGEST = 4000
"""Characters of an answer that are shown."""
SCROLLS, LINES = 60, 5
"""Characters and line breaks from which on a text may be higher than its box, of 7 lines and perhaps narrow."""
STATES = ("errors", "fixed", "broken")
DIGITS = "0123456789"


def gallery(page: Page) -> Html:
    """Filters and cards. The filters stay hidden until the script has come alive."""
    if not page.gallery:
        return Html("")
    models, cards = page.answering, page.ordered
    made = [_card(card, place, models, page.models) for place, card in enumerate(cards)]
    spare = [el("template", card, class_="spare") for card in made[OPEN:]]
    more = el("button", "Show more", type="button", id="more", hidden=True)
    return Html(
        _left_out(page) + _filters(page, cards, models)
        + el("div", made[:OPEN], class_="cards", data_step=OPEN) + "".join(spare)
        + el("p", more, class_="more")
    )  # fmt: skip


def picture(card: Card, image: str, data: bytes) -> Html:
    """A picture as a button that enlarges it."""
    source = f"data:image/{kind_of(data)};base64,{base64.b64encode(data).decode('ascii')}"
    what = f"case {card.sample}, {kind(image)}"
    shown = el("img", src=source, alt=what, loading="lazy", decoding="async")
    caption = None if image == "clean" else el("span", words(image), class_="caption")
    return el("button", shown, caption, type="button", class_="zoom", aria_label=f"Enlarge: {what}")


def said(text: object) -> Html:
    """What somebody said, isolated from the text around it, and cut where it is endless.

    What may be long enough to scroll takes the focus, so that it can be scrolled by keyboard.
    """
    whole = str(text)
    scrolls = 0 if len(whole) > SCROLLS or whole.count("\n") > LINES else None
    shown = whole if len(whole) <= LONGEST else f"{whole[:LONGEST]} …"
    return el("bdi", shown, class_="said", tabindex=scrolls)


def mark(right: bool | None) -> Html | None:
    """A sign for right and one for wrong, which differ in shape as well as in colour."""
    if right is None:
        return None
    shape = "right" if right else "wrong"
    use = el("use", href=f"#{shape}")
    return el("svg", use, class_=f"icon {shape}", role="img", aria_label=shape, width=18, height=18)


def _left_out(page: Page) -> str:
    """A sentence on cases that are not in this file."""
    if page.cases <= len(page.gallery):
        return ""
    return el(
        "p",
        f"{count(len(page.gallery))} of {count(page.cases)} cases are in this file: those that the last step "
        "broke, then those with most errors. Counts in the tables are of all cases.",
        class_="lead",
    )


def _filters(page: Page, cards: Sequence[Card], models: Sequence[str]) -> Html:
    counts = {
        name: sum(any(name in states(t, models) for t in c.turns) for c in cards) for name in STATES
    }  # fmt: skip
    last = models[-1] if models else ""
    choices = [("all", "All", len(cards)), ("errors", "Errors", counts["errors"])]
    if len(models) > 1:
        choices += [
            ("broken", f"Broken by {last}", counts["broken"]),
            ("fixed", f"Fixed by {last}", counts["fixed"]),
        ]
    buttons = [
        el(
            "button",
            text,
            el("span", size, class_="badge"),
            type="button",
            data_filter=name,
            aria_pressed="true" if name == "all" else "false",
        )
        for name, text, size in choices
    ]
    topics = sorted(
        {topic for c in cards for t in c.turns for _, topic in _marks(t, models, page.models)} - {""}
    )
    options = [el("option", "every finding", value=""), [el("option", words(t), value=t) for t in topics]]
    picker = el("label", "Finding ", el("select", options, id="finding")) if len(topics) > 1 else None
    state = el("output", f"{len(cards)} of {len(cards)} cases", id="count", aria_live="polite")
    return el(
        "div",
        el("div", buttons, class_="buttons", role="group", aria_label="Show cases"),
        picker,
        el("label", el("input", type="checkbox", id="whole"), " whole cases"),
        el("button", type="button", id="drill", hidden=True, class_="pill", title="Show all cases"),
        state,
        class_="filters",
        hidden=True,
        data_models=json.dumps(page.models),
        data_kinds=json.dumps(KINDS),
    )


def _card(card: Card, place: int, models: Sequence[str], series: Sequence[str]) -> Html:
    wrong = sum("errors" in states(t, models) for t in card.turns)
    verdict = (
        f"{wrong} of {len(card.turns)} wrong ({models[-1]})"
        if models and wrong
        else "no errors"
        if models
        else ""
    )
    head = el(
        "header",
        el("h3", el("bdi", card.sample)),
        el("span", "patient ", el("bdi", card.patient), class_="patient"),
        el("span", verdict, class_="tag bad" if wrong else "tag"),
    )
    others = [picture(card, name, data) for name, data in card.shown.items()]
    pictures = el(
        "div",
        picture(card, "clean", card.picture),
        el("div", others, class_="others") if others else None,
        class_="pictures",
    )
    heads = [el("th", key(m, series.index(m)), scope="col") for m in models]
    head_row = el("tr", el("th", "Question", scope="col"), el("th", "Right answer", scope="col"), heads)
    body = [_turn(turn, models, series) for turn in card.turns]
    table = el("table", el("thead", head_row), el("tbody", body), class_="answers") if body else None
    return el("article", head, pictures, table, class_="card", data_case=place)


def _marks(turn: Mapping[str, Any], models: Sequence[str], series: Sequence[str]) -> list[tuple[str, str]]:
    """What a turn is to the filters, as (kind, topic); the kind of one model begins with the model's place."""
    topic = str(turn.get("topic", ""))
    found = [("all", topic)] if topic else []
    found += [(state, topic) for state in states(turn, models)]
    for place, model in enumerate(series):
        found += [(f"{place}{name}", about) for name, about in turn.get("marks", {}).get(model, ())]
    return found


def _turn(turn: Mapping[str, Any], models: Sequence[str], series: Sequence[str]) -> Html:
    topic = str(turn.get("topic", ""))
    name = el("span", words(topic), class_="topic") if topic else None
    cells = [el("td", _answer(turn, model), data_label=model) for model in models]
    shown = [
        (k, t) for k, t in _marks(turn, models, series) if k in ("all", *STATES) or k.lstrip(DIGITS) in KINDS
    ]
    return el(
        "tr",
        el("th", name, said(turn.get("question", "")), scope="row"),
        el("td", said(turn.get("answer", "")), data_label="Right answer", class_="gold"),
        cells,
        data_marks="\n".join(f"{k}@{t}" for k, t in shown),
    )


def _answer(turn: Mapping[str, Any], model: str) -> Html:
    text = turn.get("answers", {}).get(model)
    if text is None:
        return Html("–")
    probability = number(turn.get("probability", {}).get(model))
    sure = (
        el("span", f"p(yes) {digits(probability)}", class_="probability") if probability is not None else None
    )
    return el("div", mark(turn.get("right", {}).get(model)), el("span", said(text), sure), class_="answer")


def dialog() -> Html:
    """Where a picture is enlarged."""
    close = el("button", "Close", type="button", id="close")
    return el(
        "dialog",
        el("img", alt="", id="large"),
        el("p", el("span", id="what"), close),
        id="viewer",
        aria_label="Enlarged image",
    )
