"""Where the numbers come from: stages with their hashes, what made the scores, the audit, the recipe."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .markup import Html, duration, el, plain, scroll
from .page import Page
from .tables import rows_of
from .twins import twins

HEADS = (
    ("Name", None),
    ("Stage", None),
    ("Content", None),
    ("Read", None),
    ("Time", "number"),
    ("Machine", None),
)


def provenance(page: Page) -> Html:
    """A table of the stages, and folded blocks for the rest."""
    blocks = []
    if page.stages:
        head = el("tr", [el("th", text, scope="col", class_=kind) for text, kind in HEADS])
        table = el("table", el("thead", head), el("tbody", [_stage(s) for s in page.stages]), class_="stages")
        blocks.append(scroll(table, "Stages"))
        versions = {str(s.get("name", "")): plain(s["versions"]) for s in page.stages if s.get("versions")}
        if versions:
            distinct = {text: [n for n, t in versions.items() if t == text] for text in versions.values()}
            lines = [el("p", el("b", ", ".join(n)), ": ", text) for text, n in distinct.items()]
            blocks.append(el("details", el("summary", "Software versions"), lines))
    if page.made:
        blocks.append(_text("What made the scores", json.dumps(page.made, indent=1, ensure_ascii=False)))
    if page.audit:
        entries = rows_of((name, plain(value)) for name, value in page.audit.items())
        blocks.append(
            el("details", el("summary", "Data audit"), el("dl", entries, class_="facts"), open=True)
        )
    blocks.append(twins(page))
    blocks += [
        _text(name, text)
        for name, text in (("Command", page.command), ("Recipe as run", page.recipe))
        if text
    ]
    return Html("".join(blocks))


def _text(name: str, text: str) -> Html:
    """A folded block of plain text."""
    return el("details", el("summary", name), el("pre", el("code", text), tabindex=0))


def _stage(stage: Mapping[str, Any]) -> Html:
    content = str(stage.get("content", ""))
    return el(
        "tr",
        el("th", str(stage.get("name", "")), scope="row"),
        el("td", stage.get("stage", "")),
        el("td", el("code", content[:12], title=content)),
        el("td", plain(stage.get("parents")) or "–"),
        el("td", duration(stage.get("seconds")), class_="number"),
        el("td", plain(stage.get("machine"))),
    )
