"""Which index an image belongs to: multinomial logistic regression on the encoder's image embeddings.

MMed-RAG (Xia et al. 2024, arXiv 2410.13085) fine-tunes a small classifier for this and releases none. Here it is
taught on the images of the indexes themselves: each domain counts alike, whatever its size, and a ridge makes the
optimum unique, so that it is the same wherever it is found (L-BFGS in float64).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn import functional

from .. import runs
from ..errors import RunError

RIDGE = 1e-3
STEPS = 200
HELD_OUT = 5  # one image in so many is kept for testing
WEIGHTS, ABOUT = "domain.safetensors", "domain.json"


@dataclass(frozen=True)
class Router:
    """A fitted classifier.

    Args:
        names: domains, in the order of the rows of `weight`.
        weight: float64 [domains, width].
        bias: float64 [domains].
    """

    names: tuple[str, ...]
    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, embeddings: np.ndarray) -> list[str]:
        """The domain of each image, from embeddings [n, width]; of equals the first by name."""
        scores = embeddings.astype(np.float64) @ self.weight.T + self.bias  # [n, domains]
        return [self.names[i] for i in scores.argmax(axis=1)]

    def save(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write the classifier into a folder, with facts about it."""
        made = {"weight": torch.from_numpy(self.weight), "bias": torch.from_numpy(self.bias)}
        save_file(made, folder / WEIGHTS)
        runs.write_json(folder / ABOUT, {"names": list(self.names), **facts})

    @classmethod
    def load(cls, folder: Path) -> Router:
        """Read what `save` wrote.

        Raises:
            RunError: a file is missing or damaged.
        """
        names = runs.read_json(folder / ABOUT)["names"]
        try:
            held = {name: value.numpy() for name, value in load_file(folder / WEIGHTS).items()}
            return cls(tuple(names), held["weight"], held["bias"])
        except (OSError, SafetensorError, KeyError) as error:
            raise RunError(
                "the domain classifier is damaged", where=str(folder / WEIGHTS), found=type(error).__name__
            ) from error


def fit(embeddings: Mapping[str, np.ndarray], *, ridge: float = RIDGE) -> Router:
    """Fit a classifier.

    Args:
        embeddings: domain -> image embeddings [n, width], n at least 1.
        ridge: half of it times the squared weights is added to the mean loss.
    """
    names = tuple(sorted(embeddings))
    inputs = torch.from_numpy(np.concatenate([embeddings[n] for n in names]).astype(np.float64))
    sizes = torch.tensor([len(embeddings[n]) for n in names])
    labels = torch.repeat_interleave(torch.arange(len(names)), sizes)
    share = (1.0 / (len(names) * sizes.double()))[labels]  # each domain weighs the same
    solved = torch.zeros(len(names), inputs.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS(
        [solved], max_iter=STEPS, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        solver.zero_grad()
        scores = inputs @ solved[:, :-1].T + solved[:, -1]  # [n, domains]
        value = (functional.cross_entropy(scores, labels, reduction="none") * share).sum()
        value = value + 0.5 * ridge * solved[:, :-1].square().sum()
        value.backward()
        return value

    solver.step(loss)
    made = solved.detach().numpy()
    return Router(names, made[:, :-1].copy(), made[:, -1].copy())


def held_out(embeddings: Mapping[str, np.ndarray], seed: int) -> float | None:
    """Accuracy on a fifth of the images of a classifier taught on the others, the mean over domains.

    None where no domain has five images.
    """
    tested, taught = {}, {}
    for name, rows in embeddings.items():
        order = sorted(range(len(rows)), key=lambda i: runs.digest(str(seed), "domain", name, str(i)))
        count = len(rows) // HELD_OUT
        tested[name], taught[name] = rows[order[:count]], rows[order[count:]]
    router = fit(taught)
    right = [np.mean([said == name for said in router(rows)]) for name, rows in tested.items() if len(rows)]
    return float(np.mean(right)) if right else None
