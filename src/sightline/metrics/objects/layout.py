"""Captions and their lists as arrays of word numbers, so that all nouns of all captions are judged at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

NONE = -1

COLUMNS = ("wrong", "kept", "covered", "there", "hit", "likely", "spoilt", "one", "invented")
"""What a caption adds: its nouns that are hallucinated, its nouns, its true objects that are named, its true objects,
its likely hallucinations that are named, its likely hallucinations, whether any noun is hallucinated, 1, and its nouns
that name a likely hallucination."""


@dataclass(frozen=True, slots=True)
class Nouns:
    """The kept nouns of n captions, one after another.

    Args:
        caption: [m] the caption of each noun.
        word: [m] its number in the vocabulary.
        count: n.
    """

    caption: np.ndarray
    word: np.ndarray
    count: int


@dataclass(frozen=True, slots=True)
class Names:
    """For each of n captions the words that stand for its objects of one kind.

    Args:
        words: [n, w] word numbers in the order in which they are tried; `NONE` fills up.
        owners: [n, w] which object of the caption's list each word stands for.
        objects: [n] how many objects the list has.
    """

    words: np.ndarray
    owners: np.ndarray
    objects: np.ndarray

    def marked(self, caption: np.ndarray, place: np.ndarray) -> np.ndarray:
        """How many different objects of each caption are marked, [n].

        Args:
            caption: [k] captions.
            place: [k] columns of `words`; the object that owns the word is marked.
        """
        most = int(self.objects.max(initial=0)) + 1
        marks = np.zeros((len(self.objects), most), dtype=bool)
        marks[caption, self.owners[caption, place]] = True
        return marks.sum(axis=1)


def lay_nouns(found: Sequence[Sequence[str]], numbers: Mapping[str, int]) -> Nouns:
    """Keep the nouns that the vocabulary has.

    Args:
        found: the nouns of each caption.
        numbers: word -> its number.
    """
    kept = [[numbers[word] for word in words if word in numbers] for words in found]
    caption = np.repeat(np.arange(len(kept)), [len(words) for words in kept])
    word = np.array([number for words in kept for number in words], dtype=np.intp)
    return Nouns(caption, word, len(kept))


def lay_names(
    rows: Sequence[Sequence[tuple[str, int]]], objects: Sequence[int], numbers: Mapping[str, int]
) -> Names:
    """Lists of (word, owner) as arrays; a column at least, so that there is always something to look at."""
    width = max([1, *map(len, rows)])
    words = np.full((len(rows), width), NONE, dtype=np.intp)  # [n, w]
    owners = np.zeros((len(rows), width), dtype=np.intp)  # [n, w]
    for place, row in enumerate(rows):
        if row:
            words[place, : len(row)] = [numbers[word] for word, _ in row]
            owners[place, : len(row)] = [owner for _, owner in row]
    return Names(words, owners, np.asarray(objects, dtype=np.intp))


def count(caption: np.ndarray, captions: int) -> np.ndarray:
    """How often each caption occurs, [captions]."""
    return np.bincount(caption, minlength=captions)


def columns(found: Mapping[str, np.ndarray]) -> np.ndarray:
    """The named columns side by side, [n, 9], in the order of `COLUMNS`."""
    return np.stack([np.asarray(found[name], dtype=float) for name in COLUMNS], axis=1)
