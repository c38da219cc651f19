"""Draws docs/pictures/report-laptop.png and report-phone.png: the report of a finished evaluation in Chromium.

    python docs/make_report_pictures.py runs/vqa_rad/evaluate [--out docs/pictures]

The pages are made anew from what the evaluation keeps; the window is a laptop's and a phone's. Chromium must be there.
"""

from __future__ import annotations

import argparse
import base64
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from sightline.stages.rebuild import rebuild

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from browser import Tab, chromium

COLOURS, GAP, EDGE = 192, 24, (225, 223, 218)
# Name -> width and height of the window in CSS pixels, device pixels for each, and the places that are shown.
WINDOWS = {"laptop": (1280, 2440, 1.0, ("top",)), "phone": (390, 1450, 1.25, ("top", "broken"))}


def main() -> None:
    """Write both pictures and say how large they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished evaluation")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "pictures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        page = rebuild(given.run, Path(home) / "pages")[0]
        with chromium(Path(home) / "profile") as tab:
            tab.seconds = 300
            for name, (width, height, scale, places) in WINDOWS.items():
                tab(
                    "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
                    mobile=name == "phone",
                )  # fmt: skip
                tab.open(page.as_uri(), "true")
                write(given.out / f"report-{name}.png", [shot(tab, place) for place in places])


def shot(tab: Tab, place: str) -> Image.Image:
    """What the window shows at a section, its pictures decoded."""
    where = "scrollTo(0, 0)" if place == "top" else f"document.getElementById('{place}').scrollIntoView()"
    tab.run(where)
    tab.run(
        "Promise.all([...document.querySelectorAll('.regressions img')].map((i) => i.decode())).then(() => 0)"
    )
    data = tab("Page.captureScreenshot", format="png")["data"]
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def write(path: Path, shots: list[Image.Image]) -> None:
    """Screenshots beside each other, with few colours, as a small PNG file."""
    wide = sum(each.width for each in shots) + GAP * (len(shots) - 1)
    sheet = Image.new("RGB", (wide, shots[0].height), EDGE)
    for number, each in enumerate(shots):
        sheet.paste(each, (number * (each.width + GAP), 0))
    sheet.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
