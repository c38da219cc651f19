"""Text to tokens for the metrics of wording, and the one rule for marks that de-identification left behind.

The rule. A mark stands for words that nobody may read: `XXXX` (two or more X, the Indiana collection), `___` (two or
more underscores, MIMIC-CXR) and `[** ... **]` (MIMIC-III). It is taken out of the answer and of the reference before
anything is counted, so a model is neither paid for printing it nor fined for leaving it out. `marks: keep` leaves
texts as they are, for figures of papers that did so.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache

from ..errors import MissingExtra
from ..types import Prediction

_MARKS = re.compile(r"\[\*\*.*?\*\*\]|(?<![A-Za-z])[Xx]{2,}(?![A-Za-z])|_{2,}", re.DOTALL)
_PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
_SHORTENED = frozenset(
    ("dr", "mr", "mrs", "ms", "prof", "st", "jr", "sr", "vs", "etc", "e.g", "i.e", "a.m", "p.m", "u.s", "approx", "no",
     "inc", "co", "ltd", "jan", "feb", "mar", "apr", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec")
)  # fmt: skip
_WORD = re.compile(
    r"""
    \.\.\.
    | --+
    | \d+(?:[.,:/]\d+)*(?:[a-z]+\b(?!'))?(?:[-/][a-z0-9]+)*  # 1.5  10/12  3rd  12-mm
    | can(?=not\b)
    | [a-z](?:\.[a-z])+\.?                                  # e.g.  p.m.
    | [^\W_]+?(?=n't\b)
    | n't\b
    | '(?:s|m|d|re|ve|ll)\b
    | [^\W_]+(?:[-_&/.][^\W_]+)*(?:'(?!(?:s|m|d|re|ve|ll|t)\b)[^\W_]+)*\.?
    | \S
    """,
    re.VERBOSE,
)
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_HAN = r"\u2e80-\u2fdf\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_CHINESE = re.compile(rf"[{_HAN}]|[^\W_{_HAN}]+(?:[.:/-][^\W_{_HAN}]+)*")


def unmark(text: str) -> str:
    """A text without the marks of de-identification; blanks are not mended, for tokens do not see them."""
    return _MARKS.sub(" ", text)


def tokens(text: str, tokenize: str = "ptb", marks: str = "drop") -> list[str]:
    """The tokens of a text, in order; none of an empty one.

    Args:
        text: anything.
        tokenize: `ptb` (lower case, Penn Treebank's rules, punctuation left out, as the captioning metrics expect),
            `chinese` (every Han character by itself, words of other scripts whole, lower case, no punctuation),
            `jieba` (Chinese words, by the package of that name) or `blank` (split at blanks, nothing else).
        marks: `drop` takes out the marks of de-identification first, `keep` does not.

    Raises:
        MissingExtra: `jieba` is asked for and not installed.
    """
    return _TOKENISERS[tokenize](unmark(text) if marks == "drop" else text)


def pairs(turns: Sequence[Prediction], tokenize: str, marks: str) -> list[tuple[list[str], list[str]]]:
    """The tokens of each turn's answer and of its reference."""
    return [(tokens(p.text, tokenize, marks), tokens(p.answer, tokenize, marks)) for p in turns]


def ptb(text: str) -> list[str]:
    """Tokens after the Penn Treebank, as the captioning metrics count them.

    A restatement of what Stanford's tokeniser with its option for lower case, and the list of punctuation that
    pycocoevalcap then leaves out, do to English prose. Contractions fall in two (`do n't`), hyphens and numbers hold
    together, brackets become `-lrb-` and the like and stay, because that list names them in upper case.
    """
    found: list[str] = []
    for piece in text.lower().replace("’", "'").split():
        parts = _WORD.findall(piece)
        for place, part in enumerate(parts):
            found += _stop(part, last=place == len(parts) - 1)
    return [_BRACKETS.get(token, token) for token in found if token not in _PUNCTUATION]


def _stop(part: str, *, last: bool) -> list[str]:
    """A token with its full stop taken off, unless it is a short form that owns it."""
    if len(part) < 2 or not part.endswith(".") or part == "...":
        return [part]
    bare = part[:-1]
    if bare in _SHORTENED or "." in bare:
        return [part]
    return [bare, "."] if last or bare else [part]


def chinese(text: str) -> list[str]:
    """Every Han character by itself; letters and digits of other scripts as whole words in lower case."""
    return _CHINESE.findall(unicodedata.normalize("NFKC", text).lower())


def jieba(text: str) -> list[str]:
    """Chinese words as jieba's dictionary cuts them, without punctuation, in lower case."""
    cut = _jieba()
    return [
        w
        for word in cut(unicodedata.normalize("NFKC", text).lower())
        if any(map(str.isalnum, w := word.strip()))
    ]


@lru_cache
def _jieba() -> Callable[[str], list[str]]:
    try:
        import jieba as package
    except ImportError:
        raise MissingExtra("jieba", "chinese") from None
    package.setLogLevel("ERROR")
    return package.lcut


_TOKENISERS: dict[str, Callable[[str], list[str]]] = {
    "ptb": ptb,
    "chinese": chinese,
    "jieba": jieba,
    "blank": str.split,
}
