"""Draws docs/pictures/degradations.png: one generated radiograph under every degradation.

    python docs/make_pictures.py [--out docs/pictures]

The same Pillow gives the same bytes. A new kind is shown once it stands in `SHOWN`; one that is missing there
stops the script.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sightline import plugins
from sightline.images import degrade
from sightline.images.anatomy import grow
from sightline.images.degrade.swapped import partners
from sightline.images.phantom import draw
from sightline.types import Degrade

SIDE, GAP, HEAD, FOOT = 124, 6, 26, 18  # pixels of a panel, between panels, above and below them
ACROSS, PANELS = 2, 3  # cells in a row, panels in a cell
GREYS, STEPS = 96, 5  # the palette: so many greys, and steps of red, green and blue
NOTE = "Below each picture: the strength,\nand what it means for that kind.\nA recipe that names none gets 1."
INK, SOFT, PAPER = (25, 30, 40), (95, 102, 115), (255, 255, 255)

# Kind -> what it does, and its panels: strength and what that means.
SHOWN: dict[str, tuple[str, dict[float, str]]] = {
    "gaussian": ("noise on top", {0.2: "sd 0.2", 0.5: "sd 0.5", 1.0: "sd 1"}),
    "replace": ("noise instead", {0.25: "sd 0.25", 0.5: "sd 0.5", 1.0: "sd 1"}),
    "diffusion": ("fades into noise", {0.5: "step 250", 1.0: "step 500", 1.5: "step 750"}),
    "poisson": ("too few photons", {1.0: "100 photons", 10.0: "10 photons", 100.0: "1 photon"}),
    "blur": ("out of focus", {0.25: "sigma 2.5 %", 0.5: "sigma 5 %", 1.0: "sigma 10 %"}),
    "jpeg": ("compressed too hard", {0.8: "quality 28", 1.0: "quality 10", 1.1: "quality 1"}),
    "crop": ("a small piece", {0.5: "50 to 60 %", 0.8: "21 to 36 %", 1.0: "1 to 20 %"}),
    "black": ("brightness taken away", {0.5: "half", 0.9: "nine tenths", 1.0: "all"}),
    "occluded": ("a box covered", {0.5: "half", 0.9: "nine tenths", 1.0: "all"}),
    "swapped": ("another patient's image", {1.0: "all or nothing"}),
}
PATIENTS = {"p1": (21, {"effusion_right": 3, "nodule": 2, "device": 2}), "p2": (5, {"cardiomegaly": 2})}


def main() -> None:
    """Write the picture and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "pictures")
    path = parser.parse_args().out / "degradations.png"
    missing = set(plugins.names("degrade")) ^ set(SHOWN)
    if missing:
        raise SystemExit(f"SHOWN and the degradations differ: {', '.join(sorted(missing))}")
    sheet().quantize(palette=palette(), dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def palette() -> Image.Image:
    """Greys and a cube of colours. Noise does not compress, so a byte a pixel keeps the file small."""
    greys = np.linspace(0, 255, GREYS)[:, None].repeat(3, axis=1)  # [GREYS, 3]
    cube = np.stack(np.meshgrid(*[np.linspace(0, 255, STEPS)] * 3), axis=-1).reshape(-1, 3)  # [STEPS^3, 3]
    made = Image.new("P", (1, 1))
    made.putpalette(np.rint(np.concatenate([greys, cube])).astype(np.uint8).tobytes())
    return made


def patient(name: str) -> np.ndarray:
    """Pixels [SIDE, SIDE, 3] in [0, 1] of a generated patient."""
    number, findings = PATIENTS[name]
    rng = np.random.default_rng(number)
    sides = {"nodule": "left", "device": "left"}
    grey = draw(rng, findings, size=SIDE, anatomy=grow(rng), sides=sides)
    return np.repeat(grey[:, :, None].astype(np.float32) / 255, 3, axis=2)


def panel(kind: str, strength: float) -> np.ndarray:
    """What the first patient's record shows under a degradation [SIDE, SIDE, 3]."""
    if degrade.find(kind).swaps:
        return patient(partners([(name, name) for name in PATIENTS], seed=0)["p1"])
    return degrade.apply(patient("p1"), Degrade(kind=kind, strength=strength), "p1")


def sheet() -> Image.Image:
    """The clean image and every kind, as cells of labelled panels."""
    cells = {"clean": ("the image itself", {0.0: ""}), **SHOWN}
    wide, high = PANELS * (SIDE + GAP) + 3 * GAP, HEAD + SIDE + FOOT + 2 * GAP
    rows = -(-len(cells) // ACROSS)
    page = Image.new("RGB", (ACROSS * wide + GAP, rows * high + GAP), PAPER)
    for number, (kind, (words, strengths)) in enumerate(cells.items()):
        corner = (2 * GAP + number % ACROSS * wide, GAP + number // ACROSS * high)
        cell(page, corner, kind, words, strengths)
    place = (4 * GAP + SIDE, GAP + HEAD)  # beside the clean image
    ImageDraw.Draw(page).multiline_text(place, NOTE, SOFT, ImageFont.load_default(13), spacing=6)
    return page


def cell(
    page: Image.Image, corner: tuple[int, int], kind: str, words: str, strengths: dict[float, str]
) -> None:
    """Draw one kind: its name, what it does, and its panels with their strengths below."""
    pen, (left, top) = ImageDraw.Draw(page), corner
    bold, small = ImageFont.load_default(16), ImageFont.load_default(12)
    pen.text((left, top + HEAD - 6), kind, INK, bold, anchor="ls")
    pen.text((left + pen.textlength(kind, bold) + 8, top + HEAD - 6), words, SOFT, small, anchor="ls")
    for number, (strength, meaning) in enumerate(strengths.items()):
        pixels = patient("p1") if kind == "clean" else panel(kind, strength)
        x = left + number * (SIDE + GAP)
        page.paste(Image.fromarray(np.rint(pixels * 255).astype(np.uint8)), (x, top + HEAD))
        label = f"{strength:g}: {meaning}" if meaning else "right effusion, nodule, pacemaker"
        pen.text((x, top + HEAD + SIDE + FOOT - 4), label, SOFT, small, anchor="ls")


if __name__ == "__main__":
    main()
