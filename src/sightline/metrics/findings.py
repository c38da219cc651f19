"""Reads findings out of a report: present, absent or not said, with negation and sides.

A small rule parser in the manner of NegEx (Chapman et al. 2001) and the CheXpert labeller (Irvin et al.
2019): a report falls into sentences, a sentence into clauses, and a negation reaches to the end of its
clause, or back over a clause that ends in "is absent", "not seen" and the like. It is meant for reports with
known wording (the phantoms) and as a lexicon to extend; the model-based labellers judge real radiology.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """How a finding is written. All patterns are regular expressions over lower-case text.

    Args:
        says: patterns that name the finding.
        denies: patterns that deny it without naming it ("heart size normal").
        side: `left` or `right` where the finding is one side of a paired one, else "".
    """

    says: tuple[str, ...]
    denies: tuple[str, ...] = ()
    side: str = ""


_HEART = r"(?:heart(?: size| shadow)?|cardiac (?:silhouette|size|shadow)|cardiomediastinal silhouette)"
_EFFUSION = (r"effusions?", r"pleural fluid", r"hydrothorax")
_DRY = (
    r"(?:costophrenic|cp) (?:angles?|sulci)(?: are| is)? (?:clear|sharp)",
    r"pleural spaces?(?: are| is)? clear",
)
_GAP = r"(?:\W+\w+){0,2}?\W+"

LEXICON: Mapping[str, Term] = {
    "effusion_left": Term(says=_EFFUSION, denies=_DRY, side="left"),
    "effusion_right": Term(says=_EFFUSION, denies=_DRY, side="right"),
    "cardiomegaly": Term(
        says=(
            r"cardiomegaly",
            r"cardiac enlargement",
            r"enlargement of the heart",
            rf"{_HEART}{_GAP}(?:enlarged|large|increased)",
            rf"(?:enlarged|large) {_HEART}",
        ),
        denies=(
            rf"{_HEART}{_GAP}(?:normal|within normal limits)",
            rf"{_HEART} normal",
            rf"normal (?:size of the )?{_HEART}",
            rf"normal[ -]sized {_HEART}",
        ),
    ),
    "nodule": Term(
        says=(r"nodules?", r"nodular (?:opacity|opacities|density|densities)"),
        denies=(r"lungs?(?: fields?)?(?: are| is)?(?: otherwise| both)? clear", r"clear lungs?"),
    ),
    "pneumothorax": Term(says=(r"pneumothora(?:x|ces)",), denies=(r"pleural spaces?(?: are| is)? clear",)),
    "device": Term(
        says=(
            r"devices?",
            r"pacemakers?",
            r"defibrillators?",
            r"icd",
            r"catheters?",
            r"picc",
            r"(?:central|chest|et|ng|endotracheal) (?:line|tube)s?",
        ),
    ),
}

_SENTENCE = re.compile(r"[.!?\n]+(?=\s|$)")
_PREDICATE = r"(?:is|are|was|were|has|have|shows?|remains?|appears?|enlarged|in place|present)"
_CLAUSE = re.compile(
    rf";|\b(?:but|however|although|though|except|yet|while|whereas)\b"
    rf"|,(?!(?:(?!\b{_PREDICATE}\b)[^,;])*\bn?or\b)(?=[^,;]*\b{_PREDICATE}\b)"
    r"|\band\b(?= there\b| (?:the )?\w+(?: \w+)? (?:is|remains|appears)\b)"
)
_HAS_PREDICATE = re.compile(rf"\b{_PREDICATE}\b")
_HOLLOW = re.compile(
    r"\b(?:no|not|without)(?: (?:significant|interval|appreciable))* (?:change|increase|decrease|only)\b"
)
_BEFORE = re.compile(
    r"\b(?:no|not|without|neither|nor|never|none|negative for|free of|clear of|absence of|absent|resolution of)\b"
)
_AFTER = re.compile(
    r"\b(?:absent|excluded|ruled out|resolved|removed|none|(?:not|never|no longer)(?: \w+){0,2}? "
    r"(?:seen|present|visible|identified|detected|evident|noted|found|in place))\b"
    r"|:\s*(?:no|none|absent|negative)\b"
)
_DOUBT = re.compile(
    r"\b(?:possibl[ey]|probabl[ey]|questionable|suspected|suspicious|may|might|maybe|equivocal|uncertain|"
    r"(?:cannot|can not|can't|not) (?:\w+ )?(?:be )?(?:excluded|ruled out)|versus|vs)\b"
)
_SIDE = re.compile(r"\b(?:left|right|bilateral(?:ly)?|both)\b")
_SIDE_AFTER = re.compile(
    r"^\W*(?:(?:is|are|was|were|seen|present|noted|visible|in place)\W+)*"
    r"(?:(?:on|in|at|of|to) (?:the )?(left and right|left|right|both)\b|(bilateral)ly\b)"
)


@dataclass(frozen=True, slots=True)
class _Mention:
    """One naming of one or more findings in a clause: which, from where to where, and whether it denies."""

    names: tuple[str, ...]
    start: int
    end: int
    denies: bool


def findings(text: str, lexicon: Mapping[str, Term] = LEXICON) -> dict[str, int | None]:
    """What a report says about each finding of a lexicon.

    A finding that is affirmed anywhere is 1, else 0 where it is denied, else None: not mentioned, or only in
    doubt ("cannot be excluded"). "No effusion" denies both sides; "effusion" without a side affirms neither.

    Args:
        text: the report.
        lexicon: how each finding is written.

    Returns:
        one entry for each finding of the lexicon, in its order.
    """
    said: dict[str, int | None] = dict.fromkeys(lexicon)
    for sentence in _SENTENCE.split(text.lower().replace("’", "'")):
        for clause in _CLAUSE.split(_HOLLOW.sub(" ", sentence)):
            for name, present in _read(clause, lexicon):
                said[name] = max(said[name] or 0, present)
    return said


def _read(clause: str, lexicon: Mapping[str, Term]) -> list[tuple[str, int]]:
    """The findings that one clause decides, as (name, 0 or 1)."""
    decided: list[tuple[str, int]] = []
    free = 0
    mentions = _mentions(clause, lexicon)
    for index, mention in enumerate(mentions):
        following = mentions[index + 1].start if index + 1 < len(mentions) else len(clause)
        sides, used = _sides(clause, free, mention, following)
        free = used
        if mention.denies:
            decided += [(name, 0) for name in mention.names]
        elif not _DOUBT.search(clause):
            present = 0 if _negated(clause, mention, following) else 1
            decided += [(name, present) for name in mention.names if _concerns(lexicon[name], sides, present)]
    return decided


def _mentions(clause: str, lexicon: Mapping[str, Term]) -> list[_Mention]:
    """The namings in a clause from left to right; what a denying pattern covers is not named again."""
    found: dict[tuple[int, int, bool], list[str]] = {}
    for name, term in lexicon.items():
        for denies, patterns in ((True, term.denies), (False, term.says)):
            for match in _pattern(patterns).finditer(clause) if patterns else ():
                found.setdefault((match.start(), match.end(), denies), []).append(name)
    return [_Mention(tuple(names), *place) for place, names in sorted(found.items())]


@lru_cache(maxsize=256)
def _pattern(patterns: tuple[str, ...]) -> re.Pattern[str]:
    """Any of several patterns, as whole words; the longest are tried first."""
    return re.compile(rf"\b(?:{'|'.join(sorted(patterns, key=len, reverse=True))})\b")


def _sides(clause: str, free: int, mention: _Mention, following: int) -> tuple[set[str], int]:
    """The sides a mention is about, and where the words that it has used up end.

    "Effusion on the left" is looked for first, then side words since the previous mention ("left effusion").
    """
    after = _SIDE_AFTER.search(clause[mention.end : following])
    if after:
        return _named(after.group()), mention.end + after.end()
    return _named(clause[free : mention.start]), mention.end


def _named(words: str) -> set[str]:
    """The sides that some words name; both for "bilateral" and "both"."""
    sides: set[str] = set()
    for word in _SIDE.findall(words):
        sides |= {word} if word in ("left", "right") else {"left", "right"}
    return sides


def _concerns(term: Term, sides: set[str], present: int) -> bool:
    """Whether a mention decides a finding: sided findings need their side, or a denial of any."""
    return not term.side or term.side in sides or (not sides and not present)


def _negated(clause: str, mention: _Mention, following: int) -> bool:
    """Whether a negation stands before a mention, within it, or behind it as its predicate.

    A mention without a predicate of its own shares that of the next ("nodule and effusion are absent").
    """
    own = clause[mention.end : following]
    behind = own if _HAS_PREDICATE.search(own) else clause[mention.end :]
    return bool(_BEFORE.search(clause[: mention.end]) or _AFTER.search(behind))
