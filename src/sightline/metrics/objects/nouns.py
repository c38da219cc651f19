"""The nouns of a caption: as AMBER's script finds them with nltk, or plainly, without any language data.

The way of the script: nltk's word tokeniser and tagger over the whole caption, every token whose tag begins with `NN`,
each brought to its shortest noun of WordNet. `plain` looks every word up in the vocabulary, as it stands and without
its plural ending; it needs no data and its numbers are not comparable with published ones.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...errors import DataError

Find = Callable[[str], list[str]]
Way = Literal["nltk", "plain"]
RESOURCES = ("punkt_tab", "averaged_perceptron_tagger_eng", "wordnet")
_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_ENDINGS = (("", ""), ("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe"), ("men", "man"))


def finder(way: Way, vocabulary: Sequence[str], *, folders: Sequence[str] = ()) -> Find:
    """A function that gives the nouns of a text in their order, repeats kept.

    Args:
        way: `nltk` or `plain`.
        vocabulary: what `plain` looks words up in.
        folders: where nltk's data may be, besides where nltk looks itself.

    Raises:
        DataError: nltk's data are absent.
    """
    if way == "nltk":
        return _nltk(tuple(folders))
    known = frozenset(vocabulary)

    def plain(text: str) -> list[str]:
        found = (_singular(word, known) for word in _WORD.findall(text))
        return [word for word in found if word]

    return plain


def beside(data: str, nltk_data: str) -> list[str]:
    """The folders to look in for nltk's data: the one that was given, and `nltk_data` in or beside AMBER's."""
    if nltk_data:
        return [nltk_data]
    near = [Path(data) / "nltk_data", Path(data).resolve().parent / "nltk_data"] if data else []
    return [str(folder) for folder in near if folder.is_dir()]


def origin(way: Way) -> str:
    """What finds nouns, with its version."""
    return f"nltk {metadata.version('nltk')}" if way == "nltk" else way


def _singular(word: str, known: frozenset[str]) -> str:
    """The first form of a word that the vocabulary has; "" where it has none."""
    forms = (word.removesuffix(old) + new for old, new in _ENDINGS if word.endswith(old))
    return next((form for form in forms if form in known), "")


@lru_cache(maxsize=8)
def _nltk(folders: tuple[str, ...]) -> Find:
    """The parts of nltk, opened once."""
    from nltk.corpus import wordnet
    from nltk.stem import WordNetLemmatizer
    from nltk.tag import PerceptronTagger
    from nltk.tokenize import NLTKWordTokenizer
    from nltk.tokenize.punkt import PunktTokenizer

    try:
        with _looking_in(folders):
            sentences, tagger = PunktTokenizer("english"), PerceptronTagger()
            wordnet.ensure_loaded()
    except LookupError as error:
        missing = next((name for name in RESOURCES if name in str(error)), "a part of it")
        raise DataError(
            "nltk's language data are absent", found=f"no {missing}", expected=", ".join(RESOURCES),
            remedy="where there is a network: python -m nltk.downloader " + " ".join(RESOURCES) + "; then set "
            "NLTK_DATA or the option nltk_data to their folder. nouns=plain needs none, but is not comparable",
        ) from None  # fmt: skip
    tagger.model.predict = _predictor(tagger.model)
    words, shortest = NLTKWordTokenizer(), WordNetLemmatizer()
    lemma = lru_cache(maxsize=None)(shortest.lemmatize)

    def nouns(text: str) -> list[str]:
        tokens = [token for sentence in sentences.tokenize(text) for token in words.tokenize(sentence)]
        return [lemma(token) for token, tag in tagger.tag(tokens) if tag.startswith("NN")]

    return nouns


def _predictor(model: Any) -> Callable[..., tuple[str, None]]:
    """What nltk's tagger asks of its perceptron, so that tagging takes a third: the weights of a feature are one row.

    The sums are made in the same order and ties go to the last tag of the alphabet, so the tags are the same.
    """
    tags = sorted(model.classes, reverse=True)
    place = {tag: i for i, tag in enumerate(tags)}
    rows = {feature: np.zeros(len(tags)) for feature in model.weights}
    for feature, weights in model.weights.items():
        for tag in weights.keys() & place.keys():
            rows[feature][place[tag]] = weights[tag]

    def predict(features: Mapping[str, float], return_conf: bool = False) -> tuple[str, None]:
        del return_conf  # nobody asks for it here
        total = np.zeros(len(tags))
        for feature, value in features.items():
            if feature in rows:
                total += rows[feature] if value == 1 else value * rows[feature]
        return tags[int(total.argmax())], None

    return predict


@contextmanager
def _looking_in(folders: Sequence[str]) -> Iterator[None]:
    """Let nltk look in more folders, after its own: it knows no other way than a list of the whole process."""
    import nltk

    before = list(nltk.data.path)
    nltk.data.path[:] = [*before, *folders]
    try:
        yield
    finally:
        nltk.data.path[:] = before
