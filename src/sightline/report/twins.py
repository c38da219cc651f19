"""Images that are nearly the same in two splits or under two patients, side by side."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from .card import kind_of
from .markup import Html, digits, el
from .page import Page


def twins(page: Page) -> Html:
    """A folded block with a figure for each pair; nothing where there are none."""
    if not page.near:
        return Html("")
    figures = [_pair(each) for each in page.near]
    return el(
        "details",
        el("summary", "Near duplicates"),
        el("p", "Images whose files differ and whose details agree: resized, re-saved or cropped copies."),
        el("div", figures, class_="twins"),
    )


def _pair(each: Mapping[str, Any]) -> Html:
    """Two pictures with the records that show them."""
    sides = zip(each["pictures"], each["records"], each["splits"], strict=True)
    shown = [_side(data, record, split) for data, record, split in sides]
    whose = "one patient" if each["one_patient"] else "two patients"
    return el(
        "figure",
        el("div", shown, class_="pair"),
        el("figcaption", f"alike {digits(each['alike'])}, {whose}"),
    )


def _side(data: bytes, record: str, split: str) -> Html:
    source = f"data:image/{kind_of(data)};base64,{base64.b64encode(data).decode('ascii')}"
    picture = el("img", src=source, alt=f"record {record}, {split}", loading="lazy", decoding="async")
    return el("div", picture, el("span", el("bdi", record), f", {split}", class_="caption"))
