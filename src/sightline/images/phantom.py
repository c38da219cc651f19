"""Radiograph-like chest pictures whose truth is known, for measuring hallucination without annotators.

What tells a finding is its edge and its texture, as on a film: the meniscus and the blotted-out vessels of an
effusion, the thin line of the pleura in a pneumothorax, the sharp border of a nodule or of an enlarged heart,
the wires of a device. Mean brightness tells little, because exposure, scatter, haze, pose and anatomy vary
more than the findings do.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from . import anatomy as chest
from .anatomy import SIDES, Anatomy, Array, Canvas, Cavity, Frame, cloud, edge, ridge
from .regions import Box, changed

FINDINGS: tuple[str, ...] = (
    "effusion_left",
    "effusion_right",
    "cardiomegaly",
    "nodule",
    "pneumothorax",
    "device",
)
SEVERITIES = ("none", "small", "moderate", "large")
SIDED = ("nodule", "pneumothorax", "device")
SHOULDER, ROOM = np.float32(0.70), np.float32(0.30)
MARKERS = {
    "left": [(-0.03, -0.05), (-0.03, 0.05), (0.03, 0.05)],
    "right": [(-0.03, 0.05), (-0.03, -0.05), (0.03, -0.05), (0.03, 0.0), (-0.03, 0.0), (0.03, 0.05)],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a picture is made of: where, who, and one random source for each part."""

    frame: Frame
    anatomy: Anatomy
    halves: Mapping[str, Cavity]
    sources: Mapping[str, np.random.Generator]
    sides: Mapping[str, str]


def draw(
    rng: np.random.Generator,
    findings: Mapping[str, int],
    *,
    size: int = 224,
    anatomy: Anatomy | None = None,
    sides: Mapping[str, str] | None = None,
    course: np.random.Generator | None = None,
) -> np.ndarray:
    """One frontal chest picture.

    The patient's left is on the image's right. Each part of the picture has a random source of its own, so
    two calls with equal generators differ only in what their findings change.

    Args:
        rng: source of pose, exposure and the findings' details; the only randomness.
        findings: severity per finding, 0 (absent) to 3 (large); a finding left out is absent.
        size: edge in pixels.
        anatomy: the patient; None draws one.
        sides: `left` or `right` for nodule, pneumothorax and device; drawn where left out.
        course: source of the findings' details (place, shape) instead of `rng`: given alike for two studies of a
            patient, a finding stays where it was, and only its severity changes what is seen of it.

    Returns:
        Grey values, uint8 [size, size].

    Raises:
        DataError: an unknown finding, severity or side.
    """
    _check(findings, sides or {})
    parts = (*FINDINGS, "anatomy", "pose", "sides", "lung", "haze", "exposure", "grain", "marker")
    seeds = rng.integers(2**63, size=len(parts))
    if course is not None:
        seeds[: len(FINDINGS)] = course.integers(2**63, size=len(FINDINGS))
    sources = {part: np.random.default_rng(int(seed)) for part, seed in zip(parts, seeds, strict=True)}
    who = chest.grow(sources["anatomy"]) if anatomy is None else anatomy
    frame = _pose(sources["pose"], size)
    drawn = {part: ("left", "right")[int(sources["sides"].integers(2))] for part in SIDED}
    scene = Scene(
        frame=frame,
        anatomy=who,
        halves={side: chest.cavity(frame, who, side) for side in SIDES},
        sources=sources,
        sides=drawn | dict(sides or {}),
    )
    return _expose(scene, _tissue(scene, findings))


def boxes(
    rng: np.random.Generator,
    findings: Mapping[str, int],
    *,
    size: int = 224,
    anatomy: Anatomy | None = None,
    sides: Mapping[str, str] | None = None,
) -> dict[str, Box]:
    """Where each finding of a picture is seen: the box around all that is not there without it.

    Args:
        rng: in the state in which `draw` got it; left as it is.
        findings: as for `draw`.
        size: as for `draw`.
        anatomy: as for `draw`.
        sides: as for `draw`.

    Returns:
        Boxes of the findings that are present. One that another covers whole has none.
    """
    said: dict[str, Any] = {"size": size, "anatomy": anatomy, "sides": sides}
    whole = draw(deepcopy(rng), findings, **said)
    found = {}
    for name in [name for name, severity in findings.items() if severity]:
        box = changed(whole, draw(deepcopy(rng), {**findings, name: 0}, **said))
        if box is not None:
            found[name] = box
    return found


def _check(findings: Mapping[str, int], sides: Mapping[str, str]) -> None:
    """Refuse what cannot be drawn."""
    for name, severity in findings.items():
        if name not in FINDINGS or severity not in range(len(SEVERITIES)):
            raise DataError(
                f"a phantom cannot show '{name}' with severity {severity}",
                found=f"{name}: {severity}",
                expected=f"a finding of {', '.join(FINDINGS)} with a severity from 0 (absent) to 3 (large)",
            )
    for name, side in sides.items():
        if name not in SIDED or side not in SIDES:
            raise DataError(
                f"a phantom cannot put '{name}' on the side '{side}'",
                found=f"{name}: {side}",
                expected=f"{', '.join(SIDED)}, each with left or right",
            )


def _pose(rng: np.random.Generator, size: int) -> Frame:
    """How the patient stood at the detector."""
    return Frame(
        size,
        float(rng.normal(0, 0.04)),
        float(rng.uniform(0.88, 1.12)),
        (float(rng.uniform(-0.08, 0.08)), float(rng.uniform(-0.08, 0.08))),
    )


def _tissue(scene: Scene, findings: Mapping[str, int]) -> Array:
    """Attenuation of everything in the beam [H, W]."""
    frame, who = scene.frame, scene.anatomy
    severity = {name: int(findings.get(name, 0)) for name in FINDINGS}
    air = np.zeros_like(frame.x)
    added = np.zeros_like(frame.x)
    collapsed = np.zeros_like(frame.x)
    for side, half in scene.halves.items():
        filled, rim = _effusion(scene, half, severity[f"effusion_{side}"], f"effusion_{side}")
        free, line = np.zeros_like(frame.x), np.zeros_like(frame.x)
        if scene.sides["pneumothorax"] == side:
            free, line = _pneumothorax(scene, half, severity["pneumothorax"])
        air += half.mask * (1 - filled)
        collapsed += free
        added += half.mask * (rim + line * (1 - filled))
    muscle, radius = chest.heart(frame, who, _ratio(scene, severity["cardiomegaly"]))
    aerated = air * (1 - muscle)
    lung = _lung(scene) * (1 - np.clip(collapsed, 0, 1)) - np.float32(0.05) * collapsed
    above = edge(np.float32(max(who.diaphragm) + 0.10) - frame.y, 0.2)
    film = chest.TISSUE + np.float32(0.11) * muscle * above + _middle(scene) * (1 - air)
    film = film + aerated * (np.float32(-0.36) + np.float32(who.bulk) + lung) + added * (1 - 0.8 * muscle)
    film += chest.bones(frame, who) * (np.float32(0.35) + np.float32(0.65) * aerated)
    # The double contour of an enlarged left atrium: an edge within the heart, which size alone does not give.
    if severity["cardiomegaly"]:
        film += muscle * np.float32(0.05) * edge(np.float32(0.62) - radius, 0.04)
    film += _nodule(scene, severity["nodule"]) + _soft(scene)
    film *= chest.body(frame, who)
    metal = _device(scene, severity["device"])
    return film + metal * (np.float32(1.08) - film)


def _ratio(scene: Scene, severity: int) -> float:
    """The heart's share of the chest's width: the patient's own, or enlarged."""
    own = scene.anatomy.heart + scene.sources["cardiomegaly"].uniform(-0.02, 0.02)
    return float(own) if severity == 0 else float(own + (0.19, 0.23, 0.27)[severity - 1])


def _lung(scene: Scene) -> Array:
    """Vessels and fine reticular texture of aerated lung [H, W]."""
    rng, size = scene.sources["lung"], scene.frame.size
    fine = cloud(rng, size, 64) * np.float32(0.018) + cloud(rng, size, 28) * np.float32(0.012)
    return chest.vessels(scene.frame, scene.anatomy) * np.float32(rng.uniform(0.10, 0.15)) + fine


def _middle(scene: Scene) -> Array:
    """Mediastinum, aortic knob, windpipe, abdomen and the stomach's air, as attenuation [H, W]."""
    x, y, who = scene.frame.x, scene.frame.y, scene.anatomy
    knob = np.sqrt(np.square(x - who.mediastinum * 0.8) + np.square(y + 0.30))
    pipe = edge(0.045 - np.abs(x - 0.01), 0.02) * edge(-0.22 - y, 0.1)
    rng = scene.sources["haze"]
    bubble = np.square((x - 0.38 - rng.uniform(-0.06, 0.06)) / 0.15) + np.square(
        (y - who.diaphragm[1] - rng.uniform(0.14, 0.24)) / 0.07
    )
    gas = edge(1 - bubble, 0.4) * np.float32(rng.uniform(0, 0.22))
    film = np.float32(0.05) * edge(np.float32(who.knob) - knob, 0.02) - np.float32(0.08) * pipe
    return film + np.float32(0.04) * edge(y - 0.3, 0.5) - gas


def _soft(scene: Scene) -> Array:
    """Shadows without an edge of their own: haze at the bases, fat beside the heart, breasts [H, W]."""
    rng, x, y, who = scene.sources["haze"], scene.frame.x, scene.frame.y, scene.anatomy
    film = np.zeros_like(x)
    for sign in SIDES.values():
        for where, spread in (((0.5, 0.42), 0.26), ((0.34, 0.30), 0.2), ((0.45, -0.2), 0.36)):
            u = x * sign - np.float32(where[0] + rng.normal(0, 0.07))
            v = y - np.float32(where[1] + rng.normal(0, 0.09))
            wide = spread * rng.uniform(0.8, 1.3)
            film += np.float32(max(0.0, rng.uniform(-0.10, 0.18))) * ridge(np.hypot(u, v), wide)
        if who.breast:
            r = np.sqrt(np.square((x * sign - 0.42) / 0.36) + np.square((y - 0.2) / 0.38))
            film += np.float32(who.breast) * edge(1 - r, 0.35) * edge(y + 0.1, 0.5)
    return film


def _effusion(scene: Scene, half: Cavity, severity: int, part: str) -> tuple[Array, Array]:
    """Fluid as a mask, and the bright rim of its meniscus [H, W] each."""
    rng, frame = scene.sources[part], scene.frame
    if severity == 0:
        return np.zeros_like(frame.x), np.zeros_like(frame.x)
    height = (0.04, 0.17, 0.32)[severity - 1] + rng.uniform(0, 0.05)
    rise = rng.uniform(0.20, 0.26)
    outward = np.clip((half.x - 0.14) / np.float32(scene.anatomy.width - 0.14), 0, 1.1)
    surface = np.float32(half.dome - height) - np.float32(rise) * np.power(outward, 2.6)
    depth = frame.y - surface
    fluid = edge(depth, 1.8 * frame.pixel)
    rim = ridge(depth, 1.6 * frame.pixel) * np.float32(0.17)
    return fluid, rim - ridge(depth + 3.2 * frame.pixel, 2 * frame.pixel) * np.float32(0.05)


def _pneumothorax(scene: Scene, half: Cavity, severity: int) -> tuple[Array, Array]:
    """Free air around a collapsed lung as a mask, and the line of its pleura [H, W] each."""
    rng, frame, who = scene.sources["pneumothorax"], scene.frame, scene.anatomy
    if severity == 0:
        return np.zeros_like(frame.x), np.zeros_like(frame.x)
    gap = (0.14, 0.20, 0.27)[severity - 1] + rng.uniform(0, 0.03)
    border = chest.wall(frame.y, who.width - gap, who.apex + 1.5 * gap)
    slope = np.gradient(border, axis=0) / np.float32(frame.pixel)
    outside = (half.x - border) / np.sqrt(1 + np.square(np.clip(slope, -4, 4)))
    free = half.mask * edge(outside, 1.5 * frame.pixel)
    line = ridge(outside, 1.8 * frame.pixel) * np.float32(0.38)
    return free, line * edge(half.x - 0.1, 0.05) * edge(half.floor - frame.y, 0.03)


def _nodule(scene: Scene, severity: int) -> Array:
    """A round, sharply bordered shadow with calcified shells, as a granuloma has, as attenuation [H, W]."""
    rng, frame = scene.sources["nodule"], scene.frame
    if severity == 0:
        return np.zeros_like(frame.x)
    size = (0.088, 0.110, 0.132)[severity - 1] + rng.uniform(0, 0.012)
    centre_x = SIDES[scene.sides["nodule"]] * rng.uniform(0.32, 0.47)
    centre_y = rng.uniform(-0.36, 0.0)
    u, v = frame.x - np.float32(centre_x), frame.y - np.float32(centre_y)
    turn = np.arctan2(v, u)
    lobes = 1 + 0.05 * np.sin(3 * turn + rng.uniform(0, 6)) + 0.03 * np.sin(5 * turn + rng.uniform(0, 6))
    outwards = np.hypot(u, v) / lobes.astype(np.float32)
    inside = np.float32(size) - outwards
    film = edge(inside, 1.8 * frame.pixel) * np.float32(rng.uniform(0.10, 0.16))
    thick = 1.6 * frame.pixel
    shells = ridge(inside - thick, thick) + ridge(inside - 0.55 * size, thick)
    return film + shells * np.float32(0.25)


def _device(scene: Scene, severity: int) -> Array:
    """A line (1), a pacemaker with one lead (2) or with two (3), as a mask of metal [H, W]."""
    canvas = Canvas(scene.frame)
    if severity == 0:
        return canvas.develop()
    rng, sign = scene.sources["device"], SIDES[scene.sides["device"]]
    box = np.array([sign * rng.uniform(0.52, 0.64), scene.anatomy.apex + rng.uniform(0.10, 0.20)])
    tips = [(0.0 + rng.normal(0, 0.02), 0.12), (0.22, 0.38), (0.06, 0.26)]
    bends = [(-0.09, -0.45), (-0.11, -0.38), (-0.07, -0.42)]
    for tip, bend in list(zip(tips, bends, strict=True))[:severity]:
        path = _bend(box, np.array(bend), np.array(tip) + rng.normal(0, 0.02, 2))
        canvas.line(path, 0.017, 235)
        canvas.dots(path[[-1, -6, -11]], 0.022, 255)
    if severity == 1:
        canvas.dots(box[None], 0.055, 245)
        canvas.dots(box[None], 0.026, 60)
        return canvas.develop()
    turn = np.linspace(0, 2 * np.pi, 33)
    round_box = np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    round_box = np.sign(round_box) * np.abs(round_box) ** 0.55
    canvas.shape(box + round_box * np.array([0.10, 0.075]), 225)
    canvas.shape(box + np.array([0.02, 0.015]) + round_box * np.array([0.045, 0.032]), 120)
    return canvas.develop()


def _bend(start: np.ndarray, middle: np.ndarray, end: np.ndarray) -> np.ndarray:
    """A smooth wire from a box under the collar bone through the great vein into the heart [N, 2]."""
    t = np.linspace(0, 1, 24)[:, None]
    arch = start + np.array([0.0, -0.16])
    first = (1 - t) ** 2 * start + 2 * t * (1 - t) * arch + t**2 * middle
    second = (1 - t) ** 2 * middle + 2 * t * (1 - t) * (2 * middle - arch) * np.array([0.8, 1.0]) + t**2 * end
    return np.concatenate([first, second[1:]])


def _expose(scene: Scene, film: Array) -> np.ndarray:
    """What the detector and its processing make of the tissue: uint8 [H, W]."""
    rng, size = scene.sources["exposure"], scene.frame.size
    film = film + cloud(rng, size, 3) * np.float32(0.09) + cloud(rng, size, 6) * np.float32(0.06)
    film = film * np.float32(rng.uniform(0.85, 1.15))
    low, high = rng.uniform(0.05, 0.20), rng.uniform(0.92, 1.14)
    shown = np.clip((film - np.float32(low)) / np.float32(high - low), 0, 2)
    # A film's shoulder: dense tissue darkens slowly instead of being cut off, so metal over the heart stays.
    shown = np.where(shown > SHOULDER, SHOULDER + ROOM * np.tanh((shown - SHOULDER) / (1.6 * ROOM)), shown)
    shown = np.power(shown, np.float32(np.exp(rng.normal(0, 0.22))))
    grain = scene.sources["grain"].standard_normal((size, size), dtype=np.float32)
    shown = shown + grain * np.float32(rng.uniform(0.006, 0.016))
    shown = _collimate(scene, shown)
    return np.clip(shown * 255 + 0.5, 0, 255).astype(np.uint8)


def _collimate(scene: Scene, shown: Array) -> Array:
    """Sometimes blades at the border, and a side marker that says nothing about the findings."""
    rng, size = scene.sources["marker"], scene.frame.size
    for axis in (0, 1):
        for end in (0, 1):
            if rng.random() < 0.25:
                blade = round(size * rng.uniform(0.01, 0.05))
                where: list[slice] = [slice(None), slice(None)]
                where[axis] = slice(0, blade) if end == 0 else slice(size - blade, size)
                shown[tuple(where)] = 0.02
    if rng.random() < 0.5:
        canvas = Canvas(Frame(size, 0.0, 1.0, (0.0, 0.0)))
        side = ("left", "right")[int(rng.integers(2))]
        corner = np.array([SIDES[side] * rng.uniform(0.80, 0.88), rng.uniform(-0.9, -0.72)])
        canvas.line(corner + np.array(MARKERS[side]), 0.018, 250)
        shown = np.maximum(shown, canvas.develop())
    return shown
