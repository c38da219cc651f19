"""The report: one HTML file that shows what training changed, and needs nothing but itself.

`render` takes a `Page` (plain numbers, texts and the bytes of pictures) and writes the file; `model_card` writes its
card, `reading` chooses what a blinded reader is asked. Nothing is measured here: numbers, intervals and p values are
those of the evaluation, and no sentence claims more than its interval allows.
"""

from __future__ import annotations

from .blinded import Item, Reading, reading
from .card import Card
from .document import render
from .page import Page

__all__ = ["Card", "Item", "Page", "Reading", "reading", "render"]
