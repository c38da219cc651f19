"""Photographs the page of a running server for docs/serving.md: a wide window and a narrow one.

    sightline serve runs/quickstart/aligned
    python docs/make_serving_pictures.py http://127.0.0.1:8000 runs/quickstart/data/images/p0005-s1.png

Needs Chromium, and the tests of this checkout, which hold what drives it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SHOTS = (("serving-laptop", "en", 1280, 1000), ("serving-phone", "en", 390, 1700))
QUESTION = "Is there a left effusion?"
READY = "document.body && document.body.dataset.ready"
IDLE = "!document.getElementById('ask').disabled"


def ask(tab: Any, url: str, image: Path, language: str) -> None:
    """Put a question and ask it with and without the image."""
    tab.open(f"{url}/?{language}#lang={language}", READY)
    tab.choose("#current-file", image)
    tab.until("!document.querySelector('#slot-current .shown').hidden")
    tab.run(f"document.getElementById('question').value = {json.dumps(QUESTION)}; 0")
    for button in ("#ask", "#blind"):
        tab.click(button)
        tab.until(IDLE)
    tab.run("scrollTo(0, 0); document.activeElement.blur()")


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("url")
    parser.add_argument("image", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from browser import chromium

    with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as tab:
        tab.seconds = 300
        for name, language, width, height in SHOTS:
            ask(tab, asked.url, asked.image.resolve(), language)
            tab.picture(asked.out / f"{name}.png", width, height)
            print(asked.out / f"{name}.png")


if __name__ == "__main__":
    main()
