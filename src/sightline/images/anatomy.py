"""The healthy chest of a phantom: its shape, its pose on the detector, and the tissues always seen.

Chest coordinates: x from -1 (the patient's right, the image's left) to 1 (the patient's left, the image's
right), y from -1 (neck) to 1 (abdomen). Tissue is given as attenuation from 0 (air) to about 1 (metal).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Array = NDArray[np.floating[Any]]

SIDES = {"right": -1, "left": 1}
TISSUE = 0.60
LUNG_MIDDLE = 0.15
OVERSAMPLE = 2
SKIN = ((-1.3, -1.0, -0.93, -0.86, -0.76, -0.62, -0.4, 1.3), (0.28, 0.33, 0.45, 0.68, 0.86, 0.97, 1.03, 1.08))


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """What stays the same in all studies of one patient; lengths in chest coordinates.

    Args:
        width: inner half width of the chest.
        apex: y of the lungs' tips.
        diaphragm: y of the top of the right and of the left dome.
        doming: depth of the angle between chest wall and diaphragm below the dome.
        heart: width of the healthy heart over the chest's inner width.
        axis: tilt of the heart in radians.
        mediastinum: half width of the mediastinum.
        knob: radius of the aortic knob.
        rib_spacing, rib_slope, rib_contrast: distance, fall and brightness of the ribs.
        breast: attenuation of the breasts' shadows; 0 for none.
        bulk: attenuation of the soft tissue over the lungs.
        branches: seed of the vessels' branching.
    """

    width: float
    apex: float
    diaphragm: tuple[float, float]
    doming: float
    heart: float
    axis: float
    mediastinum: float
    knob: float
    rib_spacing: float
    rib_slope: float
    rib_contrast: float
    breast: float
    bulk: float
    branches: int


def grow(rng: np.random.Generator) -> Anatomy:
    """A patient's anatomy, drawn within the range of normal adults."""
    uniform = rng.uniform
    level = uniform(0.36, 0.56)
    return Anatomy(
        width=uniform(0.68, 0.80),
        apex=uniform(-0.84, -0.70),
        diaphragm=(level - uniform(-0.06, 0.14), level + uniform(-0.06, 0.10)),
        doming=uniform(0.16, 0.26),
        heart=uniform(0.36, 0.45),
        axis=uniform(0.15, 0.5),
        mediastinum=uniform(0.11, 0.17),
        knob=uniform(0.07, 0.11),
        rib_spacing=uniform(0.15, 0.21),
        rib_slope=uniform(0.10, 0.34),
        rib_contrast=uniform(0.02, 0.055),
        breast=float(uniform(0.06, 0.17)) if rng.random() < 0.45 else 0.0,
        bulk=uniform(0.0, 0.10),
        branches=int(rng.integers(2**31)),
    )


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the chest lies on the picture: the map between pixels and chest coordinates.

    Args:
        size: edge of the picture in pixels.
        angle: rotation in radians.
        scale: pixels per half picture and chest unit; 1 fills the picture.
        shift: offset (x, y) of the chest's origin, in half pictures.
    """

    size: int
    angle: float
    scale: float
    shift: tuple[float, float]
    x: Array = field(init=False, repr=False)  # [H, W]
    y: Array = field(init=False, repr=False)  # [H, W]

    def __post_init__(self) -> None:
        axis = ((np.arange(self.size) + 0.5) * (2.0 / self.size) - 1.0).astype(np.float32)
        u, v = axis[None, :] - self.shift[0], axis[:, None] - self.shift[1]
        cos, sin = np.cos(self.angle) / self.scale, np.sin(self.angle) / self.scale
        object.__setattr__(self, "x", (cos * u + sin * v).astype(np.float32))
        object.__setattr__(self, "y", (cos * v - sin * u).astype(np.float32))

    @property
    def pixel(self) -> float:
        """The edge of one pixel in chest coordinates."""
        return 2.0 / (self.size * self.scale)

    def place(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Chest coordinates [..., 2] as pixel positions [..., 2]."""
        cos, sin = np.cos(self.angle) * self.scale, np.sin(self.angle) * self.scale
        x, y = points[..., 0], points[..., 1]
        u = cos * x - sin * y + self.shift[0]
        v = sin * x + cos * y + self.shift[1]
        return np.stack([(u + 1) * self.size / 2, (v + 1) * self.size / 2], axis=-1)


class Canvas:
    """A sheet for lines, drawn at twice the size so that their edges are smooth."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.sheet = Image.new("L", (frame.size * OVERSAMPLE,) * 2)
        self.pen = ImageDraw.Draw(self.sheet)

    def line(self, points: NDArray[np.float64], width: float, grey: int) -> None:
        """A polyline through chest coordinates [N, 2]; the width is in chest units."""
        path = self.frame.place(points) * OVERSAMPLE
        thick = max(1, round(width / self.frame.pixel * OVERSAMPLE))
        self.pen.line([tuple(p) for p in path.tolist()], fill=grey, width=thick, joint="curve")

    def dots(self, points: NDArray[np.float64], radius: float, grey: int) -> None:
        """Discs around chest coordinates [N, 2]; the radius is in chest units."""
        r = radius / self.frame.pixel * OVERSAMPLE
        for u, v in (self.frame.place(points) * OVERSAMPLE).tolist():
            self.pen.ellipse((u - r, v - r, u + r, v + r), fill=grey)

    def shape(self, points: NDArray[np.float64], grey: int) -> None:
        """A filled polygon through chest coordinates [N, 2]."""
        path = self.frame.place(points) * OVERSAMPLE
        self.pen.polygon([tuple(p) for p in path.tolist()], fill=grey)

    def develop(self) -> Array:
        """The sheet at the picture's size, from 0 to 1."""
        return np.asarray(self.sheet.reduce(OVERSAMPLE), dtype=np.float32) / np.float32(255)


def edge(distance: Array, blur: float) -> Array:
    """A mask from a signed distance: 0 outside, 1 inside, a ramp `blur` wide between."""
    return np.clip(distance / np.float32(blur) + np.float32(0.5), 0, 1)


def ridge(distance: Array, width: float) -> Array:
    """A soft line where a distance is zero."""
    return np.exp(-np.square(distance * np.float32(1 / width)))


def cloud(rng: np.random.Generator, size: int, cells: int) -> Array:
    """Smooth noise of unit deviation with about `cells` waves across the picture."""
    grid = Image.fromarray(rng.standard_normal((cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32)


def wall(y: Array, width: float, apex: float) -> Array:
    """Half width of the lungs' outer border at each y; it closes at the apex."""
    rows = np.linspace(-2.0, 2.0, 801)
    up = np.clip((LUNG_MIDDLE - rows) / (LUNG_MIDDLE - apex), 0, 1)
    curve = width * (1 - up**1.8) ** 0.58 * (1 + 0.06 * np.clip(rows - LUNG_MIDDLE, 0, 1))
    return np.interp(y, rows, curve).astype(np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cavity:
    """One half of the chest.

    Args:
        sign: -1 for the patient's right, 1 for the left.
        x: x counted outwards from the spine [H, W].
        outer: signed distance to the outer wall [H, W], positive inside.
        floor: y of the diaphragm below each pixel [H, W].
        dome: y of the dome's top.
        mask: 1 inside [H, W].
    """

    sign: int
    x: Array
    outer: Array
    floor: Array
    dome: float
    mask: Array


def cavity(frame: Frame, anatomy: Anatomy, side: str) -> Cavity:
    """The space of one lung, with or without its heart's share."""
    sign = SIDES[side]
    x = frame.x * np.float32(sign)
    dome = anatomy.diaphragm[0 if sign < 0 else 1]
    outer = wall(frame.y, anatomy.width, anatomy.apex) - x
    floor = dome + np.float32(anatomy.doming) * np.square((x - 0.36) / np.float32(anatomy.width - 0.36))
    inner = x - (anatomy.mediastinum * (0.75 + 0.3 * np.clip(frame.y + 0.6, 0, 1)))
    blur = 1.6 * frame.pixel
    mask = edge(outer, blur) * edge(floor - frame.y, blur) * edge(inner, 2 * blur)
    return Cavity(sign=sign, x=x, outer=outer, floor=floor, dome=dome, mask=mask)


def body(frame: Frame, anatomy: Anatomy) -> Array:
    """Skin outline with neck and shoulders, as a mask [H, W]."""
    half = np.interp(frame.y, SKIN[0], SKIN[1])
    return edge((half * (anatomy.width / 0.76) - np.abs(frame.x)).astype(np.float32), 4 * frame.pixel)


def heart(frame: Frame, anatomy: Anatomy, ratio: float) -> tuple[Array, Array]:
    """The heart as a mask [H, W] and its elliptic radius [H, W], which is 1 at the border.

    `ratio` is the width of the heart over the inner width of the chest.
    """
    across = ratio * anatomy.width
    down = 0.17 + 0.42 * across
    low = sum(anatomy.diaphragm) / 2 + 0.07 - 0.85 * down
    cos, sin = np.cos(anatomy.axis), np.sin(anatomy.axis)
    u, v = frame.x - np.float32(0.44 * across), frame.y - np.float32(low)
    main = np.hypot((cos * u + sin * v) / (0.94 * across), (cos * v - sin * u) / down)
    atrium = np.hypot((frame.x + 0.14 * across) / (0.50 * across), (frame.y - low - 0.02) / down)
    radius = np.minimum(main, atrium).astype(np.float32)
    return edge((1 - radius) * np.float32(min(across, down)), 2.5 * frame.pixel), radius


def bones(frame: Frame, anatomy: Anatomy) -> Array:
    """Ribs, collar bones and spine as attenuation [H, W], to be added."""
    x, y = np.abs(frame.x), frame.y
    fall = np.float32(anatomy.rib_slope) * np.square(x / np.float32(anatomy.width)) * np.float32(1.4)
    across = edge(wall(y, anatomy.width * 1.03, anatomy.apex - 0.05) - x, 2 * frame.pixel)
    back = np.mod((y - fall) / np.float32(anatomy.rib_spacing), 1) - np.float32(0.5)
    band = 0.75 * edge(0.21 - np.abs(back), 0.12) + 0.5 * ridge(np.abs(back) - 0.2, 0.05)
    front = np.mod((y + fall * 1.5 - 0.9 * x) / np.float32(anatomy.rib_spacing * 1.25), 1) - np.float32(0.5)
    faint = edge(np.float32(0.2) - np.abs(front), 0.2) * edge(x - 0.3, 0.1)
    ribs = across * np.float32(anatomy.rib_contrast) * (band + 0.35 * faint) * edge(0.7 - y, 0.4)
    collar = np.abs(y - np.float32(anatomy.apex + 0.17) + 0.22 * (x - 0.1)) - np.float32(0.022)
    clavicle = edge(-collar, 2 * frame.pixel) * edge(x - 0.08, 0.04) * edge(0.75 - x, 0.1)
    block = np.abs(np.mod(y / np.float32(0.125), 1) - np.float32(0.5))
    spine = edge(0.085 - x, 0.02) * (0.05 + 0.05 * edge(0.38 - block, 0.1))
    return (ribs + np.float32(0.12) * clavicle + spine).astype(np.float32)


def vessels(frame: Frame, anatomy: Anatomy) -> Array:
    """The branching of the lungs' vessels from the hila outwards [H, W], from 0 to 1."""
    rng = np.random.default_rng(anatomy.branches)
    canvas = Canvas(frame)
    for sign in SIDES.values():
        root = np.array([sign * (anatomy.mediastinum + 0.03), -0.05])
        for turn in np.linspace(-1.35, 1.35, 9):
            start = root + rng.normal(0, 0.03, 2)
            _branch(canvas, rng, start, turn + rng.normal(0, 0.1), sign, depth=0)
    return canvas.develop()


def _branch(
    canvas: Canvas,
    rng: np.random.Generator,
    start: NDArray[np.float64],
    turn: float,
    sign: int,
    *,
    depth: int,
) -> None:
    """Draw one vessel and, thinner, the two that it splits into."""
    steps = 4
    turns = turn + np.cumsum(rng.normal(0, 0.13, steps))
    length = rng.uniform(0.15, 0.24) * (0.85**depth)
    ahead = np.stack([sign * np.cos(turns), np.sin(turns)], axis=-1) * (length / steps)
    path = np.concatenate([start[None], start + np.cumsum(ahead, axis=0)])
    canvas.line(path, 0.026 * 0.66**depth, (190, 165, 140, 110)[depth])
    if depth < 3:
        for fork in (-0.32, 0.32):
            next_turn = float(turns[-1]) + fork + rng.normal(0, 0.12)
            _branch(canvas, rng, path[-1], next_turn, sign, depth=depth + 1)
