"""The page's files, as they stand in the package: a fixed list, read once."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

UTF8 = "; charset=utf-8"
TYPES = {
    "page.css": "text/css", "page.js": "text/javascript", "viewer.js": "text/javascript",
    "stream.js": "text/javascript", "words.js": "text/javascript", "parts.js": "text/javascript",
    "answers.js": "text/javascript", "volume.js": "text/javascript",
}  # fmt: skip
HTML = f"text/html{UTF8}"


@lru_cache(maxsize=16)
def page(name: str) -> bytes:
    """A file of the page; the name is one of ours, never one that was asked for."""
    return (resources.files(__package__) / "page" / name).read_bytes()
