"""How far a denial or a hedge reaches: sentences fall into clauses, and words between trigger and finding stop it.

In the manner of NegEx (Chapman et al. 2001) and of the CheXpert labeller, without a parser: a trigger reaches forward
to the end of its clause unless a word of `ENDS_SCOPE` stands between, and backward only as a predicate ("is not seen").
A comma ends a denial where a new finding with a side or a degree of its own follows and no "or" closes the list.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from ..tokens import unmark
from .rules import BARE
from .wording import (
    DEGREES,
    DENIES_AFTER,
    DENIES_BEFORE,
    DOUBTS_AFTER,
    DOUBTS_BEFORE,
    ENDS_SCOPE,
    HOLLOW,
    NOT_DEVICES,
    POSSIBLE,
    SOFT,
)

PRESENT, ABSENT, UNCERTAIN = 1, 0, -1

_SENTENCE = re.compile(r"(?:[.!]+|\?)(?=\s|$)|\n+|(?<=\s)\d\.(?=\s)|;")
_PREDICATE = (
    r"(?:is|are|was|were|has|have|shows?|remains?|appears?|demonstrates?|in place|present|noted|seen|"
    r"identified)"
)
_CLAUSE = re.compile(
    rf"\b(?:but|however|although|though|except|yet|while|whereas)\b"
    rf"|,(?!(?:(?!\b{_PREDICATE}\b)[^,])*\bn?or\b)(?=[^,]*\b{_PREDICATE}\b)"
    r"|,? ?\band\b(?= there\b| (?:the )?\w+(?: \w+){0,2} (?:is|are|remains?|appears?)\b)"
    r"|,(?= (?:and )?(?:there|without)\b)"
)
_HAS_PREDICATE = re.compile(rf"\b{_PREDICATE}\b")
_OWN_WORDS = rf"(?:an?|left|right|bilateral|both|new|stable|{'|'.join(words for _, words in DEGREES)})"
_NEW_ITEM = re.compile(rf",(?= (?:and )?{_OWN_WORDS}\b)(?!.*\bn?or\b)")
_DENIES_LIST = re.compile(
    rf"(?:(?!\b{_PREDICATE}\b).)* (?:are|were) (?:all |both )?(?:not|absent|excluded)\b"
)
_NOT_BARE = re.compile(rf"\b(?:{_OWN_WORDS}|{_PREDICATE}|no|not|without)\b")
_ADJECTIVES = re.compile(r"\b(acute|displaced|focal|large|new|recent|definite|obvious),(?= \w)")
_BLANKS = re.compile(r"\s+")


def sentences(text: str) -> list[str]:
    """Sentences in lower case with single blanks, without marks of de-identification."""
    plain = unmark(unicodedata.normalize("NFKC", text).replace("’", "'")).lower()
    parts = (_BLANKS.sub(" ", part).strip() for part in re.split(r"\n\s*\n", plain))
    return [s for part in parts for piece in _cut(part) if (s := piece.strip(" ,:-"))]


def _cut(part: str) -> list[str]:
    """One paragraph at its full stops; a question mark stays with its sentence, for it is a hedge."""
    pieces, start = [], 0
    for mark in _SENTENCE.finditer(part):
        end = mark.end() if mark.group().startswith("?") else mark.start()
        pieces.append(part[start:end])
        start = mark.end()
    return [*pieces, part[start:]]


def clauses(sentence: str) -> list[str]:
    """The clauses of a sentence, hollow words taken out."""
    plain = _words(*HOLLOW, *NOT_DEVICES).sub(" ", _ADJECTIVES.sub(r"\1", sentence))
    plain = _words(POSSIBLE).sub("possible", plain)
    parts: list[str] = []
    for part in _CLAUSE.split(plain):
        clause = _BLANKS.sub(" ", part).strip() if part else ""
        if parts and _shares_predicate(parts[-1]):
            parts[-1] += f" and {clause}"
        elif clause:
            parts.append(clause)
    return _lists(parts)


def _lists(parts: list[str]) -> list[str]:
    """The clauses, bare names joined to the denial that closes their list ("effusion | mass are absent")."""
    joined: list[str] = []
    for part in parts:
        whole = part
        while joined and _DENIES_LIST.match(whole) and not _NOT_BARE.search(joined[-1]):
            whole = f"{joined.pop()}, {whole}"
        joined.append(whole)
    return joined


def _shares_predicate(clause: str) -> bool:
    """Whether a clause is a bare subject, whose predicate stands in the next ("heart size and contours are normal")."""
    return not _HAS_PREDICATE.search(clause) and bool(_words(*BARE).fullmatch(clause))


def status(clause: str, start: int, end: int, following: int) -> int:
    """What a clause says of a finding that it names.

    Args:
        clause: the clause.
        start: where the finding's name begins.
        end: where it ends.
        following: where the next finding is named, or the clause's length.

    Returns:
        `PRESENT`, `ABSENT` or `UNCERTAIN`.
    """
    own = clause[end:following]
    behind = (
        own if _HAS_PREDICATE.search(own) else clause[end:].replace(",", " ")
    )  # a list shares its predicate
    if _reaches(clause, start, DENIES_BEFORE, commas=True) or _predicate(behind, DENIES_AFTER):
        return UNCERTAIN if _predicate(behind, DOUBTS_AFTER) and "exclude" in behind else ABSENT
    hedged = _reaches(clause, start, DOUBTS_BEFORE) - _reaches(clause, start, SOFT)
    return UNCERTAIN if hedged > 0 or _predicate(behind, DOUBTS_AFTER) else PRESENT


def _reaches(clause: str, start: int, triggers: str, *, commas: bool = False) -> int:
    """How many triggers before a place in a clause reach it."""
    count = 0
    for trigger in _words(triggers).finditer(clause, 0, start):
        ended = _words(ENDS_SCOPE).search(clause, trigger.end(), start)
        item = _NEW_ITEM.search(clause, trigger.end()) if commas else None
        count += not (ended or (item and item.start() < start))
    return count


def _predicate(behind: str, triggers: str) -> bool:
    """Whether a predicate behind a finding is one of the triggers; some words may stand between."""
    return bool(re.match(rf"[^,;]{{0,60}}?(?:^|[ ,(:])(?:{triggers})", behind))


@lru_cache(maxsize=64)
def _words(*patterns: str) -> re.Pattern[str]:
    """Any of several patterns as whole words."""
    return re.compile(rf"(?<!\w)(?:{'|'.join(patterns)})(?!\w)")
