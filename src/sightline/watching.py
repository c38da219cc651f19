"""Which metrics are computed, over whom, and what a model is watched by while it learns. No torch here."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from .settings import Section

Chosen = str | Annotated[dict[str, dict[str, Any]], Field(min_length=1, max_length=1)]
Subgroup = str | Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1, max_length=1)]


class Watch(Section):
    """Answers to the valid split every so many steps, teacher-forced: each word behind the right ones before it.

    `limit` is how many samples, chosen by hash. Nothing that is learned depends on it.
    """

    every: int = Field(default=100, ge=1)
    metrics: tuple[Chosen, ...] = ("bleu", "rouge", "temporal_f1")
    limit: int | None = Field(default=200, ge=1)
