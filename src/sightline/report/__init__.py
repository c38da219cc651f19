"""The report: one HTML file that shows what training changed, and needs nothing but itself.

`render` takes a `Page` (plain numbers, texts and PNG bytes) and writes the file. It measures nothing:
numbers, intervals and p values are those of the evaluation, and no sentence claims more than its interval
allows.
"""

from __future__ import annotations

from .document import render
from .page import Card, Page

__all__ = ["Card", "Page", "render"]
