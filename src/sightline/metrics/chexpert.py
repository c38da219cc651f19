"""What a generated report gets right and wrong of its reference, by rules: findings, sides, degrees, devices, priors.

The rule labeller of `metrics/labels` reads both reports. It is right on real reports in most mentions, not in all
(docs/metrics/findings.md has its F1 per finding), so small differences between models may be its own; intervals do not
know that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from ..types import Prediction
from .label_f1 import f1_measures
from .labels.errors import DOUBTS, INVENTED, KINDS, OMITTED, errors
from .labels.reading import DEVICE, NOTHING, Reading, read
from .labels.rules import FINDINGS
from .labels.scope import PRESENT, UNCERTAIN
from .labels.sections import speaks_of_prior
from .measure import Measure, Metric, average, keys, patients, ratio, rows, tally

_GROUPS = {
    "finding_doubt_errors": (DOUBTS, "findings stated too surely, or not surely enough"),
    "side_errors": (
        ("side_swapped", "side_added", "side_dropped", "side_widened", "side_narrowed"),
        "sides swapped, added, dropped, widened or narrowed, of findings and devices that both reports have",
    ),
    "degree_errors": (
        ("degree_raised", "degree_lowered", "degree_added", "degree_dropped"),
        "degrees raised, lowered, added or dropped, of findings that both reports have",
    ),
    "device_errors": (
        ("device_invented", "device_omitted", "device_mistaken"),
        "devices invented, omitted or mistaken",
    ),
    "prior_invented": (("prior_invented",), "an earlier study spoken of where none is known"),
    "change_errors": (("change_mistaken",), "changes since an earlier study that are not the reference's"),
}


def chexpert(
    predictions: Sequence[Prediction],
    *,
    doubt: Literal["absent", "present"] = "absent",
    report: str = "report",
) -> list[Measure]:
    """Findings of report turns against those of their references.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        doubt: what a finding in doubt counts as for F1.
        report: the topic of turns that ask for a report.

    Returns:
        `chexpert_f1`, `chexpert_f1_5`, `chexpert_f1_micro`, `chexpert_f1_weighted`; `finding_hallucination` (of the
        findings that answers affirm, the share that references deny or do not name), `finding_omission` (of those that
        references affirm, the share that answers deny or do not name), `hallucinated_reports` (share of reports with
        such a finding); errors per report: `report_errors` with each of 22 kinds as a part, `finding_doubt_errors`,
        `side_errors`, `degree_errors`, `device_errors`, `prior_invented`, `change_errors`. An empty answer affirms
        nothing and omits everything. Nothing where there is no report.

    Raises:
        DataError: no predictions, or a turn answered twice.
    """
    turns = [p for p in rows(predictions) if p.topic == report]
    if not turns:
        return []
    right = [read(p.answer) for p in turns]
    said = [read(p.text) for p in turns]
    there = (PRESENT,) if doubt == "absent" else (PRESENT, UNCERTAIN)
    measures = f1_measures(
        turns, _table(right, there), _table(said, there), FINDINGS, prefix="chexpert", by="rules"
    )
    counted = np.array(
        [
            _counts(one, other, speaks_of_prior(turn.question))
            for one, other, turn in zip(right, said, turns, strict=True)
        ]
    )  # [n, kinds]
    return measures + _shares(turns, right, said, counted) + _per_report(turns, counted)


def _table(readings: Sequence[Reading], there: tuple[int, ...]) -> np.ndarray:
    """Whether each report has each label, [n, 14]."""
    labels = [reading.labels() for reading in readings]
    return np.array([[each[name] in there for name in FINDINGS] for each in labels], dtype=bool)


def _counts(right: Reading, said: Reading, prior: bool) -> list[float]:
    """How many errors of each kind an answer has."""
    found = errors(right, said, prior=prior)
    return [float(len(found.get(kind, ()))) for kind in KINDS]


def _affirmed(reading: Reading) -> float:
    """How many findings other than devices a report affirms."""
    return float(
        sum(f.status == PRESENT for name, f in reading.findings.items() if name not in (NOTHING, DEVICE))
    )


def _of(counted: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """The errors of some kinds, [n]."""
    places = [list(KINDS).index(kind) for kind in kinds]
    return np.asarray(counted[:, places].sum(axis=1))


def _shares(
    turns: Sequence[Prediction], right: Sequence[Reading], said: Sequence[Reading], counted: np.ndarray
) -> list[Measure]:
    """Hallucination and omission, as shares of what is affirmed, and of reports."""
    invented, omitted = _of(counted, INVENTED), _of(counted, OMITTED)
    claims = np.array([_affirmed(reading) for reading in said])
    truths = np.array([_affirmed(reading) for reading in right])
    told = (
        ("finding_hallucination", invented, claims, "of the findings that answers affirm, the share that the reference "
         "denies or does not name"),
        ("finding_omission", omitted, truths, "of the findings that references affirm, the share that the answer "
         "denies or does not name"),
    )  # fmt: skip
    shares = [
        Measure(
            name=name, statistic=tally(np.stack([below, above], axis=1), _share), keys=keys(turns),
            patients=patients(turns), higher_is_better=False, doc=doc,
        )
        for name, above, below, doc in told
    ]  # fmt: skip
    struck = (invented > 0).astype(float)
    doc = "share of reports that affirm a finding which the reference denies or does not name"
    return [*shares, _averaged(turns, "hallucinated_reports", struck, doc, unit="0-1")]


def _share(sums: np.ndarray) -> np.ndarray:
    return ratio(sums[:, 1], sums[:, 0])


def _per_report(turns: Sequence[Prediction], counted: np.ndarray) -> list[Measure]:
    """Mean errors per report: all kinds together, then in groups."""
    parts = {kind: average(counted[:, place]) for place, kind in enumerate(KINDS)}
    whole = _averaged(turns, "report_errors", counted.sum(axis=1), "errors of all kinds per report", parts)
    groups = [
        _averaged(turns, name, _of(counted, kinds), f"{doc}, per report")
        for name, (kinds, doc) in _GROUPS.items()
    ]
    return [whole, *groups]


def _averaged(
    turns: Sequence[Prediction],
    name: str,
    values: np.ndarray,
    doc: str,
    parts: dict[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    unit: str = "per report",
) -> Measure:
    """A mean of one value per report, lower is better."""
    return Measure(
        name=name, statistic=average(values), keys=keys(turns), patients=patients(turns), per_sample=values,
        parts=parts or {}, higher_is_better=False, unit=unit, doc=doc,
    )  # fmt: skip


METRIC = Metric(
    score=chexpert,
    version=1,
    paper="after Irvin et al. 2019 (CheXpert), arXiv:1901.07031, and Chapman et al. 2001",
)
