"""A tiny UMBRELLA: SigLIP tower of 16 channels and two layers, patches of volumes, Llama; and generated volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import models
from sightline import runs
from sightline.images.brain import Brain, draw
from sightline.images.formats import nifti
from sightline.images.volume import turn
from sightline.models import checkpoint
from sightline.models.family import Bundle
from sightline.types import ImageRef

T1 = {"size": (8, 8, 8), "patch": (4, 4, 4)}  # 8 tokens
FMRI = {"size": (8, 8, 8), "patch": (4, 4, 8), "times": 4, "time_patch": 2}  # 8 tokens
BOTH = {"t1": T1, "fmri": {**FMRI, "times": 6}}  # 8 and 12 tokens


def section(language: Path, patches: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    plain = models.section(language, models.SIGLIP, select="full", family="umbrella")
    return {**plain, "patches": patches or BOTH, **more}


def bundle(language: Path, patches: dict[str, Any] | None = None, seed: int = 0, **more: Any) -> Bundle:
    return checkpoint.compose(section(language, patches, **more), seed)


def head(
    root: Path, name: str, brain: Brain, *, times: int = 0, stored: str = "RAS", seed: int = 0
) -> ImageRef:
    """A generated head as a file, with its hash."""
    root.mkdir(parents=True, exist_ok=True)
    made = draw(brain, np.random.default_rng(seed), size=8, times=times)
    nifti.write(root / name, turn(made, stored))
    kind = "fMRI" if times else "sMRI"
    return ImageRef(path=name, sha256=runs.hash_file(root / name), kind=kind, form="volume")
