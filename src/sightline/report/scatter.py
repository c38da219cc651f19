"""A map of embeddings: images and their reports in two dimensions, coloured by one label, as an SVG file of its own.

Each side is centred on its own mean first. Encoders keep images and texts in two separate cones (Liang et al. 2022,
arXiv 2203.02053); drawn as they are, that gap would fill the picture and say nothing about the pairs.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..runs import digest, write_json
from .charts import SERIES, marker, scale
from .markup import Child, Html, el, words

WIDE, HIGH, EDGE = 720, 560, 46
PRESENT, ABSENT, UNKNOWN = 1, 2, 0
NAMES = {PRESENT: "present", ABSENT: "absent", UNKNOWN: "unknown"}
NEIGHBOURS = 15
MOST = 500


def write(
    folder: Path,
    images: np.ndarray,
    texts: np.ndarray,
    ids: Sequence[str],
    labels: Sequence[Mapping[str, int]],
    *,
    seed: int = 0,
) -> None:
    """Write `map.json` and `map.svg`; of many pairs, `MOST` that a hash of (seed, id) chooses. See `layout`."""
    order = sorted(range(len(ids)), key=lambda i: digest(str(seed), "map", ids[i]))
    shown = sorted(order[:MOST])
    found = layout(
        images[shown], texts[shown], [ids[i] for i in shown], [labels[i] for i in shown], seed=seed
    )
    write_json(folder / "map.json", {**found, "of": len(ids)})
    (folder / "map.svg").write_text(draw(found), encoding="utf-8")


def layout(
    images: np.ndarray,
    texts: np.ndarray,
    ids: Sequence[str],
    labels: Sequence[Mapping[str, int]],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Where each image and each report stands, as plain values for JSON.

    UMAP (McInnes et al. 2018, arXiv 1802.03426) where `umap-learn` is installed and there are enough pairs, else the
    two principal components.

    Args:
        images: [n, width], unit embeddings.
        texts: [n, width], the same; row i of both is pair i.
        ids: [n] record ids.
        labels: [n] what is known of each pair.
        seed: of UMAP.

    Returns:
        `method`, `explained` (shares of the variance along both axes; None for UMAP), `label` ("" where nothing is
        known), and `points` with `id`, `side` (`image` or `report`), `x`, `y` and `value` (None where unknown).
    """
    sides = [side.astype(np.float64) - side.astype(np.float64).mean(axis=0) for side in (images, texts)]
    both = np.concatenate(sides)  # [2n, width]
    if importlib.util.find_spec("umap") is not None and len(ids) > NEIGHBOURS:
        umap: Any = importlib.import_module("umap")
        places = np.asarray(umap.UMAP(n_neighbors=NEIGHBOURS, random_state=seed).fit_transform(both))
        method, explained = "umap", None
    else:
        places, shares = components(both)
        method, explained = "pca", shares
    label = dividing(labels)
    points = [
        {
            "id": ids[i % len(ids)], "side": "image" if i < len(ids) else "report",
            "x": round(float(x), 6), "y": round(float(y), 6), "value": labels[i % len(ids)].get(label),
        }
        for i, (x, y) in enumerate(places)
    ]  # fmt: skip
    return {"method": method, "explained": explained, "label": label, "points": points}


def components(points: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Principal components: where points stand on the first two, and the shares of the variance that these hold.

    Args:
        points: [n, width], centred.

    Returns:
        [n, 2], each axis turned so that its largest loading is positive, and two shares.
    """
    _, sizes, axes = np.linalg.svd(points, full_matrices=False)
    axes, sizes = axes[:2], sizes**2
    turned = axes * np.sign(axes[range(len(axes)), np.abs(axes).argmax(axis=1)] + 0.0)[:, None]
    places = np.zeros((len(points), 2))
    places[:, : len(axes)] = points @ turned.T
    shares = sizes[:2] / sizes.sum() if sizes.sum() > 0 else sizes[:2] * 0
    return places, [round(float(s), 6) for s in np.pad(shares, (0, 2 - len(shares)))]


def dividing(labels: Sequence[Mapping[str, int]]) -> str:
    """The label that divides the records most evenly into present and absent; "" where there is none."""
    names = sorted({name for known in labels for name in known})
    shares = {
        name: np.mean([known[name] > 0 for known in labels if name in known]) for name in names
    }  # fmt: skip
    return min(names, key=lambda name: abs(shares[name] - 0.5), default="")


def draw(found: Mapping[str, Any]) -> str:
    """A layout as an SVG file: images filled, reports hollow.

    Args:
        found: of `layout`.
    """
    return el(
        "svg", el("title", title(found)), el("style", _style()), el("rect", width=WIDE, height=HIGH, class_="paper"),
        _drawn(found),
        xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {WIDE} {HIGH}", width=WIDE, height=HIGH, role="img",
    ) + "\n"  # fmt: skip


def inline(found: Mapping[str, Any]) -> Html:
    """The same within a page, which has its own colours."""
    box = f"0 0 {WIDE} {HIGH}"
    return el("svg", _drawn(found), class_="map", viewBox=box, role="img", aria_label=title(found))


def title(found: Mapping[str, Any]) -> str:
    """What a layout shows, in words."""
    return f"Embeddings of {len(found['points']) // 2} images and their reports"


def _drawn(found: Mapping[str, Any]) -> list[Child]:
    """Frame, marks, legend and axes."""
    points = found["points"]
    across, up = (scale([p[axis] for p in points]) for axis in ("x", "y"))
    marks = [
        marker(
            _series(p["value"]), hollow=p["side"] == "report",
            x=f"{EDGE + across.at(p['x']) * (WIDE - 2 * EDGE):.1f}",
            y=EDGE + (1 - up.at(p["y"])) * (HIGH - 2 * EDGE),
        )
        for p in points
    ]  # fmt: skip
    frame = el("rect", x=EDGE / 2, y=EDGE / 2, width=WIDE - EDGE, height=HIGH - EDGE, class_="frame")
    told = el("text", _axes(found), x=EDGE / 2, y=HIGH - 6, class_="tick")
    return [frame, marks, _legend(found), told]


def _series(value: int | None) -> int:
    if value is None:
        return UNKNOWN
    return PRESENT if value > 0 else ABSENT


def _legend(found: Mapping[str, Any]) -> list[Html]:
    """What shapes, fillings and colours mean, above the frame."""
    seen = sorted({_series(p["value"]) for p in found["points"]}, key=[PRESENT, ABSENT, UNKNOWN].index)
    named = [(s, False, f"{words(found['label'])} {NAMES[s]}" if found["label"] else "pair") for s in seen]
    entries = [*named, (seen[0], False, "filled: image"), (seen[0], True, "hollow: report")]
    out, x = [], EDGE / 2 + 6
    for series, hollow, text in entries:
        out += [
            marker(series, hollow=hollow, x=f"{x:g}", y=12),
            el("text", text, x=x + 10, y=16, class_="tick"),
        ]
        x += 30 + 6.6 * len(text)
    return out


def _axes(found: Mapping[str, Any]) -> str:
    centred = "each side centred on its own mean"
    if found["explained"] is None:
        return f"UMAP, {centred}"
    first, second = (f"{100 * share:.0f} %" for share in found["explained"])
    return f"Principal components: {first} of the variance across, {second} upwards; {centred}"


def _style() -> Html:
    """The page's light colours, spelt out: not every viewer knows variables."""
    page = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
    colours = dict(re.findall(r"--s(\d): (#\w+)", page)[:SERIES])
    rules = [
        f".s{n} .mark{{fill:{colour}}}.s{n} .hollow{{fill:#fff;stroke:{colour};stroke-width:1.6}}"
        for n, colour in colours.items()
    ]
    plain = ".paper{fill:#fff}.frame{fill:none;stroke:#ccc}.tick{font:12px sans-serif;fill:#444}"
    return Html(plain + "".join(rules))
