"""Confusion matrices: which class was right, down, and which was named, across."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .markup import Html, count, el, scroll
from .page import Page


def confusion(page: Page) -> Html:
    """The tables behind the scores of classes on clean images; nothing where there are none."""
    blocks = []
    for side, tables in page.tables.items():
        model, _, image = side.rpartition(", ")
        if image == "clean":
            blocks += [_table(model, name.partition(":")[0], each) for name, each in tables.items()]
    return Html("".join(blocks))


def _table(model: str, metric: str, table: Mapping[str, Any]) -> Html:
    """One matrix, in which right answers are bold."""
    head = el(
        "tr", el("th", "right, down; named, across", scope="col"),
        [el("th", el("bdi", name), scope="col", class_="number") for name in table["columns"]],
    )  # fmt: skip
    body = [
        el(
            "tr", el("th", el("bdi", name), scope="row"),
            [
                el("td", el("b", count(value)) if i == j else count(value), class_="number")
                for j, value in enumerate(row)
            ],
        )
        for i, (name, row) in enumerate(zip(table["rows"], table["counts"], strict=True))
    ]  # fmt: skip
    caption = f"{metric.removesuffix('_accuracy').replace('_', ' ').capitalize()}: what {model} named"
    whole = el("table", el("caption", caption), el("thead", head), el("tbody", body))
    return scroll(whole, caption)
