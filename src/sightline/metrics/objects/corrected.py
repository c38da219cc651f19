"""How a noun is judged without what depends on order and on letter case.

The first of these that holds decides about a noun that is not a safe word:

1. it is the name of a true object: it covers that object;
2. it is the name of a likely hallucination: hallucinated, and made up as expected;
3. it is an association of true objects: it covers the one whose name is most like it;
4. it is an association of likely hallucinations: as 2;
5. it resembles a word for a true object or for a likely hallucination more than the threshold: as the most like one
   says, a true one where both are equally like;
6. it is hallucinated.

Equal names in a list are one object, and a name in both lists is a true object. Ties go to the name that is first in
the alphabet. Lists are sorted before anything is looked at, so their order cannot matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .layout import Names, Nouns, columns, count, lay_names
from .lists import Lists


def expand(listed: Sequence[Sequence[str]], lists: Lists, numbers: Mapping[str, int]) -> tuple[Names, Names]:
    """The names of the objects of each caption, and the words that stand for them, names included.

    Args:
        listed: the objects of each caption, in lower case.
        lists: what is associated with an object, folded.
        numbers: word -> its number.
    """
    sorted_ = [sorted(set(names)) for names in listed]
    own = [[(name, owner) for owner, name in enumerate(names)] for names in sorted_]
    every = [
        [
            (word, owner)
            for owner, name in enumerate(names)
            for word in (name, *lists.associations.get(name, ()))
        ]
        for names in sorted_
    ]
    sizes = [len(names) for names in sorted_]
    return lay_names(own, sizes, numbers), lay_names(every, sizes, numbers)


def judge(
    nouns: Nouns,
    there: tuple[Names, Names],
    likely: tuple[Names, Names],
    safe: np.ndarray,
    alike: np.ndarray,
    threshold: float,
) -> np.ndarray:
    """Judge every noun of every caption.

    Args:
        nouns: m nouns of n captions.
        there: names of, and words for, what is there.
        likely: the same for what is likely to be made up.
        safe: [v] whether a word is never held against a model.
        alike: [v, v] how alike two words are.
        threshold: what resembles is more alike than this.

    Returns:
        [n, 9] what each caption adds; see `layout.COLUMNS`.
    """
    open_ = ~safe[nouns.word]
    caption, word = nouns.caption[open_], nouns.word[open_]  # [k]
    named, own = _equal(there[0], caption, word)
    invented, lure = _equal(likely[0], caption, word)
    stands, owner = _associated(*there, caption, word, alike)
    tempts, victim = _associated(*likely, caption, word, alike)
    to_true, true_place = _most(there[1], caption, word, alike)
    to_lure, lure_place = _most(likely[1], caption, word, alike)
    resembles = np.maximum(to_true, to_lure) > threshold
    rules = [named, invented, stands, tempts, resembles & (to_true >= to_lure), resembles]
    verdict = np.select(rules, range(6), 6)  # [k]
    covers = np.choose(np.minimum(verdict, 4), [own, own, owner, owner, there[1].owners[caption, true_place]])
    lured = np.choose(
        np.minimum(verdict, 5), [lure, lure, victim, victim, victim, likely[1].owners[caption, lure_place]]
    )
    good, made_up = np.isin(verdict, (0, 2, 4)), np.isin(verdict, (1, 3, 5))
    wrong = count(caption[~good], nouns.count)
    return columns(
        {
            "wrong": wrong, "kept": count(nouns.caption, nouns.count), "spoilt": wrong > 0,
            "covered": _different(there[0], caption[good], covers[good]), "there": there[0].objects,
            "hit": _different(likely[0], caption[made_up], lured[made_up]), "likely": likely[0].objects,
            "one": np.ones(nouns.count), "invented": count(caption[made_up], nouns.count),
        }
    )  # fmt: skip


def _equal(names: Names, caption: np.ndarray, word: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether a noun is the name of an object, [k], and of which, [k]."""
    fits = names.words[caption] == word[:, None]  # [k, w]
    place = fits.argmax(axis=1)
    return fits.any(axis=1), names.owners[caption, place]


def _associated(
    names: Names, words: Names, caption: np.ndarray, word: np.ndarray, alike: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Whether a noun stands for an object, [k], and for which: the one whose name is most like it, [k]."""
    fits = words.words[caption] == word[:, None]  # [k, w]
    owners = words.owners[caption]  # [k, w]
    name = np.take_along_axis(names.words[caption], owners, axis=1)  # [k, w] the owner's name
    likeness = np.where(fits, alike[word[:, None], name], -np.inf)
    place = likeness.argmax(axis=1)
    return fits.any(axis=1), np.take_along_axis(owners, place[:, None], axis=1)[:, 0]


def _most(
    words: Names, caption: np.ndarray, word: np.ndarray, alike: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The likeness of the word that is most like a noun, [k], and its place, [k]."""
    found = words.words[caption]  # [k, w]
    likeness = np.where(found >= 0, alike[word[:, None], found], -np.inf)
    place = likeness.argmax(axis=1)
    return likeness[np.arange(len(place)), place], place


def _different(names: Names, caption: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """How many different objects of each caption are meant, [n]; an object's number is its name's place."""
    return names.marked(caption, owner)
