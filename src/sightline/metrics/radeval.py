"""Model-based labels of reports by the package RadEval: CheXbert's 14 findings, and RadGraph's entities and relations.

RadEval (arXiv:2509.18030) holds the code of both; their weights are fetched by it from a hub when they are first used,
under licences of their own. Nothing is fetched here: the weights must lie in its caches before, or the error says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from ..errors import MissingExtra, SightlineError
from ..types import Prediction
from .label_f1 import f1_measures
from .measure import Measure, Metric, average, keys, patients, rows

LEVELS = ("simple", "partial", "complete")


def radeval(
    predictions: Sequence[Prediction],
    *,
    scorer: Literal["chexbert", "radgraph"] = "chexbert",
    device: str = "cpu",
    report: str = "report",
) -> list[Measure]:
    """Findings of report turns against those of their references, by a model.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        scorer: whose labels.
        device: where CheXbert runs; RadGraph chooses for itself.
        report: the topic of turns that ask for a report.

    Returns:
        `chexbert_f1` with its `_5`, `_micro` and `_weighted` (doubt counts as present, as RadEval does), or
        `radgraph_simple`, `radgraph_partial` and `radgraph_complete`. Nothing where there is no report.

    Raises:
        DataError: no predictions, or a turn answered twice.
        MissingExtra: RadEval is not installed.
        SightlineError: its weights are not here.
    """
    turns = [p for p in rows(predictions) if p.topic == report]
    if not turns:
        return []
    right, said = [p.answer for p in turns], [p.text for p in turns]
    if scorer == "chexbert":
        names, labels = _ran("chexbert", lambda: _chexbert([*right, *said], device))
        return f1_measures(
            turns,
            labels[: len(turns)],
            labels[len(turns) :],
            names,
            prefix="chexbert",
            by="CheXbert in RadEval",
        )
    scores = _ran("radgraph", lambda: _radgraph(right, said))
    return [
        Measure(
            name=f"radgraph_{level}", statistic=average(scores[level]), keys=keys(turns), patients=patients(turns),
            per_sample=scores[level], doc=f"mean RadGraph F1 ({level}), radgraph-xl in RadEval",
        )
        for level in LEVELS
    ]  # fmt: skip


def _chexbert(texts: Sequence[str], device: str) -> tuple[list[str], np.ndarray]:
    """The names of the labels, and whether each text has each, [n, 14]; an empty text has none."""
    from radeval.metrics.f1chexbert.f1chexbert import F1CheXbert

    labeller = F1CheXbert(device=device)
    names = [str(name).lower().replace(" ", "_") for name in labeller.TARGET_NAMES]
    labels = np.array(labeller.get_labels([text or " " for text in texts]), dtype=bool)
    labels[[not text.strip() for text in texts]] = False
    return names, labels


def _radgraph(right: Sequence[str], said: Sequence[str]) -> dict[str, np.ndarray]:
    """F1 of each pair on each level; an empty answer scores 0."""
    from radeval import RadEval

    found = RadEval(metrics=["radgraph"], per_sample=True, show_progress=False)(
        refs=[text or " " for text in right], hyps=[text or " " for text in said]
    )
    full = np.array([bool(text.strip()) for text in said], dtype=float)
    return {level: np.asarray(found[f"radgraph_{level}"], dtype=float) * full for level in LEVELS}


def _ran(name: str, work: Callable[[], Any]) -> Any:
    """A result of RadEval, or an error that says what is missing.

    Raises:
        MissingExtra: RadEval, or a package of its own, is not installed.
        SightlineError: it could not open its weights.
    """
    try:
        return work()
    except ImportError as error:
        raise MissingExtra(error.name or "radeval", "clinical") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise SightlineError(
            f"RadEval could not run {name}",
            found=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200],
            expected="its weights in the caches of huggingface_hub and appdirs; nothing is fetched here",
            remedy=f"run RadEval's {name} once on a machine with a network and copy its caches here, or use the metric "
            "chexpert, which needs no weights",
        ) from error


METRIC = Metric(
    score=radeval,
    version=1,
    needs_model=True,
    paper="Xu et al. 2025 (RadEval), arXiv:2509.18030; Smit et al. 2020; Jain et al. 2021",
)
