"""Answers to report questions, for metrics of wording."""

from __future__ import annotations

from sightline.types import Prediction


def turns(*pairs: tuple[str, str]) -> list[Prediction]:
    """One patient and one sample for each (right answer, what was said)."""
    return [
        Prediction(
            sample=f"s{i}",
            patient=f"p{i}",
            turn=0,
            question="Report.",
            answer=right,
            text=said,
            topic="report",
        )
        for i, (right, said) in enumerate(pairs)
    ]
