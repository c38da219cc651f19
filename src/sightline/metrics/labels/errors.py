"""What an answer gets wrong of a reference report: 22 kinds of error, each in a column of its own.

A finding goes into one of the first eight kinds or into none; sides, degrees and changes are compared where both
reports say the same of the finding; devices are compared by kind and never count as findings.
"""

from __future__ import annotations

from collections.abc import Mapping

from .reading import ANY_DEVICE, DEVICE, NOTHING, Fact, Reading
from .rules import FINDINGS, SIDED
from .scope import ABSENT, PRESENT, UNCERTAIN

KINDS: Mapping[str, str] = {
    "invented": "affirmed, and the reference does not name it",
    "contradicted": "affirmed, and the reference denies it",
    "omitted": "not named, and the reference affirms it",
    "denied": "denied, and the reference affirms it",
    "hedged": "left in doubt, and the reference affirms it",
    "overstated": "affirmed, and the reference leaves it in doubt",
    "suspected": "left in doubt, and the reference denies it or does not name it",
    "doubt_dropped": "denied or not named, and the reference leaves it in doubt",
    "side_swapped": "on the left for on the right, or the other way round",
    "side_added": "on a side, and the reference names none",
    "side_dropped": "on no side, and the reference names one",
    "side_widened": "on both sides for on one",
    "side_narrowed": "on one side for on both",
    "degree_raised": "of a higher degree",
    "degree_lowered": "of a lower degree",
    "degree_added": "of a degree, and the reference says none",
    "degree_dropped": "of no degree, and the reference says one",
    "device_invented": "a device that the reference does not have",
    "device_omitted": "a device of the reference that is not named",
    "device_mistaken": "a device of one kind for one of another",
    "prior_invented": "an earlier study is spoken of where none is known",
    "change_mistaken": "a change since the earlier study that is not the reference's",
}
INVENTED = ("invented", "contradicted")
OMITTED = ("omitted", "denied")
DOUBTS = ("hedged", "overstated", "suspected", "doubt_dropped")


def errors(reference: Reading, answer: Reading, *, prior: bool = False) -> dict[str, list[str]]:
    """Kind of error -> the findings or devices that have it; kinds without any are absent.

    Args:
        reference: the right report.
        answer: the report to judge.
        prior: whether an earlier study is known to exist, although the reference does not speak of it.
    """
    found: dict[str, list[str]] = {}

    def add(kind: str, name: str) -> None:
        if kind:
            found.setdefault(kind, []).append(name)

    for name in FINDINGS:
        if name in (NOTHING, DEVICE):
            continue
        right, said = reference.findings.get(name), answer.findings.get(name)
        add(_stated(right, said), name)
        if right and said and right.status == said.status != ABSENT:
            for kind in _details(right, said, sided=name in SIDED):
                add(kind, name)
    for kind, name in _devices(reference, answer):
        add(kind, name)
    if answer.prior and not (reference.prior or prior):
        add("prior_invented", "report")
    return found


def _stated(right: Fact | None, said: Fact | None) -> str:
    """The kind of error in whether a finding is there, "" where there is none."""
    truth, claim = right.status if right else None, said.status if said else None
    table = {
        (None, PRESENT): "invented",
        (ABSENT, PRESENT): "contradicted",
        (PRESENT, None): "omitted",
        (PRESENT, ABSENT): "denied",
        (PRESENT, UNCERTAIN): "hedged",
        (UNCERTAIN, PRESENT): "overstated",
        (None, UNCERTAIN): "suspected",
        (ABSENT, UNCERTAIN): "suspected",
        (UNCERTAIN, None): "doubt_dropped",
        (UNCERTAIN, ABSENT): "doubt_dropped",
    }
    return table.get((truth, claim), "")


def _details(right: Fact, said: Fact, *, sided: bool) -> list[str]:
    """The kinds of error in side, degree and change of what both reports name."""
    kinds = [_side(right.sides, said.sides)] if sided else []
    if right.degree != said.degree:
        if not right.degree or not said.degree:
            kinds.append("degree_dropped" if right.degree else "degree_added")
        else:
            kinds.append("degree_raised" if said.degree > right.degree else "degree_lowered")
    if right.changes and said.changes and not right.changes & said.changes:
        kinds.append("change_mistaken")
    return [kind for kind in kinds if kind]


def _side(right: frozenset[str], said: frozenset[str]) -> str:
    """The kind of error in the side, "" where there is none."""
    if right == said:
        return ""
    if not right or not said:
        return "side_dropped" if right else "side_added"
    if len(right) == len(said):
        return "side_swapped"
    return "side_widened" if len(said) > len(right) else "side_narrowed"


def _devices(reference: Reading, answer: Reading) -> list[tuple[str, str]]:
    """Errors of devices as (kind of error, kind of device).

    "Device" without more names any kind. A kind too many and one too few are one mistaken for the other.
    """
    right = {name: fact for name, fact in reference.devices.items() if fact.status == PRESENT}
    said = {name: fact for name, fact in answer.devices.items() if fact.status == PRESENT}
    found = [
        (kind, name)
        for name in right.keys() & said.keys()
        if (kind := _side(right[name].sides, said[name].sides))
    ]
    lost, extra = sorted(right.keys() - said.keys()), sorted(said.keys() - right.keys())
    for one, other in ((lost, extra), (extra, lost)):
        if ANY_DEVICE in one and other:
            one.remove(ANY_DEVICE)
            other.pop(0)
    both = min(len(lost), len(extra))
    found += [("device_mistaken", name) for name in extra[:both]]
    found += [("device_invented", name) for name in extra[both:]]
    return sorted(found) + [("device_omitted", name) for name in lost[both:]]
