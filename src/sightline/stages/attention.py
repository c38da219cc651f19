"""Attention to the image: measured beside what covering the finding costs, and told only if it foretells that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tqdm import tqdm

from .. import runs, stats
from ..data.chat import Chat
from ..inference import in_precision, items
from ..judging import ELSEWHERE, OCCLUDED, Side
from ..metrics.looking import MASS, dropped, masses
from ..metrics.measure import Measure, keys, patients
from ..models.attention import on_images
from ..models.family import Bundle
from ..models.features import Features, gridder
from ..types import Prediction
from .answers import Asked, Desk


def measured(desk: Desk, asked: Asked, open_model: Callable[[], Bundle]) -> dict[str, str]:
    """The share of attention that lies on the images when each sample's one turn is answered, by sample.

    What was measured once is kept beside the answers; the model is opened only if there is no such thing.

    Args:
        desk: where.
        asked: samples of one turn.
        open_model: gives the model.

    Returns:
        The shares; nothing of a model that cannot tell them.
    """
    path = desk.place(asked).with_suffix(".attention.json")
    if path.is_file():
        return dict(runs.read_json(path))
    bundle = open_model()
    look = Features(bundle, desk.root, desk.home / ".features")
    in_precision(bundle, desk.generate)
    todo = items(asked.samples, Chat.of(bundle), asked.see, gridder(bundle, desk.root), asked.read)
    look.prepare([view for item in todo for view in item.views], what=asked.name)
    found: dict[str, str] = {}
    for item in tqdm(todo, desc="  attention", unit="question", disable=len(todo) < 2):
        ids = item.encoded.ids[: item.encoded.turns[0].start]
        share = on_images(bundle, ids, [look(view) for view in item.views])
        if share is None:
            break
        found[item.sample.id] = f"{share:.6f}"
    runs.write_json(path, found)
    return found


def given(made: Sequence[Prediction], found: Mapping[str, str]) -> list[Prediction]:
    """Answers to samples of one turn with their attention beside them, where it is known."""
    if not found:
        return list(made)
    return [replace(p, attributes={**p.attributes, MASS: found[p.sample]}) for p in made]


def foretold(
    made: Mapping[Side, Sequence[Prediction]], names: Sequence[str], *, seed: int, resamples: int
) -> dict[str, dict[str, Any]]:
    """Whether attention to the image foretells what covering the finding costs, by model.

    Args:
        made: answers to `occluded` and `occluded_elsewhere` images; the former carry the attention.
        names: models.
        seed: of the interval.
        resamples: of the interval.

    Returns:
        {`correlation` (Spearman's, over questions), `low`, `high`, `n`, `patients`, `shown` (whether the interval is
        above 0), `mean` (the figure itself; None where it is not shown), `told` (a sentence)} of each model whose
        attention is known.
    """
    out = {}
    for name in names:
        if (name, OCCLUDED) not in made:
            continue
        turns, drops = dropped(made[name, OCCLUDED], made[name, ELSEWHERE])
        shares = masses(turns)
        if shares is None:
            continue
        relation = Measure(
            name="attention_foretells", statistic=stats.correlation(shares, drops), keys=keys(turns),
            patients=patients(turns),
        )  # fmt: skip
        score = stats.score(relation, seed=seed, resamples=resamples)
        low, high = score.interval or (None, None)
        shown = low is not None and low > 0
        value = None if score.value != score.value else score.value
        found = (
            "it does not vary" if value is None or low is None else f"{value:.2f}, {low:.2f} to {high:.2f}"
        )
        if shown:
            told = (
                f"{name}: {shares.mean():.2f} of its attention lies on the image when it answers. That foretells what "
                f"covering the finding costs (rank correlation {found})."
            )
        else:
            told = (
                f"{name}: attention to the image is left out, for it does not foretell what covering the finding costs "
                f"(rank correlation {found}; shown only if the interval is above 0)."
            )
        out[name] = {
            "correlation": value, "low": low, "high": high, "n": score.n, "patients": score.patients,
            "shown": shown, "mean": float(shares.mean()) if shown else None, "told": told,
        }  # fmt: skip
    return out
