"""Answers to samples that are not learned, teacher-forced: the likeliest word at each place behind the right ones.

What Libra's `--compute_metrics` measures while it trains (Zhang et al. 2024, arXiv 2411.19378; X-iZhang/Libra on
GitHub). One forward pass answers a whole batch, so it can be had every few steps. It flatters: no early error leads
later words astray. What a model answers by itself is for `evaluate` to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from ..data.collate import SupervisedCollator, Together
from ..data.line import Row
from ..data.turns import exchanges
from ..losses.logps import IGNORE
from ..metrics.measure import Metric
from ..models import device
from ..types import Prediction, Sample
from .trainers import Answers

Scored = tuple[Metric, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Forced:
    """Rows whose right answers are known, and what is measured on them.

    Args:
        answers: the model that learns.
        rows: one a sample, encoded as training rows are.
        samples: those of the rows, by id.
        collate: to a batch in which every row has a sequence of its own, padded on the right.
        batch: rows at a time.
        metrics: with their options, as `judging.loaded` gives them.
        half: compute in bfloat16, as training does.
    """

    answers: Answers
    rows: Sequence[Row]
    samples: Mapping[str, Sample]
    collate: SupervisedCollator
    batch: int
    metrics: Sequence[Scored]
    half: bool = False

    def validate(self) -> dict[str, float]:
        """The mean loss of a learned token in nats, and the value of every measure by its name.

        In eval mode and without gradients: nothing that is learned afterwards depends on it.
        """
        training, home = self.answers.training, next(self.answers.parameters()).device
        self.answers.eval()
        said: list[Prediction] = []
        total, count = 0.0, 0
        with torch.no_grad(), torch.autocast(home.type, dtype=torch.bfloat16, enabled=self.half):
            for at in range(0, len(self.rows), self.batch):
                part = self.rows[at : at + self.batch]
                batch = device.moved(self.collate([Together((row,)) for row in part]), home)
                total -= float(self.answers(batch).sum())
                count += int((batch["labels"] != IGNORE).sum())
                said += self.read(part, self.answers.imagine(batch)["labels"])
        self.answers.train(training)
        found = [m for metric, options in self.metrics for m in metric.score(said, **options)]
        values = {m.name: m.value() for m in found}
        return {"loss": total / count, **{name: value for name, value in values.items() if isfinite(value)}}

    def read(self, rows: Sequence[Row], likeliest: Tensor) -> list[Prediction]:
        """One prediction for each answer of some rows.

        Args:
            rows: as they were collated.
            likeliest: [B, T], the model's own token at each learned place.
        """
        tokenizer, made = self.answers.bundle.tokenizer, []
        for row, ids in zip(rows, likeliest.tolist(), strict=True):
            sample = self.samples[row.id]
            # A row that was too long has lost its last turns.
            for number, (turn, told) in enumerate(zip(row.encoded.turns, exchanges(sample), strict=False)):
                question, right, topic = told
                text = tokenizer.decode(ids[turn.start : turn.stop], skip_special_tokens=True).strip()
                made.append(
                    Prediction(
                        sample=sample.id, patient=sample.patient, turn=number, topic=topic, question=question,
                        answer=right, text=text,
                    )
                )  # fmt: skip
        return made
