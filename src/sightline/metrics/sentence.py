"""How good one open answer is by itself, 0-1: what decides that a report counts as right when pairs are made.

MMed-RAG's builder (github.com/richard-peng-xia/MMed-RAG, history at a61de2f) scores a report by the sentence BLEU of
its first sentence with one of nltk's smoothings. Here the whole answer counts, and the counting is sacrebleu's.
"""

from __future__ import annotations

from functools import lru_cache

from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from .findings import findings


def agreement(metric: str, text: str, reference: str) -> float:
    """How well an answer agrees with the right one.

    Args:
        metric: `bleu` (sentence BLEU, n-grams up to 4 or as long as the answer), `rouge_l` (F1, stemmed) or
            `finding_f1` (F1 of the findings that are affirmed; 1 where neither text affirms any).
        text: the answer.
        reference: the right one.

    Returns:
        0-1.
    """
    if metric == "bleu":
        return float(_bleu().sentence_score(text, [reference]).score) / 100
    if metric == "rouge_l":
        return float(_rouge().score(reference, text)["rougeL"].fmeasure)
    said, true = _affirmed(text), _affirmed(reference)
    return 2 * len(said & true) / (len(said) + len(true)) if said or true else 1.0


def _affirmed(text: str) -> set[str]:
    return {name for name, present in findings(text).items() if present}


@lru_cache
def _bleu() -> BLEU:
    return BLEU(effective_order=True)


@lru_cache
def _rouge() -> RougeScorer:
    return RougeScorer(["rougeL"], use_stemmer=True)
