"""What each degradation leaves to be read: slow, and the source of the figures in docs/degradations.md."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from sightline.images import degrade
from sightline.images.anatomy import grow
from sightline.images.phantom import FINDINGS, draw
from sightline.models import kit
from sightline.models.parts.efficientnet_lite import EfficientNetLiteModel
from sightline.types import Degrade

SMALL = ("nodule", "pneumothorax", "device")
Read = Callable[[Degrade | None], dict[str, float]]


@pytest.fixture(scope="module")
def reads() -> Read:
    """Spoils 900 generated pictures and says how well each finding can be told from them (area under the curve).

    A ridge regression on the kit tower's features, taught on 650 pictures spoiled in the same way, tested on 250.
    """
    tower = EfficientNetLiteModel.from_pretrained(kit.folder("efficientnet-lite0")).eval()
    pictures, truth = [], np.zeros((900, len(FINDINGS)), bool)
    for number in range(900):
        rng = np.random.default_rng([7, number])
        severity = {f: int(rng.integers(1, 4)) if rng.random() < 0.4 else 0 for f in FINDINGS}
        pictures.append(draw(rng, severity, anatomy=grow(rng)).astype(np.float32) / 255)
        truth[number] = [severity[f] > 0 for f in FINDINGS]

    @torch.inference_mode()
    def features(spec: Degrade | None) -> np.ndarray:
        rows = []
        for number, grey in enumerate(pictures):
            image = np.repeat(grey[:, :, None], 3, axis=2)
            shown = image if spec is None else degrade.apply(image, spec, f"r{number}")
            patches = tower(torch.from_numpy(shown).permute(2, 0, 1)[None] * 2 - 1).last_hidden_state
            side = round(patches.shape[1] ** 0.5)
            grid = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2)
            rows.append(torch.nn.functional.adaptive_avg_pool2d(grid, 3).flatten().numpy())
        return np.array(rows)

    def read(spec: Degrade | None) -> dict[str, float]:
        rows = features(spec)
        rows = (rows - rows[:650].mean(0)) / (rows[:650].std(0) + 1e-6)
        kernel = rows @ rows[:650].T / rows.shape[1]
        target = truth[:650] - truth[:650].mean(0)
        said = kernel[650:] @ np.linalg.solve(kernel[:650] + 0.3 * np.eye(650), target)
        return {
            finding: float(0.5 + 0.5 * np.sign(said[there, j][:, None] - said[~there, j]).mean())
            for j, (finding, there) in enumerate(zip(FINDINGS, truth[650:].T, strict=True))
        }

    return read


# Kind, strength, and the means over all findings and over the small ones.
READ: list[tuple[str, float, float, float]] = [
    ("clean", 0.0, 0.99, 0.98),
    ("gaussian", 0.2, 0.96, 0.93),
    ("gaussian", 1.0, 0.60, 0.56),
    ("replace", 1.0, 0.50, 0.49),
    ("black", 1.0, 0.50, 0.50),
    ("diffusion", 0.5, 0.96, 0.95),
    ("diffusion", 1.0, 0.78, 0.74),
    ("diffusion", 1.5, 0.55, 0.52),
    ("crop", 0.5, 0.98, 0.99),
    ("crop", 1.0, 0.70, 0.72),
    ("blur", 0.25, 0.92, 0.87),
    ("blur", 0.5, 0.74, 0.60),
    ("blur", 1.0, 0.64, 0.49),
    ("poisson", 1.0, 0.99, 0.97),
    ("poisson", 10.0, 0.92, 0.88),
    ("poisson", 100.0, 0.61, 0.57),
    ("jpeg", 0.8, 0.99, 0.98),
    ("jpeg", 1.0, 0.98, 0.98),
    ("jpeg", 1.1, 0.93, 0.90),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "strength", "all_", "small"), READ)
def test_what_can_still_be_read(kind: str, strength: float, all_: float, small: float, reads: Read) -> None:
    """The figures of docs/degradations.md."""
    areas = reads(None if kind == "clean" else Degrade(kind=kind, strength=strength))
    assert abs(np.mean(list(areas.values())) - all_) < 0.02
    assert abs(np.mean([areas[finding] for finding in SMALL]) - small) < 0.02
