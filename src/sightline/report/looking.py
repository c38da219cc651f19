"""What covering the finding costs, model by model, and whether attention to the image says so too."""

from __future__ import annotations

from .markup import Html, bounds, count, digits, el
from .page import Page

METRIC = "looks_at_finding"


def looking(page: Page) -> Html:
    """One sentence for each model; nothing where no finding was covered."""
    lines = []
    for model in page.models:
        row = page.row(model, "clean", METRIC)
        if row is not None:
            ends = bounds(row.get("low"), row.get("high"))
            size = f"{count(row.get('n'))} questions, {count(row.get('patients'))} patients"
            text = f": covering the finding costs {digits(row['value'])} nats more {ends} than covering another place"
            lines.append(el("li", el("b", el("bdi", model)), f"{text} ({size}). {_said(row.get('low'))}"))
    lines += [el("li", el("bdi", told)) for told in page.looked]
    if not lines:
        return Html("")
    return Html(el("h3", "With the finding covered") + el("ul", lines))


def _said(low: object) -> str:
    """What the interval's lower end says."""
    if isinstance(low, (int, float)) and low > 0:
        return "It looks where the finding is."
    return "That it looks where the finding is, is not shown."
