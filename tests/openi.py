"""The 3955 real reports of the Indiana University collection with their MeSH terms, where their package is installed.

They are read in place from `torchxrayvision` (its file `NLMCXR_reports.tgz`, CC BY-NC-ND 4.0, Demner-Fushman et al.
2016, doi:10.1093/jamia/ocv080) and never copied.
"""

from __future__ import annotations

import hashlib
import importlib.util
import random
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest
from defusedxml import ElementTree

from sightline.types import Prediction

PACKAGE = importlib.util.find_spec("torchxrayvision")
ARCHIVE = (
    Path(PACKAGE.submodule_search_locations[0], "data/NLMCXR_reports.tgz")
    if PACKAGE and PACKAGE.submodule_search_locations
    else Path("absent")
)
needed = pytest.mark.skipif(
    not ARCHIVE.is_file(), reason="the package torchxrayvision is not installed: no real reports here"
)


MESH = {
    "enlarged_cardiomediastinum": r"Mediastinum/.*(?:prominent|enlarged)",
    "cardiomegaly": r"Cardiomegaly|Cardiac Shadow/.*(?:enlarged|borderline|prominent)"
    r"|Heart (?:Ventricles|Atria)/.*(?:enlarged|prominent)",
    "lung_lesion": r"(?:Nodule|Mass)(?!/(?:breast|mediastinum))|(?:Opacity|Density)/.*round|Lung Neoplasms|Cavitation",
    "lung_opacity": r"Opacity|Density/(?:lung|retrocardiac)|Airspace Disease|Infiltrate|Markings/lung.*interstitial"
    r"|Lung/.*interstitial|Lung Diseases, Interstitial|Pulmonary Fibrosis|Cicatrix(?!/(?:pleura|costophrenic))",
    "edema": r"Pulmonary Edema|Pulmonary Congestion|Heart Failure",
    "consolidation": r"Consolidation",
    "pneumonia": r"Pneumonia",
    "atelectasis": r"Pulmonary Atelectasis",
    "pneumothorax": r"Pneumothorax|Hydropneumothorax|Hemopneumothorax",
    "pleural_effusion": r"Pleural Effusion|Hydropneumothorax|Hemopneumothorax|Hemothorax",
    "pleural_other": r"Thickening/.*pleura|Cicatrix/pleura|Pleura/|Calcinosis/pleura|Pleural Diseases",
    "fracture": r"Fractures, Bone",
    "support_devices": r"Catheters, Indwelling|Implanted Medical Device|Medical Device|Tube, Inserted|Stents"
    r"|Spinal Fusion|Breast Implants",
}
"""The MeSH terms (from their beginning) that stand for each finding, after the CheXpert labeller's definitions."""
UNREAD = "No Indexing"


@dataclass(frozen=True, slots=True)
class Real:
    """One report: its id, its text (findings, then impression), and what a reader of MeSH terms said of it."""

    id: str
    text: str
    mesh: tuple[str, ...]


@lru_cache
def reports() -> tuple[Real, ...]:
    """All of them by id; a report without findings and impression has an empty text."""
    found = []
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            if member.name.endswith(".xml"):
                root = ElementTree.parse(archive.extractfile(member)).getroot()
                parts = {a.get("Label"): (a.text or "").strip() for a in root.iter("AbstractText")}
                text = " ".join(t for t in (parts.get("FINDINGS"), parts.get("IMPRESSION")) if t)
                mesh = tuple(term.text.strip() for term in root.iter("major") if term.text)
                found.append(Real(root.find("uId").get("id"), text.replace("\n", " "), mesh))
    return tuple(sorted(found, key=lambda real: real.id))


def truth(terms: Iterable[str]) -> dict[str, bool]:
    """Whether MeSH terms hold each finding; `no_finding` where they hold none but devices."""
    terms = list(terms)
    held = {name: any(re.match(pattern, term) for term in terms) for name, pattern in MESH.items()}
    return held | {"no_finding": not any(has for name, has in held.items() if name != "support_devices")}


def half(real: Real) -> str:
    """`written` for the half on which the labeller's rules were written, `held out` for the other."""
    return "held out" if int(hashlib.sha256(real.id.encode()).hexdigest(), 16) % 2 else "written"


def neighbours(count: int | None = None, seed: int = 0) -> list[Prediction]:
    """Each report answered by its neighbour in a shuffled order: as wrong as a model that writes some report."""
    order = list(reports())
    random.Random(seed).shuffle(order)
    order = order[:count]
    return [
        Prediction(
            sample=one.id, patient=one.id, turn=0, question="Describe the findings.", answer=one.text, text=other.text,
            topic="report",
        )
        for one, other in zip(order, [*order[1:], order[0]], strict=True)
    ]  # fmt: skip
