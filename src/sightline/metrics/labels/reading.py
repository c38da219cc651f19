"""Reads a chest report: 14 findings with sides, degrees and changes, devices, and talk of earlier studies.

read("Small left pleural effusion, no pneumothorax. Heart size normal.").findings["pleural_effusion"]
Fact(status=1, sides={"left"}, degree=1, changes=set())
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from .rules import DEVICES, FINDINGS, RULES
from .scope import ABSENT, PRESENT, UNCERTAIN, clauses, sentences, status
from .sections import compares, observations, speaks_of_prior
from .wording import CHANGES, DEGREES, SIDES

DEVICE, NOTHING, ANY_DEVICE = "support_devices", "no_finding", "other_device"
_RANK = {ABSENT: 0, UNCERTAIN: 1, PRESENT: 2}
_CHAMBER = re.compile(r"\b(?:left|right) (?:atri\w+|ventric\w+|heart|main)\b")
_APPOSED = re.compile(r" (?:bilateral|on both)|,? \(?(?:left|right|bilateral)(?:-sided)?(?=[,)]|$)")
_ABOUT = re.compile(
    r"^(?:[\w ]{0,40}?)\b(?:in|on|at|of|within|over|overlying|involving|along|to|projecting over|from)\b"
    r" (?:the )?[\w -]{0,30}"
)


@dataclass(frozen=True, slots=True)
class Fact:
    """What a report says of one finding or device.

    Args:
        status: 1 affirmed, 0 denied, -1 in doubt.
        sides: `left`, `right`, both or none named, where it is not denied.
        degree: 1 small or mild, 2 moderate, 3 large or severe, 0 not said.
        changes: `worse`, `better`, `same`, `new`, `gone`, as far as said.
    """

    status: int
    sides: frozenset[str] = frozenset()
    degree: int = 0
    changes: frozenset[str] = frozenset()

    def joined(self, other: Fact) -> Fact:
        """Both mentions as one: the surer of two states wins, then sides, degrees and changes add up."""
        if _RANK[self.status] != _RANK[other.status]:
            return self if _RANK[self.status] > _RANK[other.status] else other
        return Fact(
            self.status,
            self.sides | other.sides,
            max(self.degree, other.degree),
            self.changes | other.changes,
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What a report says. A finding that it does not name is absent from `findings`.

    Args:
        findings: finding -> what is said, `support_devices` included; never `no_finding`.
        devices: kind of device -> what is said.
        prior: whether an earlier study is spoken of.
        empty: whether there was nothing to read.
    """

    findings: Mapping[str, Fact] = field(default_factory=dict)
    devices: Mapping[str, Fact] = field(default_factory=dict)
    prior: bool = False
    empty: bool = True

    def labels(self) -> dict[str, int | None]:
        """The 14 labels: 1 affirmed, 0 denied, -1 in doubt, None not named.

        `no_finding` is 1 where the report says something and neither affirms nor doubts a finding other than devices.
        """
        said: dict[str, int | None] = {
            name: self.findings[name].status if name in self.findings else None for name in FINDINGS
        }
        sick = any(said[name] in (PRESENT, UNCERTAIN) for name in FINDINGS if name not in (NOTHING, DEVICE))
        return said | {NOTHING: None if self.empty else int(not sick)}


@dataclass(frozen=True, slots=True)
class _Mention:
    """One naming in a clause: of what, where, and what the wording itself decides (None: the words around it do)."""

    names: tuple[str, ...]
    start: int
    end: int
    decided: int | None
    device: bool = False


def read(text: str) -> Reading:
    """What a report says of each finding, device and earlier study."""
    body = observations(text)
    told = sentences(body)
    findings: dict[str, Fact] = {}
    devices: dict[str, Fact] = {}
    for sentence in told:
        parts = clauses(sentence)
        changes = _changes(sentence) if len(parts) == 1 else frozenset()
        for clause in parts:
            for mention, fact in _facts(clause, changes or _changes(clause)):
                for name in mention.names:
                    target = devices if mention.device else findings
                    target[name] = target[name].joined(fact) if name in target else fact
    if devices:
        findings[DEVICE] = _together(devices.values())
    spoken = compares(text) or any(speaks_of_prior(sentence) for sentence in told)
    return Reading(findings, devices, spoken, not told)


def _together(facts: Iterable[Fact]) -> Fact:
    """Several facts as one."""
    first, *rest = facts
    for fact in rest:
        first = first.joined(fact)
    return first


def _facts(clause: str, changes: frozenset[str]) -> list[tuple[_Mention, Fact]]:
    """What a clause says of all that it names."""
    found, mentions, used = [], _mentions(clause), 0
    for mention in mentions:
        following = min((m.start for m in mentions if m.start >= mention.end), default=len(clause))
        state = (
            status(clause, mention.start, mention.end, following)
            if mention.decided is None
            else mention.decided
        )
        if state == ABSENT:
            gone = changes & {"gone"}
            found.append((mention, Fact(ABSENT, changes=gone)))
        else:
            before, after = clause[used : mention.end], clause[mention.end : following]
            found.append(
                (
                    mention,
                    Fact(
                        state, _sides(before, after, device=mention.device), _degree(before, after), changes
                    ),
                )
            )
        used = max(used, mention.end)
    return found


def _mentions(clause: str) -> list[_Mention]:
    """All namings in a clause, by place.

    Of one finding's overlapping patterns the one that decides by itself wins, then the longest; of devices, the kind
    that stands first in `DEVICES`.
    """
    found: dict[tuple[int, int, int | None, bool], list[str]] = {}
    for name, rule in RULES.items():
        taken: list[tuple[int, int]] = []
        for decided, patterns in ((UNCERTAIN, rule.doubts), (ABSENT, rule.denies), (None, rule.says)):
            for start, end in _spans(clause, patterns):
                if not any(start < e and s < end for s, e in taken):
                    taken.append((start, end))
                    found.setdefault((start, end, decided, False), []).append(name)
    taken = []
    for kind, patterns in DEVICES.items():
        for start, end in _spans(clause, patterns):
            if not any(start < e and s < end for s, e in taken):
                taken.append((start, end))
                found.setdefault((start, end, None, True), []).append(kind)
    special = [place for place, kinds in found.items() if place[3] and kinds != [ANY_DEVICE]]
    if special:  # leads and wires are those of the device that the clause names
        found = {place: names for place, names in found.items() if names != [ANY_DEVICE]}
    ordered = sorted(found.items(), key=lambda item: item[0][:2])
    return [
        _Mention(tuple(names), start, end, decided, device)
        for (start, end, decided, device), names in ordered
    ]


def _spans(clause: str, patterns: tuple[str, ...]) -> list[tuple[int, int]]:
    """Where any of some patterns matches, as whole words."""
    return [match.span() for match in _any(patterns).finditer(clause)] if patterns else []


@lru_cache(maxsize=256)
def _any(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Any of several patterns as whole words, the longer first."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(sorted(patterns, key=len, reverse=True))})(?!\w)")


def _sides(before: str, after: str, *, device: bool) -> frozenset[str]:
    """The sides that the words around a mention name.

    Those behind a finding ("in the left base") go before those in front; of a device those in front, for behind it
    stands where its tip lies.
    """
    phrase = _ABOUT.match(after)
    behind = (
        _named(phrase.group())
        if phrase
        else _named(apposed.group())
        if (apposed := _APPOSED.match(after))
        else set()
    )
    front = _named(before)
    return frozenset((front or behind) if device else (behind or front))


def _named(words: str) -> set[str]:
    """The sides that some words name; chambers of the heart have none."""
    plain, sides = _CHAMBER.sub(" ", words), set()
    for side, patterns in SIDES.items():
        if _any(patterns).search(plain):
            sides |= {"left", "right"} if side == "both" else {side}
    return sides


def _degree(before: str, after: str) -> int:
    """The degree that the words around a finding name, 0 where none does; of "small to moderate" the higher."""
    near = " ".join(before.split()[-7:])
    own = re.match(r"^,? (?:which |that )?(?:is|are|remains?|appears?) (?:\w+ ){0,2}?\w+", after)
    degrees = [
        degree
        for degree, words in DEGREES
        if _any((words,)).search(near) or (own and _any((words,)).search(own.group()))
    ]
    return max(degrees, default=0)


def _changes(words: str) -> frozenset[str]:
    """The changes since an earlier study that some words name."""
    return frozenset(name for name, pattern in CHANGES.items() if re.search(pattern, words))
