"""How near answers are to their images, to an image-text encoder: the cosine of the two embeddings.

Seed 1 tunes an encoder (SigLIP) on the images and reports that its decoder is taught on, and judges answers by it. The
encoder is not run here: `evaluate` writes its similarities beside the answers, as attributes, and this metric counts
them, so that a score can be computed again without a model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import DataError
from ..types import Prediction
from .measure import Measure, Metric, average, mean, rows, written

SAID, RIGHT = "similarity", "similarity_right"  # attributes: of the answer, and of the right answer


def similarity(
    predictions: Sequence[Prediction], *, encoder: str = "", report: str = "report"
) -> list[Measure]:
    """Mean cosine of images and answers, of report turns, or of open answers where there are no reports.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        encoder: the `contrast` stage, or folder of a saved encoder, that `evaluate` asks; no matter once it has.
        report: the topic of turns that ask for a report.

    Returns:
        `image_text_similarity`, from -1 to 1, whose part `of_the_truth` is that of the right answers; and
        `similarity_gap`, the first minus the second. Nothing where no encoder was asked.

    Raises:
        DataError: no predictions, a turn answered twice, or a similarity that is none.
    """
    turns = [p for p in written(rows(predictions), report) if SAID in p.attributes and RIGHT in p.attributes]
    if not turns:
        return []
    said, right = (np.array([_cosine(p, name) for p in turns]) for name in (SAID, RIGHT))
    doc = "mean cosine of the embeddings of image and answer, by the project's own encoder"
    return [
        mean("image_text_similarity", turns, said, parts={"of_the_truth": average(right)}, doc=doc),
        mean("similarity_gap", turns, said - right, doc="the same minus that of the right answers"),
    ]


def _cosine(turn: Prediction, name: str) -> float:
    """A similarity that stands beside an answer.

    Raises:
        DataError: it is none.
    """
    try:
        found = float(turn.attributes[name])
    except ValueError:
        found = np.nan
    if not -1.001 <= found <= 1.001:
        raise DataError(
            "a similarity is not one", where=f"sample {turn.sample}, turn {turn.turn}, attribute {name}",
            found=repr(turn.attributes[name][:40]), expected="a cosine from -1 to 1",
        )  # fmt: skip
    return found


METRIC = Metric(
    score=similarity, paper="seed 1 (SigLIP, arXiv:2303.15343, and Mllama): similarity of image and answer"
)
