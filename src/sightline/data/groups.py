"""Groups of generated patients: drawn attributes, and groups whose pictures are harder, so that gaps are known.

    subgroups: {site: {north: {share: 0.7}, south: {contrast: 0.4, noise: 0.05}}, gender: {F: {}, M: {}}}

A patient's group is a function of the seed, the patient and the attribute, and changes nothing else: of a group that is
not harder, every picture is what it would be without groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import RecipeError

HARDER = {"contrast": 1.0, "noise": 0.0}  # what leaves a picture as it is
KEYS = ("share", *HARDER, "prevalence")
OWN = ("age", "sex", "exposure")
Spec = Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The groups of one patient, and what they do.

    Args:
        attributes: group by attribute.
        contrast: factor on the distance of every pixel from the picture's mean.
        noise: standard deviation of normal noise on top, in units of full brightness.
        prevalence: chance of each finding; None for that of all patients.
    """

    attributes: Mapping[str, str] = field(default_factory=dict)
    contrast: float = 1.0
    noise: float = 0.0
    prevalence: float | None = None

    def shown(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """A picture as this group's detector takes it, uint8 [H, W]; the same array where nothing is harder."""
        if self.contrast == 1 and not self.noise:
            return pixels
        mean = float(pixels.mean())
        made = mean + self.contrast * (pixels - mean)
        made = made + 255 * self.noise * random.standard_normal(pixels.shape)
        taken: np.ndarray = np.clip(made + 0.5, 0, 255).astype(np.uint8)
        return taken


ALL = Group()


def check(spec: Spec) -> None:
    """Refuse groups that cannot be drawn.

    Args:
        spec: attribute -> group -> `share` (weight, 1 where it is left out), and of one attribute's groups
            `contrast`, `noise` and `prevalence`.

    Raises:
        RecipeError: with every fault.
    """
    faults = [fault for name, groups in spec.items() for fault in _faults(name, groups)]
    harder = [name for name, groups in spec.items() if any(set(KEYS[1:]) & set(g) for g in groups.values())]
    if len(harder) > 1:
        faults.append(f"{' and '.join(harder)} both differ: of one attribute only, or no gap would be known")
    if faults:
        raise RecipeError(
            "the `subgroups` of the reader 'phantom' do not fit", where="; ".join(faults),
            expected="attribute: {group: {share: 0.5, contrast: 0.4, noise: 0.05, prevalence: 0.2}, ...}",
        )  # fmt: skip


def _faults(name: str, groups: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What is wrong with the groups of one attribute."""
    found = []
    if name in OWN or name.startswith(("severity_", "side_", "box_")):
        found.append(f"{name}: the reader gives this attribute itself")
    if len(groups) < 2:
        found.append(f"{name}: fewer than two groups")
    limits = {"share": 1e9, "contrast": 4.0, "noise": 1.0, "prevalence": 1.0}
    for group, each in groups.items():
        found += [
            f"{name}.{group}.{key}: expected one of {', '.join(KEYS)}" for key in each if key not in KEYS
        ]
        found += [
            f"{name}.{group}.{key}={each[key]:g}: expected 0 to {limits[key]:g}"
            for key in KEYS
            if key in each and not 0 <= each[key] <= limits[key]
        ]
    if groups and not sum(max(0.0, each.get("share", 1.0)) for each in groups.values()) > 0:
        found.append(f"{name}: no group has a share")
    return found


def group_of(spec: Spec, random: Mapping[str, np.random.Generator]) -> Group:
    """The groups of one patient.

    Args:
        spec: sound groups.
        random: a source of its own for each attribute.
    """
    if not spec:
        return ALL
    told: dict[str, str] = {}
    effects: dict[str, Any] = {}
    for name, groups in spec.items():
        shares = np.array([each.get("share", 1.0) for each in groups.values()])
        place = int(np.searchsorted(np.cumsum(shares / shares.sum()), random[name].random(), side="right"))
        told[name] = list(groups)[min(place, len(groups) - 1)]
        effects |= {key: value for key, value in groups[told[name]].items() if key != "share"}
    return Group(attributes=told, **effects)
