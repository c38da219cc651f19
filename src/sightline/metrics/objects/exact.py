"""How AMBER's script judges nouns, with all that depends on order (github.com/junyangwang0410/AMBER, inference.py).

Every object of a list is first expanded: the associations of all its objects in order, then the objects themselves. A
noun takes the object that owns the first word that fits, so one that is both an object and an association of another
object credits the other. A safe word is not hallucinated but counts among the nouns. A noun that equals a word of the
likely hallucinations and also resembles a true object is marked there and yet not hallucinated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .layout import Names, Nouns, columns, count, lay_names
from .lists import Lists


def expand(listed: Sequence[Sequence[str]], lists: Lists, numbers: dict[str, int]) -> Names:
    """The words that stand for the objects of each caption, in the script's order.

    Args:
        listed: the objects of each caption.
        lists: what is associated with an object.
        numbers: word -> its number.
    """
    known = lists.associations
    rows = [
        [(word, owner) for owner, name in enumerate(names) for word in known[name]]
        + [(name, owner) for owner, name in enumerate(names)]
        for names in listed
    ]
    return lay_names(rows, [len(names) for names in listed], numbers)


def judge(nouns: Nouns, there: Names, likely: Names, safe: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Judge every noun of every caption.

    Args:
        nouns: m nouns of n captions.
        there: words for what is there.
        likely: words for what is likely to be made up.
        safe: [v] whether a word is never held against a model.
        near: [v, v] whether two words are alike.

    Returns:
        [n, 9] what each caption adds; see `layout.COLUMNS`.
    """
    open_ = ~safe[nouns.word]
    caption, word = nouns.caption[open_], nouns.word[open_]  # [k]
    equal, first = _first(there.words[caption] == word[:, None])
    credits = [(caption[equal], first[equal])]
    caption, word = caption[~equal], word[~equal]
    words = likely.words[caption]  # [k, w]
    named, first = _first(words == word[:, None])
    hits = [(caption[named], first[named])]
    alike, first = _first(near[word[:, None], words] & (words >= 0))
    hits.append((caption[alike], first[alike]))
    words = there.words[caption]  # [k, w]
    excused, first = _first(near[word[:, None], words] & (words >= 0))
    credits.append((caption[excused], first[excused]))
    wrong = count(caption[~excused], nouns.count)
    return columns(
        {
            "wrong": wrong, "kept": count(nouns.caption, nouns.count), "spoilt": wrong > 0,
            "covered": there.marked(*_joined(credits)), "there": there.objects,
            "hit": likely.marked(*_joined(hits)), "likely": likely.objects,
            "one": np.ones(nouns.count), "invented": count(caption[named | alike], nouns.count),
        }
    )  # fmt: skip


def _first(fits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether any word of a row fits, [k], and the first that does, [k]."""
    first = fits.argmax(axis=1)
    return fits[np.arange(len(fits)), first], first


def _joined(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Several (captions, places) as one."""
    return np.concatenate([c for c, _ in pairs]), np.concatenate([p for _, p in pairs])
