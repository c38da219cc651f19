"""METEOR 1.5, aligned by its own Java program, as pycocoevalcap and the captioning papers use it.

The program matches words by form, stem, synonym and paraphrase; its tables are part of it, so it is run, not restated.
It gives 23 counts for each pair, from which the score follows by a formula; that formula is here, so that a bootstrap
needs no Java. The corpus score is the formula of summed counts, not the mean of the segments' scores.

Without Java there is `meteor_nltk`, which is another number.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import SightlineError
from ..types import Prediction
from .measure import Measure, Metric, average, keys, patients, ratio, rows, tally, written
from .tokens import pairs

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
MATCHERS = np.array([1.0, 0.6, 0.8, 0.6])  # exact, stem, synonym, paraphrase
COUNTS = 23


def meteor(
    predictions: Sequence[Prediction],
    *,
    jar: str = "",
    java: str = "java",
    tokenize: Literal["ptb", "blank"] = "ptb",
    marks: Literal["drop", "keep"] = "drop",
    report: str = "report",
) -> list[Measure]:
    """Corpus METEOR (English) of report turns, or of open answers where there are no reports.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        jar: `meteor-1.5.jar` with its folder `data` beside it; "" takes the one in the package pycocoevalcap.
        java: the Java program, by name or path.
        tokenize: how texts become tokens; `metrics/tokens.py` says what each does.
        marks: whether the marks of de-identification are taken out first.
        report: the topic of turns that ask for a report.

    Returns:
        `meteor`, 0-1; parts: precision, recall, fragmentation penalty, and the mean of the segments' scores. An empty
        answer adds nothing but its reference's length. Nothing where there is neither a report nor an open answer.

    Raises:
        DataError: no predictions, or a turn answered twice.
        SightlineError: no Java, no jar, or the program failed.
    """
    turns = written(rows(predictions), report)
    if not turns:
        return []
    columns = align(pairs(turns, tokenize, marks), find(jar), java)
    each = formula(columns)
    parts = {
        "precision": tally(columns, lambda sums: _weighted(sums, 0)),
        "recall": tally(columns, lambda sums: _weighted(sums, 1)),
        "penalty": tally(columns, _penalty),
        "segments": average(np.nan_to_num(each)),
    }
    return [
        Measure(
            name="meteor",
            statistic=tally(columns, formula),
            keys=keys(turns),
            patients=patients(turns),
            parts=parts,
            doc=f"corpus METEOR 1.5 (en, with synonyms and paraphrases) by its Java program, tokens {tokenize}, "
            f"marks {marks}",
        )
    ]


def find(jar: str) -> Path:
    """Where METEOR's program is.

    Raises:
        SightlineError: nowhere, or without its data.
    """
    path = Path(jar) if jar else None
    if path is None:
        package = importlib.util.find_spec("pycocoevalcap")
        places = package.submodule_search_locations if package else None
        path = Path(places[0], "meteor", "meteor-1.5.jar") if places else Path("meteor-1.5.jar")
    if not path.is_file() or not (path.parent / "data").is_dir():
        raise SightlineError(
            "METEOR's program is not here",
            where=str(path),
            found="no jar, or no folder 'data' beside it",
            expected="meteor-1.5.jar with its data",
            remedy="pip install pycocoevalcap, or set the option jar; meteor_nltk needs neither it nor Java",
        )
    return path.resolve()


def align(texts: Sequence[tuple[Sequence[str], Sequence[str]]], jar: Path, java: str = "java") -> np.ndarray:
    """What METEOR counts of each pair.

    Args:
        texts: (answer, reference) as tokens.
        jar: the program.
        java: what runs it.

    Returns:
        [n, 23]: tokens of the answer and of the reference, function words of both; for each of the matchers exact,
        stem, synonym and paraphrase the matched content words of both, then function words of both; chunks (0 where
        both texts match as one piece), matched words of both.

    Raises:
        SightlineError: no Java, or the program ended early.
    """
    if shutil.which(java) is None:
        raise SightlineError(
            "METEOR needs Java, and there is none",
            found=f"no program '{java}'",
            expected="a Java runtime of version 8 or later",
            remedy="install one (Debian: default-jre-headless), set the option java, or use meteor_nltk",
        )
    command = [java, "-Xmx2G", "-XX:+UseSerialGC", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    lines = [" ||| ".join(["SCORE", _plain(right), _plain(said)]) for said, right in texts]
    found = subprocess.run(
        command, cwd=jar.parent, input="\n".join(lines) + "\n", capture_output=True, text=True, encoding="utf-8",
        check=False,
    )  # fmt: skip
    table = [line.split() for line in found.stdout.splitlines() if line.strip()]
    if len(table) != len(lines) or any(len(row) != COUNTS for row in table):
        raise SightlineError(
            "METEOR's program gave no counts",
            where=" ".join(command[:5]),
            found=(found.stderr.strip().splitlines() or [f"{len(table)} of {len(lines)} lines"])[-1],
            expected=f"{COUNTS} counts for each of {len(lines)} pairs",
            remedy="run the command by hand",
        )
    counts = np.array(table, dtype=float)
    whole = (counts[:, 21] == counts[:, 0]) & (counts[:, 22] == counts[:, 1]) & (counts[:, 20] == 1)
    counts[whole, 20] = 0  # texts that match as one piece are in no pieces: the program sums them so
    return counts


def _plain(words: Sequence[str]) -> str:
    """Tokens as one line that the program's protocol cannot mistake."""
    return " ".join(words).replace("|||", " ")


def formula(sums: np.ndarray) -> np.ndarray:
    """METEOR of (summed) counts [R, 23]; NaN where there are neither answers nor references."""
    precision, recall = _weighted(sums, 0), _weighted(sums, 1)
    below = ALPHA * precision + (1 - ALPHA) * recall
    mean = np.where(below > 0, np.divide(precision * recall, np.where(below > 0, below, 1)), 0.0)
    score = mean * (1 - _penalty(sums))
    return np.where(sums[:, 0] + sums[:, 1] > 0, score, np.nan)


def _weighted(sums: np.ndarray, side: int) -> np.ndarray:
    """Weighted matches over weighted length: 0 is the answer's (precision), 1 the reference's (recall)."""
    content = sums[:, 4 + side : 20 : 4] @ MATCHERS
    function = sums[:, 6 + side : 20 : 4] @ MATCHERS
    words = sums[:, 2 + side]
    length = DELTA * (sums[:, side] - words) + (1 - DELTA) * words
    return np.nan_to_num(ratio(DELTA * content + (1 - DELTA) * function, length))


def _penalty(sums: np.ndarray) -> np.ndarray:
    """The price of matches that lie in many pieces."""
    return GAMMA * np.nan_to_num(ratio(sums[:, 20], sums[:, 21:23].mean(axis=1))) ** BETA


METRIC = Metric(
    score=meteor, version=1, paper="Denkowski and Lavie 2014 (METEOR 1.5), aclanthology.org/W14-3348"
)
