"""How sure models are: their calibration for the report, and the confidence below which they should abstain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .. import stats
from ..metrics import calibration
from ..metrics.calibration import Sure
from ..metrics.measure import Measure, average, keys, patients, ratio, rows, tally
from ..settings import Abstain
from ..types import Prediction, Score

SHOWN_BINS = 10
MOST_POINTS = 100


def calibrated(made: Sequence[Prediction], seed: int, resamples: int) -> dict[str, Any]:
    """What the report shows of one model's answers that were picked among choices; empty where there are none.

    Returns:
        `n`, `patients`; `measures` {name: {value, low, high}}; `bins`, of equally many answers, each with `confidence`,
        `accuracy`, `low`, `high` and `n`; and `curve`, pairs of coverage and risk.
    """
    found = calibration.picks(rows(made))
    if not len(found.turns):
        return {}
    measures = [m for m in calibration.calibration(made) if m.name != "aurc_open"]
    points = calibration.risk_coverage(found.confidence, found.right)
    kept = sorted({round(i) for i in np.linspace(0, len(points) - 1, min(len(points), MOST_POINTS))})
    return {
        "n": len(found.turns),
        "patients": len(set(patients(found.turns))),
        "measures": {m.name: _plain(stats.score(m, seed=seed, resamples=resamples)) for m in measures},
        "bins": _bins(found, seed, resamples),
        "curve": [[round(x, 6), round(y, 6)] for x, y in (points[i] for i in kept)],
    }


def thresholds(
    held: Mapping[str, Sequence[Prediction]],
    made: Mapping[str, Sequence[Prediction]],
    wanted: Abstain,
    seed: int,
    resamples: int,
) -> dict[str, Any]:
    """A threshold for every model, with what it promises and what it does on the test split.

    Args:
        held: model -> answers to clean images of the split that it is calibrated on.
        made: model -> answers to clean images of the test split.
        wanted: how often an answer that is given may be wrong.
        seed: of the intervals.
        resamples: of the intervals.

    Returns:
        `alpha`, `split`, `rule`, and `models`: the fields of `stats.Threshold`, `of` (`choices` or `sequence`: which
        confidence is meant), `promise`, and `test` with `answered`, `wrong` (shares of a patient's questions, on
        average), `error` (share of the given answers that are wrong), each with its interval, and `kept`.

    Raises:
        DataError: a model has no answers with a confidence.
    """
    models = {}
    for name, each in held.items():
        of, known = _confident(each)
        found = stats.abstain(known.confidence, known.right, patients(known.turns), wanted.alpha)
        _, asked = _confident(made[name], of)
        test = _tested(found, asked, seed, resamples)
        models[name] = {**asdict(found), "of": of, "promise": found.promise, "test": test}
    rule = "an answer is given if its confidence is above the threshold"
    return {"alpha": wanted.alpha, "split": wanted.split, "rule": rule, "models": models}


def _confident(made: Sequence[Prediction], of: str = "") -> tuple[str, Sure]:
    """Answers with a confidence, and of which kind: those picked among choices, else open ones."""
    ordered = rows(made)
    picked = calibration.picks(ordered)
    if of != "sequence" and (of or len(picked.turns)):
        return "choices", picked
    return "sequence", calibration.opened(ordered)


def _tested(found: stats.Threshold, asked: Sure, seed: int, resamples: int) -> dict[str, Any]:
    """What a threshold does on answers that it was not calibrated on."""
    if not len(asked.turns):
        return {}
    given, wrong = stats.applied(found, asked.confidence, asked.right)
    who = patients(asked.turns)
    _, owner = np.unique(np.asarray(who), return_inverse=True)
    share = 1.0 / np.bincount(owner)[owner]  # [n] every patient weighs the same
    made = {
        "answered": _ratio("answered", asked, given * share, share),
        "wrong": _ratio("wrong", asked, wrong * share, share),
        "error": _ratio("error", asked, wrong, given),
    }
    scores = {name: _plain(stats.score(m, seed=seed, resamples=resamples)) for name, m in made.items()}
    kept = scores["wrong"]["value"] <= found.alpha
    return {**scores, "kept": kept, "n": len(asked.turns), "patients": len(set(who))}


def _ratio(name: str, asked: Sure, above: np.ndarray, below: np.ndarray) -> Measure:
    """A ratio of two sums over answers."""
    columns = np.stack([above, below], axis=1).astype(float)
    statistic = tally(columns, lambda sums: ratio(sums[:, 0], sums[:, 1]))
    return Measure(name=name, statistic=statistic, keys=keys(asked.turns), patients=patients(asked.turns))


def _bins(found: Sure, seed: int, resamples: int) -> list[dict[str, Any]]:
    """Accuracy by confidence, in bins of about equally many answers; equal confidences share a bin."""
    order = np.argsort(found.confidence, kind="stable")
    sure = found.confidence[order]
    cuts = {int(np.searchsorted(sure, sure[k * len(sure) // SHOWN_BINS])) for k in range(SHOWN_BINS)}
    out = []
    for start, end in zip(sorted(cuts), [*sorted(cuts)[1:], len(sure)], strict=True):
        place = np.sort(order[start:end])
        turns = [found.turns[i] for i in place]
        accuracy = Measure(
            name="accuracy", statistic=average(found.right[place]), keys=keys(turns), patients=patients(turns)
        )  # fmt: skip
        score = _plain(stats.score(accuracy, seed=seed, resamples=resamples))
        middle = float(found.confidence[place].mean())
        out.append({"confidence": middle, "accuracy": score.pop("value"), **score, "n": len(turns)})
    return out


def _plain(score: Score) -> dict[str, Any]:
    """A value with the ends of its interval; None where there is none."""
    low, high = score.interval or (None, None)
    return {"value": None if np.isnan(score.value) else score.value, "low": low, "high": high}
