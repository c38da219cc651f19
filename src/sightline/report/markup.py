"""HTML that is escaped by construction, and numbers as readers expect them.

Every element of the report is built by `el`, which escapes all that is not already `Html`; so a question, a
file name or a model's answer can never become markup.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping
from typing import Any

VOID = frozenset({"img", "meta", "col", "br", "hr", "input"})
DASH = "–"


class Html(str):
    """Text that is markup already, made by `el` or by this package's own constants."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]


def el(tag: str, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """One element. Children that are not `Html` are escaped; None and False attributes are left out.

    Args:
        tag: the element's name.
        *children: texts, elements, or lists of them.
        **attributes: `class_` and `aria_label` become `class` and `aria-label`.
    """
    parts = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        shown = name.rstrip("_").replace("_", "-")
        parts.append(shown if value is True else f'{shown}="{html.escape(str(value))}"')
    opening = f"<{' '.join(parts)}>"
    return Html(opening if tag in VOID else f"{opening}{join(children)}</{tag}>")


def scroll(table: Html, name: str) -> Html:
    """A table that scrolls sideways by itself where it is too wide, by keyboard too; readers are told its name."""
    return el("div", table, class_="scroll", role="region", aria_label=name, tabindex=0)


def join(children: Child) -> Html:
    """Children in order, escaped where they are not `Html`."""
    if children is None:
        return Html("")
    if isinstance(children, Html):
        return children
    if isinstance(children, (str, int, float)):
        return Html(html.escape(str(children)))
    return Html("".join(join(child) for child in children))


def number(value: Any) -> float | None:
    """A finite float, or None for anything else (None, NaN, texts, bool)."""
    if value is None or isinstance(value, (str, bytes, bool)):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def digits(value: Any, *, signed: bool = False) -> str:
    """A number with two decimals, fewer from 10 on; a difference below 1 has three; a dash for no number."""
    found = number(value)
    if found is None:
        return DASH
    places = 2 if abs(found) < 10 else 1 if abs(found) < 100 else 0
    places += signed and abs(found) < 1
    text = f"{found:+.{places}f}" if signed else f"{found:.{places}f}"
    if float(text) == 0:
        text = f"{0:.{places}f}"
    return text.replace("-", "−")


def bounds(low: Any, high: Any, *, signed: bool = False) -> str:
    """An interval as `[0.83, 0.88]`, or nothing where it has not been computed."""
    if number(low) is None or number(high) is None:
        return ""
    return f"[{digits(low, signed=signed)}, {digits(high, signed=signed)}]"


def estimate(row: Mapping[str, Any]) -> str:
    """A value and its interval: `0.86 [0.83, 0.88]`."""
    return f"{digits(row.get('value'))} {bounds(row.get('low'), row.get('high'))}".rstrip()


def count(value: Any) -> str:
    """A whole number with thin spaces between thousands, or a dash."""
    found = number(value)
    return DASH if found is None else f"{round(found):,}".replace(",", "\u202f")


def chance(p: Any) -> str:
    """A p value as journals print it."""
    found = number(p)
    if found is None:
        return DASH
    return "< 0.001" if found < 0.001 else f"{found:.3f}" if found < 0.1 else f"{found:.2f}"


def p_is(p: Any) -> str:
    """A p value within a sentence: `p = 0.03`, `p < 0.001`; nothing where there is none."""
    shown = chance(p)
    return "" if shown == DASH else f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def duration(seconds: Any) -> str:
    """Seconds as `8.4 s`, `6 min 59 s` or `2 h 05 min`."""
    found = number(seconds)
    if found is None:
        return DASH
    if found < 60:
        return f"{found:.1f} s"
    minutes, rest = divmod(round(found), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def words(name: object) -> str:
    """A name as words: `effusion_left` becomes `effusion left`."""
    return str(name).replace("_", " ")


def plain(value: Any) -> str:
    """Nested settings as one line of text: `torch 2.14.0, numpy 2.2`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(plain(inner) for inner in value)
    return "" if value is None else str(value)


def enumerate_words(items: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
