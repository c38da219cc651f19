"""BERTScore: do the words of an answer mean what those of its reference mean, to a language model?

Each token of the answer is matched with the token of the reference whose embedding is nearest, and the other way
round; F1 of the two mean cosines. A number belongs to one model and one of its layers, so both are named in the
result. Clinically opposite reports score near each other (a lost "no" costs a few hundredths): see `chexpert`.

The model is a local folder; nothing is fetched. This is the one metric whose definition is a transformers model, and
so the one file of this floor that imports transformers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import ModelError
from ..types import Prediction
from .measure import Measure, Metric, average, mean, rows, written
from .tokens import unmark

LAYERS: Mapping[str, int] = {
    "distilbert-base-uncased": 5,
    "bert-base-uncased": 9,
    "bert-base-chinese": 8,
    "bert-base-multilingual-cased": 9,
    "roberta-large": 17,
}
"""The layers that the authors chose on human judgements (github.com/Tiiiger/bert_score), for common models."""
_SPACED = ("roberta", "gpt2")
_BATCH = 32


@dataclass(frozen=True, slots=True)
class _Text:
    """A text as the model sees it: unit embeddings [tokens, width], and what each token weighs, [tokens]."""

    states: Any
    weights: Any


def bertscore(
    predictions: Sequence[Prediction],
    *,
    model: str = "",
    layer: int = 0,
    idf: bool = False,
    device: str = "cpu",
    marks: Literal["drop", "keep"] = "drop",
    report: str = "report",
) -> list[Measure]:
    """Mean BERTScore F1 of report turns, or of open answers where there are no reports.

    Args:
        predictions: the answers of one model under one image condition, in any order.
        model: a folder with an encoder of transformers and its tokenizer.
        layer: the hidden layer whose states are compared, from 1; 0 takes what the authors chose for a folder of that
            name (`LAYERS`), else the last.
        idf: weigh tokens by how rare they are among the references.
        device: where the model runs.
        marks: whether the marks of de-identification are taken out first.
        report: the topic of turns that ask for a report.

    Returns:
        `bertscore`, at most 1, with mean precision and recall as parts; an empty answer scores 0. Not rescaled by a
        baseline. Nothing where there is neither a report nor an open answer.

    Raises:
        DataError: no predictions, or a turn answered twice.
        ModelError: no model named, none in the folder, or no such layer.
    """
    turns = written(rows(predictions), report)
    if not turns:
        return []
    encoder, tokenizer, chosen = _open(model, layer, device)
    said = [_trim(p.text, marks) for p in turns]
    right = [_trim(p.answer, marks) for p in turns]
    rare = _rarity(right, tokenizer) if idf else None
    known = _embed([*said, *right], encoder, tokenizer, chosen, rare)
    scores = np.array([_match(known[a], known[b]) for a, b in zip(said, right, strict=True)])  # [n, 3]
    name = f"{Path(model).name} layer {chosen}, {'idf' if idf else 'no idf'}, not rescaled"
    return [
        mean(
            "bertscore",
            turns,
            scores[:, 2],
            parts={"precision": average(scores[:, 0]), "recall": average(scores[:, 1])},
            doc=f"mean BERTScore F1 by {name}, marks {marks}",
        )
    ]


def _trim(text: str, marks: str) -> str:
    """A text without marks and without blanks at its ends."""
    return (unmark(text) if marks == "drop" else text).strip()


def _open(model: str, layer: int, device: str) -> tuple[Any, Any, int]:
    """The encoder, its tokenizer, and the layer to compare.

    Raises:
        ModelError: no model named, none in the folder, or no such layer.
    """
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    folder = Path(model)
    if not model or not (folder / "config.json").is_file():
        raise ModelError(
            "BERTScore needs a language model in a local folder",
            where=model or "option model",
            found="no config.json",
            expected="a folder with config.json, weights as safetensors and a tokenizer",
            remedy="set model to such a folder; Libra's figures are of distilbert-base-uncased",
        )
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    spaced = {"add_prefix_space": True} if config.model_type in _SPACED else {}
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, **spaced)
    encoder = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).to(device).eval()
    encoder = encoder.encoder if hasattr(encoder, "decoder") and hasattr(encoder, "encoder") else encoder
    depth = int(getattr(config, "num_hidden_layers", 0))
    chosen = layer or LAYERS.get(folder.resolve().name, depth)
    if not 1 <= chosen <= depth:
        raise ModelError(
            "the model has no such layer",
            where=model,
            found=f"layer {chosen}",
            expected=f"1 to {depth}",
            remedy="set layer, or 0 for the default",
        )
    return encoder, tokenizer, chosen


def _rarity(references: Sequence[str], tokenizer: Any) -> dict[int, float]:
    """Token -> log of (references + 1) over (references with it + 1); -1 holds that of unseen tokens."""
    seen: dict[int, int] = {}
    for text in references:
        for token in set(_ids([text], tokenizer)[0]):
            seen[token] = seen.get(token, 0) + 1
    whole = len(references) + 1
    return {-1: log(whole)} | {token: log(whole / (times + 1)) for token, times in seen.items()}


def _ids(texts: Sequence[str], tokenizer: Any) -> list[list[int]]:
    """The tokens of texts with the model's marks at both ends, cut to what the model can read."""
    return [list(tokenizer(text, truncation=True).input_ids) for text in texts]


def _embed(
    texts: Sequence[str], encoder: Any, tokenizer: Any, layer: int, rare: Mapping[int, float] | None
) -> dict[str, _Text]:
    """Every distinct text once, the longest first, so that batches waste little."""
    import torch

    device = next(encoder.parameters()).device
    edges = {tokenizer.cls_token_id, tokenizer.sep_token_id}
    rows_of = dict(zip(distinct := list(dict.fromkeys(texts)), _ids(distinct, tokenizer), strict=True))
    ordered = sorted(distinct, key=lambda text: -len(rows_of[text]))
    known: dict[str, _Text] = {}
    for start in range(0, len(ordered), _BATCH):
        batch = ordered[start : start + _BATCH]
        ids = [torch.tensor(rows_of[text]) for text in batch]
        padded = torch.nn.utils.rnn.pad_sequence(
            ids, batch_first=True, padding_value=tokenizer.pad_token_id or 0
        )
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(each) for each in ids], batch_first=True)
        with torch.inference_mode():
            out = encoder(padded.to(device), attention_mask=mask.to(device), output_hidden_states=True)
        states = out.hidden_states[layer].float().cpu()  # [batch, tokens, width]
        for text, row, held in zip(batch, ids, states, strict=True):
            tokens = row.tolist()
            if rare is None:
                weights = [0.0 if token in edges else 1.0 for token in tokens]
            else:
                weights = [rare.get(token, rare[-1]) for token in tokens]
            unit = torch.nn.functional.normalize(held[: len(row)], dim=-1)
            known[text] = _Text(unit, torch.tensor(weights))
    return known


def _match(said: _Text, right: _Text) -> tuple[float, float, float]:
    """Precision, recall and F1 of one pair; 0 where either text is nothing but its marks at both ends."""
    if min(len(said.weights), len(right.weights)) <= 2:
        return 0.0, 0.0, 0.0
    alike = said.states @ right.states.T  # [said, right]
    precision = float((alike.amax(dim=1) * said.weights).sum() / said.weights.sum())
    recall = float((alike.amax(dim=0) * right.weights).sum() / right.weights.sum())
    both = precision + recall
    return precision, recall, 2 * precision * recall / both if both else 0.0


METRIC = Metric(score=bertscore, version=1, paper="Zhang et al. 2020, arXiv:1904.09675", needs_model=True)
