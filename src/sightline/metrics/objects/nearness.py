"""How alike two words are, -1 to 1, as a table of all pairs of a vocabulary.

`spacy` is AMBER's way: the cosine of spaCy's word vectors (en_core_web_lg). `trigram` is the cosine of the counts of
three letters in a row of `#word#`; it needs nothing. `module:function` names a function of one's own that takes the
words, [n] texts, and returns the table, [n, n].
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import metadata
from typing import Any

import numpy as np

from ...errors import ModelError, RecipeError

SPACY_MODEL = "en_core_web_lg"
NAMES = ("spacy", "trigram")
_CLOSE = 1e-4  # float32 sums in another order differ by less


def table(name: str, words: Sequence[str], *, model: str = SPACY_MODEL, threshold: float = 0.8) -> np.ndarray:
    """The likeness of every pair of words.

    Args:
        name: `spacy`, `trigram`, or `module:function`.
        words: n different words.
        model: spaCy's model: a package's name or a folder.
        threshold: where a decision falls; spaCy itself is asked about pairs that are close to it.

    Returns:
        [n, n] float64.

    Raises:
        ModelError: spaCy or its model is absent, or has no vectors.
        RecipeError: an unknown name, or a function that is not there or returns something else.
    """
    if name == "spacy":
        return _vectors(_open_spacy(model), words, threshold)
    if name == "trigram":
        return trigram(words)
    made = np.asarray(_outside(name)(list(words)), dtype=float)
    if made.shape != (len(words), len(words)) or not np.isfinite(made).all():
        raise RecipeError(
            f"'{name}' gives no table of likeness", found=f"shape {made.shape}",
            expected=f"({len(words)}, {len(words)}) finite numbers",
        )  # fmt: skip
    return made


def origin(name: str, model: str) -> str:
    """What compares words, with the version of spaCy and of its model."""
    if name != "spacy":
        return name
    about = _open_spacy(model).meta
    return f"spacy {metadata.version('spacy')}, {about['lang']}_{about['name']} {about['version']}"


def trigram(words: Sequence[str]) -> np.ndarray:
    """Cosine of the counts of three letters in a row, [n, n]; a word's ends count as letters."""
    grams = [Counter(f"#{word}#"[i : i + 3] for i in range(len(word))) for word in words]
    columns = {gram: place for place, gram in enumerate(sorted(set().union(*grams)))}
    counts = np.zeros((len(words), len(columns)))
    for row, found in zip(counts, grams, strict=True):
        for gram, times in found.items():
            row[columns[gram]] = times
    dots = counts @ counts.T  # [n, n] whole numbers
    return dots / np.sqrt(np.outer(dots.diagonal(), dots.diagonal()))


def _outside(name: str) -> Callable[[list[str]], Any]:
    """The function that `module:function` names."""
    module, colon, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function) if colon else _unknown(name)
    except (ImportError, AttributeError):
        return _unknown(name)


def _unknown(name: str) -> Callable[[list[str]], Any]:
    raise RecipeError(
        "no such likeness of words", found=repr(name), expected=f"{', '.join(NAMES)} or module:function",
    )  # fmt: skip


@lru_cache(maxsize=2)
def _open_spacy(model: str) -> Any:
    """The model of spaCy.

    Raises:
        ModelError: spaCy or the model is absent, or the model has no word vectors.
    """
    fetch = f"python -m spacy download {SPACY_MODEL} where there is a network, or model=FOLDER; "
    fetch += "similarity=trigram needs neither, but is not comparable with published figures"
    try:
        import spacy
    except ImportError:
        raise ModelError(
            "similarity=spacy needs the package 'spacy', which is not installed",
            remedy=f"pip install spacy; then {fetch}",
        ) from None
    try:
        opened = spacy.load(model)
    except (OSError, ValueError) as error:
        raise ModelError(
            "spaCy's model cannot be opened",
            where=model,
            found=str(error).splitlines()[0][:120],
            remedy=fetch,
        ) from None
    if not opened.vocab.vectors.n_keys:
        raise ModelError(
            "spaCy's model has no word vectors", where=model, expected="a model with vectors", remedy=fetch
        )
    return opened


def _vectors(nlp: Any, words: Sequence[str], threshold: float) -> np.ndarray:
    """Cosine of the vectors of words, [n, n]; 1 on the diagonal, 0 with a word that has no vector, as spaCy does.

    A vector depends on a word's letters only, so the parts of the pipeline that read sentences are not run.
    """
    docs = [nlp.make_doc(word) for word in words]
    vectors = np.stack([doc.vector for doc in docs]).astype(float)  # [n, width]
    norms = np.sqrt((vectors**2).sum(axis=1))  # [n]
    unit = vectors / np.where(norms > 0, norms, 1)[:, None]
    made = unit @ unit.T
    np.fill_diagonal(made, 1.0)
    for i, j in np.argwhere(np.triu(np.abs(made - threshold) < _CLOSE, 1)):
        made[i, j] = made[j, i] = float(docs[i].similarity(docs[j]))
    return made
