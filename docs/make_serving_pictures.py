"""Photographs the page of a running server for docs/serving.md: in three languages, in wide windows and a narrow one.

    sightline serve runs/quickstart/aligned --before runs/quickstart/taught --index runs/mmed_rag_phantom/retrieved
    python docs/make_serving_pictures.py http://127.0.0.1:8000 runs/quickstart/data/images/p0005-s1.png

Needs Chromium with fonts for Chinese and Korean (Noto Sans CJK), and the tests of this checkout, which hold what drives
it. The volume of the Korean picture is a phantom.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sightline.images.brain import Brain, draw
from sightline.images.formats import nifti

ROOT = Path(__file__).parents[1]
COLOURS = 160
QUESTION = "Is there a left effusion?"
READY = "document.body && document.body.dataset.ready"
IDLE = "!document.getElementById('ask').disabled"


@dataclass(frozen=True)
class Shot:
    """One picture: its language, its window in CSS pixels, and what is done before it is taken."""

    language: str
    width: int
    height: int
    act: Callable[[Any, Path, Path], None]


def choose(tab: Any, path: Path) -> None:
    """Give the page a file as its current image."""
    tab.choose("#current-file", path)
    tab.until("!document.querySelector('#slot-current .shown').hidden")


def answers(tab: Any, image: Path, volume: Path) -> None:
    """Ask with and without the image, without reports."""
    choose(tab, image)
    tab.run("const box = document.getElementById('reports'); if (box.checked) box.click(); 0")
    ask(tab, "#ask", "#blind")


def reports(tab: Any, image: Path, volume: Path) -> None:
    """Ask with reports, and one model alone."""
    choose(tab, image)
    tab.run("const box = document.getElementById('compare'); if (box.checked) box.click(); 0")
    ask(tab, "#ask")


def slices(tab: Any, image: Path, volume: Path) -> None:
    """Show a slice of a volume."""
    choose(tab, volume)


def ask(tab: Any, *buttons: str) -> None:
    """Put the question, and press what asks it."""
    tab.run(f"document.getElementById('question').value = {json.dumps(QUESTION)}; 0")
    for button in buttons:
        tab.click(button)
        tab.until(IDLE)


SHOTS = {
    "serving-laptop": Shot("en", 1280, 1330, answers),
    "serving-phone": Shot("en", 390, 2900, answers),
    "serving-zh": Shot("zh", 1280, 1160, reports),
    "serving-ko": Shot("ko", 1280, 1160, slices),
}


def head(path: Path) -> Path:
    """A generated head with a bright spot on its left side."""
    nifti.write(path, draw(Brain(side="left", sex="male"), np.random.default_rng(0), size=96))
    return path


def write(path: Path, data: bytes) -> None:
    """A screenshot with few colours, as a small PNG file."""
    shot = Image.open(io.BytesIO(data)).convert("RGB")
    shot.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("image", type=Path)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "pictures")
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from browser import chromium

    with tempfile.TemporaryDirectory() as place, chromium(Path(place) / "profile") as tab:
        tab.seconds = 300
        volume = head(Path(place) / "head.nii.gz")
        for name, shot in SHOTS.items():
            tab.open(f"{asked.url}/?{name}#lang={shot.language}", READY)
            shot.act(tab, asked.image.resolve(), volume)
            tab.run("scrollTo(0, 0); document.activeElement.blur()")
            raw = Path(place) / "shot.png"
            tab.picture(raw, shot.width, shot.height)
            write(asked.out / f"{name}.png", raw.read_bytes())


if __name__ == "__main__":
    main()
