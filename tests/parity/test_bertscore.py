"""BERTScore by a tiny BERT with random weights, against the package bert_score on the same folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import BertTokenizer

from sightline.errors import ModelError
from sightline.metrics.bertscore import LAYERS, bertscore
from small_turns import turns

TEXTS = [
    ("no pleural effusion or pneumothorax", "no effusion"),
    ("the heart is enlarged", "the heart is normal"),
    ("left nodule", "left nodule"),
    ("small right effusion", ""),
    ("", "small right effusion"),
    ("lungs are clear", "a unicorn XXXX in the lungs ___"),
]


@pytest.mark.parametrize("layer", [1, 3])
@pytest.mark.parametrize("idf", [False, True])
def test_equals_the_package(tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, layer: int, idf: bool) -> None:
    package = pytest.importorskip("bert_score", reason="bert-score is in the dev extra")
    monkeypatch.setattr(  # transformers 5 has it no longer, and bert_score 0.3.13 calls it for empty texts
        BertTokenizer,
        "build_inputs_with_special_tokens",
        lambda self, ids: [self.cls_token_id, *ids, self.sep_token_id],
        raising=False,
    )
    texts = [(right, said.replace("XXXX", " ").replace("___", " ")) for right, said in TEXTS]
    expected = package.score(
        [said for _, said in texts], [right for right, _ in texts], model_type=str(tiny_bert), num_layers=layer,
        idf=idf, nthreads=0, device="cpu",
    )  # fmt: skip
    (found,) = bertscore(turns(*TEXTS), model=str(tiny_bert), layer=layer, idf=idf)
    assert found.per_sample == pytest.approx(expected[2].numpy(), abs=1e-5)
    ones = np.ones((1, len(TEXTS)))
    parts = {name: float(part(ones)[0]) for name, part in found.parts.items()}
    assert parts == pytest.approx(
        {"precision": float(expected[0].mean()), "recall": float(expected[1].mean())}, abs=1e-5
    )


def test_empty_texts_count_as_nothing_and_equal_ones_as_all(tiny_bert: Path) -> None:
    (found,) = bertscore(turns(*TEXTS), model=str(tiny_bert))
    values = found.per_sample
    assert values is not None
    assert values[2] == pytest.approx(1.0, abs=1e-6)
    assert (values[3], values[4]) == (0.0, 0.0)
    assert found.value() == pytest.approx(values.mean())


def test_the_result_names_model_and_layer(tiny_bert: Path) -> None:
    (found,) = bertscore(turns(*TEXTS), model=str(tiny_bert), layer=2)
    assert f"{tiny_bert.name} layer 2, no idf, not rescaled" in found.doc
    (last,) = bertscore(turns(*TEXTS), model=str(tiny_bert))
    assert "layer 3" in last.doc
    assert LAYERS["distilbert-base-uncased"] == 5


@pytest.mark.parametrize(("model", "layer"), [("", 0), ("nowhere", 0), ("tiny", 4)])
def test_a_model_that_is_not_there_is_an_error(tiny_bert: Path, model: str, layer: int) -> None:
    with pytest.raises(ModelError) as caught:
        bertscore(turns(*TEXTS), model=str(tiny_bert) if model == "tiny" else model, layer=layer)
    assert caught.value.remedy
