"""Pairs from what one model answers with and without its image, with and without the reports retrieved for it.

Every question is asked four times; a kind of pair compares two of the four answers. The first must be right:

| kind | chosen answer | rejected answer | which is | prompt holds reports |
|---|---|---|---|---|
| `noised` | clean image | degraded image | wrong | no |
| `cross_modality` | clean, reports | degraded, reports | right as well: the image was not needed | yes |
| `over_reliance` | clean | clean, reports | wrong | yes |
| `under_use` | clean, reports | clean | wrong | yes |

Where the rejected answer was given under a degraded image, that image is the rejected side's. The rules are those of
MMed-RAG (arXiv 2410.13085; its builder is in the history of github.com/richard-peng-xia/MMed-RAG at a61de2f), read by
a parser of yes and no that does not take silence for a yes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from .. import runs
from ..metrics.answers import closed, yes_no
from ..metrics.sentence import agreement
from ..settings import Judge
from ..types import Degrade, Preference, Sample
from .pairs import turns

REPORT = "report"
SETS = ("unaided", "unaided_degraded", "aided", "aided_degraded")
ROUNDING = 1e-12  # a mean of equal scores may come out a little above them
KEPT = 0.5  # pairs of `cross_modality` for one of the other two kinds of the second stage

Key = tuple[str, int]
Said = Mapping[Key, str]
Read = Callable[[Sample], Sample]


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind: the two answer sets that it compares, and what makes a pair of them.

    Args:
        chosen, rejected: names of answer sets; an answer of the first must be right.
        right: whether the rejected answer must be right as well, or wrong.
        spoiled: the rejected side sees the degraded image.
        reports: the prompt holds the reports that were retrieved.
    """

    chosen: str
    rejected: str
    right: bool
    spoiled: bool
    reports: bool


RULES = {
    "noised": Rule("unaided", "unaided_degraded", right=False, spoiled=True, reports=False),
    "cross_modality": Rule("aided", "aided_degraded", right=True, spoiled=True, reports=True),
    "over_reliance": Rule("unaided", "aided", right=False, spoiled=False, reports=True),
    "under_use": Rule("aided", "unaided", right=False, spoiled=False, reports=True),
}


@dataclass(frozen=True, kw_only=True)
class Study:
    """What a model was asked and what it said.

    Args:
        samples: the samples that pairs are made from, as they are.
        said: answer set -> (sample, turn) -> the answer; turns count the assistant's.
        aided, unaided: what the model reads of a sample with and without its retrieved reports.
        topics: topics to use; all where empty.
        judge: what makes an open answer right.
        degrade: the degraded image.
        even: as many yes/no pairs of a kind prefer yes as prefer no.
        seed: the recipe's.
    """

    samples: Sequence[Sample]
    said: Mapping[str, Said]
    aided: Read
    unaided: Read
    degrade: Degrade
    topics: Sequence[str] = ()
    judge: Judge = field(default_factory=Judge)
    even: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Made:
    """Pairs, and how many turns were compared, with what became of them.

    `sides` says what a pair about a yes/no turn prefers, by the pair's id.
    """

    pairs: list[Preference]
    counts: Counter[str] = field(default_factory=Counter)
    sides: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Turn:
    """One assistant turn: its sample, its number, its place among the messages, the question and the right answer."""

    sample: Sample
    number: int
    place: int
    gold: str | None

    @property
    def key(self) -> Key:
        return self.sample.id, self.number

    @property
    def answer(self) -> str:
        return self.sample.messages[self.place].text

    @property
    def topic(self) -> str:
        return self.sample.messages[self.place].topic


def sets_of(kinds: Sequence[str]) -> list[str]:
    """The answer sets that kinds need, each once."""
    wanted = {name for kind in kinds if kind in RULES for name in (RULES[kind].chosen, RULES[kind].rejected)}
    return [name for name in SETS if name in wanted]


def build(study: Study, shares: Mapping[str, float]) -> dict[str, Made]:
    """The pairs of every kind, `cross_modality` cut down to half of what the other two kinds of its stage have.

    Args:
        study: what was asked and said.
        shares: kind -> share of the samples that it may use, from the first on; kinds that ask no model are left out.

    Returns:
        kind -> its pairs, with `turns` (compared), `made`, and what was left out: `unhelped` (no reports were
        retrieved), `same` (equal answers under the same image), `empty` (nothing was said), `cut`, `uneven`.
    """
    kinds = [kind for kind in shares if kind in RULES]
    found = {k: compare(study, k, study.samples[: round(shares[k] * len(study.samples))]) for k in kinds}
    if study.even:
        found = {kind: evened(made, study.seed) for kind, made in found.items()}
    others = [k for k in ("over_reliance", "under_use") if k in found]
    if "cross_modality" in found and others:
        most = int(KEPT * sum(len(found[k].pairs) for k in others))
        made = cut(found["cross_modality"], most, study.seed)
        found["cross_modality"] = evened(made, study.seed) if study.even else made
    return found


def cut(made: Made, most: int, seed: int) -> Made:
    """At most so many pairs, chosen by the hash of seed and id, in their order."""
    return _without(made, {p.id for p in _ranked(made.pairs, seed)[most:]}, "cut")


def evened(made: Made, seed: int) -> Made:
    """As many yes/no pairs that prefer yes as pairs that prefer no, chosen by hash; pairs about open turns all stay.

    A model that reads reports too timidly is wrong where yes is right, nearly always: pairs of its errors all prefer
    yes, and the shortest way to please them is to say yes to everything. The method that this follows does not even
    its pairs out.
    """
    ranked = _ranked(made.pairs, seed)
    sides = [[p.id for p in ranked if made.sides.get(p.id) == side] for side in ("yes", "no")]
    least = min(len(side) for side in sides)
    return _without(made, {pair for side in sides for pair in side[least:]}, "uneven")


def _ranked(pairs: Sequence[Preference], seed: int) -> list[Preference]:
    """By the hash of seed and id."""
    return sorted(pairs, key=lambda p: runs.digest(str(seed), "cut", p.id))


def _without(made: Made, left_out: Collection[str], why: str) -> Made:
    """The other pairs in their order, and how many were left out."""
    kept = [p for p in made.pairs if p.id not in left_out]
    counts = Counter(made.counts)
    counts[why] += len(left_out)
    counts["made"] = len(kept)
    return Made(kept, counts, made.sides)


def compare(study: Study, kind: str, samples: Sequence[Sample]) -> Made:
    """The pairs of one kind, one for each turn at which its rule holds."""
    rule, made, counts, sides = RULES[kind], [], Counter[str](), {}
    asked = [turn for sample in samples for turn in _turns(sample, study.topics)]
    if rule.reports:
        helped = [turn for turn in asked if turn.sample.references]
        counts["unhelped"] = len(asked) - len(helped)
        asked = helped
    first, second = study.said[rule.chosen], study.said[rule.rejected]
    good = rightness(asked, first, second, study.judge)
    counts["turns"] = len(asked)
    for turn in asked:
        if good[turn.key] != (True, rule.right):
            continue
        chosen = turn.answer if turn.topic == REPORT else first[turn.key]
        rejected = second[turn.key]
        if not chosen.strip() or not rejected.strip():
            counts["empty"] += 1
        elif chosen == rejected and not rule.spoiled:
            counts["same"] += 1
        else:
            pair = _pair(study, kind, turn, chosen, rejected)
            made.append(pair)
            if turn.gold is not None:
                sides[pair.id] = turn.gold
    counts["made"] = len(made)
    return Made(made, counts, sides)


def rightness(
    asked: Sequence[_Turn], first: Said, second: Said, judge: Judge
) -> dict[Key, tuple[bool, bool]]:
    """Whether the answers of two sets are right, turn by turn.

    A yes/no answer is right if it says what the right one says. An open one is right if its agreement reaches the
    judge's threshold; `mean` is the mean over both sets, reports and other open answers apart.
    """
    good = {
        t.key: (yes_no(first[t.key]) == t.gold, yes_no(second[t.key]) == t.gold)
        for t in asked
        if t.gold is not None
    }
    for reports in (True, False):
        part = [t for t in asked if t.gold is None and (t.topic == REPORT) == reports]
        scores = {t.key: _scores(judge.metric, t.answer, first[t.key], second[t.key]) for t in part}
        if not scores:
            continue
        mean = fmean(score for both in scores.values() for score in both)
        least = (mean if judge.threshold == "mean" else float(judge.threshold)) - ROUNDING
        good |= {key: (one >= least, other >= least) for key, (one, other) in scores.items()}
    return good


def _scores(metric: str, answer: str, one: str, other: str) -> tuple[float, float]:
    return agreement(metric, one, answer), agreement(metric, other, answer)


def _turns(sample: Sample, topics: Sequence[str]) -> list[_Turn]:
    """The turns of a sample that a pair may be made of."""
    places = turns(sample, ())
    usable = set(turns(sample, topics))
    return [
        _Turn(sample, number, place, _gold(sample, place))
        for number, place in enumerate(places)
        if place in usable
    ]


def _gold(sample: Sample, place: int) -> str | None:
    """The right answer of a yes/no turn; None for an open one."""
    if sample.messages[place].topic == REPORT:
        return None
    asked = next(m.text for m in reversed(sample.messages[:place]) if m.role == "user")
    return closed(asked, sample.messages[place].text)


def _pair(study: Study, kind: str, turn: _Turn, chosen: str, rejected: str) -> Preference:
    """A pair on one answer; earlier answers stand in the prompt as they should be."""
    rule = RULES[kind]
    shown = (study.aided if rule.reports else study.unaided)(turn.sample)
    return Preference(
        id=f"{turn.sample.id}/{kind}-{turn.number}",
        patient=turn.sample.patient,
        images=turn.sample.images,
        prompt=shown.messages[: turn.place],
        chosen=chosen,
        rejected=rejected,
        rejected_images=study.degrade if rule.spoiled else None,
        why=kind,
    )
