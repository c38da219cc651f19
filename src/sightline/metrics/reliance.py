"""What retrieved reports do to answers: how often they mislead, help, and are copied without a look at the image.

Each number compares two sets of answers of one model to the same questions:

| measure | of the turns that are | the share that is | sets |
|---|---|---|---|
| `over_reliance` | wrong with reports | right without them: the errors that reports caused | with, without |
| `harm` | right without reports | wrong with them | with, without |
| `help` | wrong without reports | right with them | with, without |
| `copy_reference` | right with image and reports | still right without the image | with, blind with |

`over_reliance` is RULE's over-reliance ratio (arXiv 2407.05131, table 1): errors due to retrieved reports in relation
to all errors. MMed-RAG (arXiv 2410.13085) reports an over-reliance and a copy-reference rate and publishes no code for
them. Its over-reliance is told of as right answers that become wrong, which is `harm`; its copy-reference as answers
that are right under a noisy image once the reports retrieved for the true image are added. `copy_reference` asks the
same of the answers that are right with the image, so that it needs no further set of answers.

Yes/no turns are right if they say what the right answer says, other turns if their normal forms are equal; reports
are not counted, for no report is simply right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..types import Prediction
from .answers import closed, normalise, yes_no
from .measure import Measure, check_same_turns, keys, patients, ratio, rows, tally

REPORT = "report"
DOCS = {
    "over_reliance": "of the turns answered wrongly with reports, the share answered rightly without them",
    "harm": "of the turns answered rightly without reports, the share answered wrongly with them",
    "help": "of the turns answered wrongly without reports, the share answered rightly with them",
    "copy_reference": "of the turns answered rightly with image and reports, the share answered rightly without the "
    "image too",
}
NAMES = tuple(DOCS)


def reliance(aided: Sequence[Prediction], unaided: Sequence[Prediction]) -> list[Measure]:
    """What reports change for a model that sees the image.

    Args:
        aided: its answers with reports.
        unaided: its answers to the same turns without.

    Returns:
        `over_reliance`, `harm` and `help`, 0-1; the parts of the first are counts of turns: `right_to_wrong`,
        `wrong_to_right`, `wrong_aided`, `right_unaided`. Nothing where all turns are reports.

    Raises:
        DataError: the two sets do not answer the same turns.
    """
    turns, others = _matched(aided, unaided)
    if not turns:
        return []
    after, before = _right(turns), _right(others)
    counts = {
        "right_to_wrong": before & ~after,
        "wrong_to_right": ~before & after,
        "wrong_aided": ~after,
        "right_unaided": before,
    }
    return [
        _share("over_reliance", turns, ~after, before, {k: float(v.sum()) for k, v in counts.items()}),
        _share("harm", turns, before, ~after),
        _share("help", turns, ~before, after),
    ]


def copying(aided: Sequence[Prediction], blind: Mapping[str, Sequence[Prediction]]) -> list[Measure]:
    """How often a model with reports answers rightly whether it sees the image or not.

    Args:
        aided: its answers with image and reports.
        blind: kind of blind image -> its answers to the same turns with that image and the same reports.

    Returns:
        `copy_reference`, 0-1, of the first kind; its parts are the shares of all kinds. Nothing where there is no
        kind, or all turns are reports.

    Raises:
        DataError: two sets do not answer the same turns.
    """
    found = {}
    for kind, answers in blind.items():
        turns, others = _matched(aided, answers)
        if turns:
            found[kind] = _share("copy_reference", turns, _right(turns), _right(others))
    parts = {kind: measure.statistic for kind, measure in found.items()}
    return [replace(measure, parts=parts) for measure in list(found.values())[:1]]


def _share(
    name: str,
    turns: Sequence[Prediction],
    among: np.ndarray,
    those: np.ndarray,
    parts: Mapping[str, float] | None = None,
) -> Measure:
    """The share of `those` among some turns; NaN where there are none of these."""
    columns = np.stack([among, among & those], axis=1).astype(float)  # [n, 2]
    return Measure(
        name=name, statistic=tally(columns, lambda sums: ratio(sums[:, 1], sums[:, 0])), keys=keys(turns),
        patients=patients(turns), parts=parts or {}, higher_is_better=name == "help", doc=DOCS[name],
    )  # fmt: skip


def _matched(
    first: Sequence[Prediction], second: Sequence[Prediction]
) -> tuple[list[Prediction], list[Prediction]]:
    """The turns of both sets that can be right or wrong, in one order."""
    one, other = ([p for p in rows(each) if p.topic != REPORT] for each in (first, second))
    check_same_turns(one, other, "ask both on the same split with the same questions")
    return one, other


def _right(turns: Sequence[Prediction]) -> np.ndarray:
    """Which answers are right, [n] bool."""
    gold = [closed(p.question, p.answer) for p in turns]
    return np.array(
        [
            normalise(p.text) == normalise(p.answer) if truth is None else yes_no(p.text) == truth
            for p, truth in zip(turns, gold, strict=True)
        ]
    )
