"""Similarities that stand beside answers are counted, and what is none is refused."""

from __future__ import annotations

import numpy as np
import pytest

from sightline.errors import DataError
from sightline.metrics.similarity import similarity
from sightline.types import Prediction


def turn(i: int, said: str, right: str, topic: str = "report") -> Prediction:
    return Prediction(
        sample=f"s{i}", patient=f"p{i}", turn=0, topic=topic, question="Report.", answer="Clear.", text="Clear.",
        attributes={"similarity": said, "similarity_right": right} if said else {},
    )  # fmt: skip


def test_means_by_hand():
    found = {m.name: m for m in similarity([turn(0, "0.2", "0.6"), turn(1, "0.4", "0.5"), turn(2, "", "")])}
    assert found["image_text_similarity"].value() == pytest.approx(0.3)
    assert found["similarity_gap"].value() == pytest.approx(-0.25)
    truth = found["image_text_similarity"].parts["of_the_truth"]
    assert truth(np.ones((1, 2)))[0] == pytest.approx(0.55)
    assert similarity([turn(2, "", "")]) == []


@pytest.mark.parametrize("text", ["1.2", "-2", "nan", "high"])
def test_no_similarity(text):
    with pytest.raises(DataError, match="a similarity is not one") as caught:
        similarity([turn(0, text, "0.5")])
    assert "sample s0" in caught.value.where
