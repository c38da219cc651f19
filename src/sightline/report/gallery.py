"""The gallery: cases with their pictures, the right answers and what each model said, errors first."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from .charts import key
from .glossary import kind
from .markup import Html, digits, el, number, words
from .page import Card, Page


def gallery(page: Page) -> Html:
    """Filters and cards. The filters stay hidden until the script has come alive."""
    if not page.gallery:
        return Html("")
    models = [m for m in page.models if any(m in t.get("answers", {}) for c in page.gallery for t in c.turns)]
    cards = sorted(page.gallery, key=lambda card: -card.errors)
    shown = [_card(card, models, page.models) for card in cards]
    return Html(_filters(cards, models) + el("div", shown, class_="cards") + _dialog())


def states(turn: Mapping[str, Any], models: Sequence[str]) -> list[str]:
    """What the filters need to know of a turn: wrong at the end, fixed or broken by the last step."""
    right = turn.get("right", {})
    last = right.get(models[-1]) if models else None
    before = right.get(models[-2]) if len(models) > 1 else None
    found = ["errors"] if last is False else []
    if last is True and before is False:
        found.append("fixed")
    if last is False and before is True:
        found.append("broken")
    return found


def _filters(cards: Sequence[Card], models: Sequence[str]) -> Html:
    counts = {
        name: sum(any(name in states(t, models) for t in c.turns) for c in cards)
        for name in ("errors", "fixed", "broken")
    }
    last = models[-1] if models else ""
    choices = [("all", "All", len(cards)), ("errors", "Errors", counts["errors"])]
    if len(models) > 1:
        choices += [
            ("fixed", f"Fixed by {last}", counts["fixed"]),
            ("broken", f"Broken by {last}", counts["broken"]),
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
    topics = sorted({str(t.get("topic", "")) for c in cards for t in c.turns} - {""})
    options = [el("option", "every finding", value=""), [el("option", words(t), value=t) for t in topics]]
    picker = el("label", "Finding ", el("select", options, id="finding")) if len(topics) > 1 else None
    state = el("output", f"{len(cards)} of {len(cards)} cases", id="count", aria_live="polite")
    return el(
        "div",
        el("div", buttons, class_="buttons", role="group", aria_label="Show cases"),
        picker,
        state,
        class_="filters",
        hidden=True,
    )


def _card(card: Card, models: Sequence[str], series: Sequence[str]) -> Html:
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
    others = [_picture(card, name, data) for name, data in card.shown.items()]
    pictures = el(
        "div",
        _picture(card, "clean", card.image_png),
        el("div", others, class_="others") if others else None,
        class_="pictures",
    )
    heads = [el("th", key(m, series.index(m)), scope="col") for m in models]
    head_row = el("tr", el("th", "Question", scope="col"), el("th", "Right answer", scope="col"), heads)
    body = [_turn(turn, models) for turn in card.turns]
    table = el("table", el("thead", head_row), el("tbody", body), class_="answers") if body else None
    return el("article", head, pictures, table, class_="card")


def _picture(card: Card, image: str, data: bytes) -> Html:
    source = f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"
    what = f"case {card.sample}, {kind(image)}"
    picture = el("img", src=source, alt=what, loading="lazy", decoding="async")
    caption = None if image == "clean" else el("span", words(image), class_="caption")
    return el("button", picture, caption, type="button", class_="zoom", aria_label=f"Enlarge: {what}")


def _turn(turn: Mapping[str, Any], models: Sequence[str]) -> Html:
    topic = str(turn.get("topic", ""))
    name = el("span", words(topic), class_="topic") if topic else None
    cells = [el("td", _answer(turn, model), data_label=model) for model in models]
    return el(
        "tr",
        el("th", name, el("bdi", str(turn.get("question", "")), class_="said"), scope="row"),
        el(
            "td",
            el("bdi", str(turn.get("answer", "")), class_="said"),
            data_label="Right answer",
            class_="gold",
        ),
        cells,
        data_topic=topic,
        data_state=" ".join(states(turn, models)) or None,
    )


def _answer(turn: Mapping[str, Any], model: str) -> Html:
    text = turn.get("answers", {}).get(model)
    if text is None:
        return Html("–")
    right = turn.get("right", {}).get(model)
    probability = number(turn.get("probability", {}).get(model))
    sure = (
        el("span", f"p(yes) {digits(probability)}", class_="probability") if probability is not None else None
    )
    return el("div", _mark(right), el("span", el("bdi", str(text), class_="said"), sure), class_="answer")


def _mark(right: bool | None) -> Html | None:
    if right is None:
        return None
    shape = "right" if right else "wrong"
    return el(
        "svg",
        el("use", href=f"#{shape}"),
        class_=f"icon {shape}",
        role="img",
        aria_label=shape,
        width=18,
        height=18,
    )


def _dialog() -> Html:
    close = el("button", "Close", type="button", id="close")
    return el(
        "dialog",
        el("img", alt="", id="large"),
        el("p", el("span", id="what"), close),
        id="viewer",
        aria_label="Enlarged image",
    )
