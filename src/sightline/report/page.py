"""What a report is made from: plain numbers, texts and the bytes of pictures, and how to look them up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..errors import DataError
from .blinded import Reading
from .card import Card, in_order
from .markup import number

NOTICE = "For research only. Not a medical device; not for diagnosis or treatment."
IMAGES = ("clean", "unaided", "noise", "black", "swapped")
SEEN = ("clean", "unaided")  # the image itself, with and without retrieved reports
COVERED = ("occluded", "occluded_elsewhere")  # the image without one of its parts
METRICS = (
    "balanced_accuracy",
    "vqa_f1",
    "finding_f1",
    "auc",
    "accuracy",
    "exact_match",
    "token_f1",
    "margin",
    "bleu",
    "bleu_1",
    "bleu_2",
    "bleu_3",
    "rouge_l",
    "meteor",
)
RELIANCE = ("over_reliance", "copy_reference", "harm", "help")
LOWER_IS_BETTER = frozenset(
    {
        "brier",
        "ece",
        "ece_width",
        "aurc",
        "aurc_open",
        "grade_unread",
        "diagnosis_unread",
        "chair",
        "hallucination",
        "omission",
        "unparsed",
        "loss",
        "perplexity",
        *RELIANCE[:3],
    }
    | {"amber_chair", "amber_hal", "amber_cog", "amber_unparsed"}
)
MOST_CHANCE = 0.05  # a p value from here on shows nothing
NOT_FINDINGS = frozenset({"dropped_resamples"})

Side = tuple[str, str]
"""A model and the kind of image it saw."""

_SIDES = re.compile(r"^(?:(?P<prefix>.+?):\s*)?(?P<a>.+?) minus (?P<b>.+?)(?:,? on (?P<image>\S+))?[.?]?$")


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that a report shows. Anything but the title may be empty; its section is then left out.

    Args:
        title: the report's heading.
        notice: shown at the top and at the end.
        recipe: the recipe as run, YAML.
        command: the command line that made the run.
        rows: scores, dicts with `model` (in the order of training), `image`, `metric`, `value`, `low`,
            `high`, `n`, `patients`; a metric `majority_X` is the majority baseline of metric X.
        parts: (model, image, metric) -> {finding: value}.
        paired: differences, dicts with `question` ("taught: clean minus noise", "aligned minus taught"),
            `metric`, `a`, `b`, `difference`, `low`, `high`, `p`, `n`, `patients`.
        calibration: model -> `n`, `patients`, `measures` {name: {value, low, high}}, `bins` of dicts with `confidence`,
            `accuracy`, `low`, `high`, `n`, and `curve` of pairs (share answered, share of these that is wrong).
        abstain: what `abstain.json` of an evaluation holds, or None.
        counts: model -> topic -> kind -> turns of that kind, see `mistakes`; of all cases, also those left out.
        changes: over all cases, `turns`, and how many of them the last step `fixed` and `broke`; empty for one model.
        groups: `rows` {attribute, group, model, metric, value, low, high, n, patients}, `gaps` {attribute, model,
            metric, worst, best, gap, low, high, p, chance, equity, equity_low, equity_high}, `changes` of the gaps and
            `left_out`, as `stages.subgroups` gives them; empty without subgroups.
        tables: "model, image" -> "measure: table" -> `rows` and `columns` (names) and `counts`.
        looked: sentences on attention to the image.
        curves: stage -> list of dicts with `step` and any numbers logged at it.
        encoders: dicts with `name`, `rows` (as `rows`, and `chance`) and `map` (as `scatter.layout` makes it, or None).
        calibrated: calibrations of the number of reports shown, as `calibration.json` has them, with their `name`.
        gallery: cases, all of them or those that matter most.
        cases: how many there are in all.
        reading: what a blinded reader is asked, or None.
        about: what the model card says beside figures; see `model_card`.
        stages: provenance, dicts with `stage`, `name`, `content`, `seconds`, `parents`, `machine`,
            `versions`.
        notes: warnings, one sentence each.
        audit: results of the data audit, or None.
        made: what made the numbers: decoding, hashes and versions, or None.
        near: pairs of images that are nearly the same, dicts with `splits`, `records`, `one_patient`, `alike` and the
            bytes of both `pictures`.
    """

    title: str
    notice: str = NOTICE
    recipe: str = ""
    command: str = ""
    rows: Sequence[Mapping[str, Any]] = ()
    parts: Mapping[tuple[str, str, str], Mapping[str, float]] = field(default_factory=dict)
    paired: Sequence[Mapping[str, Any]] = ()
    curves: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    encoders: Sequence[Mapping[str, Any]] = ()
    calibrated: Sequence[Mapping[str, Any]] = ()
    calibration: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    abstain: Mapping[str, Any] | None = None
    counts: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    changes: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    looked: Sequence[str] = ()
    gallery: Sequence[Card] = ()
    cases: int = 0
    reading: Reading | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    stages: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    audit: Mapping[str, Any] | None = None
    made: Mapping[str, Any] | None = None
    near: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self) -> None:
        _check("rows", self.rows, ("model", "image", "metric", "value"))
        _check("paired", self.paired, ("question", "metric", "difference"))
        _check("groups", self.groups.get("rows", ()), ("attribute", "group", "model", "metric", "value"))

    @cached_property
    def models(self) -> list[str]:
        """Model names in order of training: `base` first, then as rows name them, then as cards do."""
        found = dict.fromkeys(str(row["model"]) for row in self.rows if not _baseline(row))
        for card in self.gallery:
            for turn in card.turns:
                found.update(dict.fromkeys(map(str, turn.get("answers", {}))))
        return sorted(found, key=lambda name: name != "base")

    @cached_property
    def answering(self) -> list[str]:
        """Models whose answers stand in the gallery."""
        given = {str(m) for card in self.gallery for turn in card.turns for m in turn.get("answers", {})}
        return [model for model in self.models if model in given]

    @cached_property
    def ordered(self) -> list[Card]:
        """The gallery, worst first; a case's place in it is its number throughout the report."""
        return in_order(self.gallery, self.answering)

    @cached_property
    def images(self) -> list[str]:
        """Kinds of images that were scored, clean first."""
        found = dict.fromkeys(str(row["image"]) for row in self.rows)
        return sorted(found, key=lambda kind: IMAGES.index(kind) if kind in IMAGES else len(IMAGES))

    @property
    def blind(self) -> list[str]:
        """Kinds of images that do not show what is asked about."""
        return [kind for kind in self.images if kind not in SEEN]

    @property
    def unseen(self) -> list[str]:
        """Kinds that take the current image away: neither its prior alone nor a part of it."""
        return [kind for kind in self.blind if not kind.endswith("_prior") and kind not in COVERED]

    @cached_property
    def metrics(self) -> list[str]:
        """Metrics that were scored, the main ones first, majority baselines left out."""
        found = dict.fromkeys(str(row["metric"]) for row in self.rows if not _baseline(row))
        return sorted(found, key=lambda name: METRICS.index(name) if name in METRICS else len(METRICS))

    def row(self, model: str, image: str, metric: str) -> Mapping[str, Any] | None:
        """The score of one model on one kind of image, or None where it is absent or not a number."""
        for row in self.rows:
            if (row["model"], row["image"], row["metric"]) == (model, image, metric):
                return row if number(row["value"]) is not None else None
        return None

    def findings(self, model: str, metric: str) -> dict[str, float]:
        """A metric of one model on clean images for each finding that has one."""
        raw = {} if metric in RELIANCE else self.parts.get((model, "clean", metric), {})
        return {k: v for k, x in raw.items() if k not in NOT_FINDINGS and (v := number(x)) is not None}

    def majority(self, metric: str) -> float | None:
        """What always giving the commonest answer would score."""
        for row in self.rows:
            if row["metric"] == f"majority_{metric}" and row["image"] == "clean":
                return number(row["value"])
        return None

    def pair(self, left: Side, right: Side, metric: str) -> tuple[float, float, float] | None:
        """The paired difference left minus right as (difference, low, high), whichever way it was asked."""
        found = self._entry(left, right, metric)
        if found is None:
            return None
        turned, entry = found
        middle, low, high = (float(entry[key]) for key in ("difference", "low", "high"))
        return (-middle, -high, -low) if turned else (middle, low, high)

    def chance(self, left: Side, right: Side, metric: str) -> float | None:
        """The p value of a paired difference, or None where there is none."""
        found = self._entry(left, right, metric)
        return None if found is None else number(found[1].get("p"))

    def shown(self, left: Side, right: Side, metric: str) -> int:
        """What a paired difference shows: 1 that left is better, -1 that it is worse, 0 neither.

        It shows something where its interval excludes 0 and its p value, where there is one, is small.
        """
        pair, p = self.pair(left, right, metric), self.chance(left, right, metric)
        if pair is None or pair[1] <= 0 <= pair[2] or (p is not None and p >= MOST_CHANCE):
            return 0
        return 1 if (pair[0] > 0) != (metric in LOWER_IS_BETTER) else -1

    def _entry(self, left: Side, right: Side, metric: str) -> tuple[bool, Mapping[str, Any]] | None:
        """The comparison of two sides that has an interval, and whether it was asked the other way round."""
        for entry in self.paired:
            sides = self.sides(entry) if entry["metric"] == metric else None
            whole = all(number(entry.get(key)) is not None for key in ("difference", "low", "high"))
            if whole and sides in ((left, right), (right, left)):
                return sides != (left, right), entry
        return None

    def sides(self, entry: Mapping[str, Any]) -> tuple[Side, Side] | None:
        """What a paired question compares, read from its words, or None where they are free."""
        match = _SIDES.match(str(entry["question"]).strip())
        if match is None:
            return None
        prefix, a, b = match["prefix"], match["a"], match["b"]
        if prefix is None or prefix in self.images:
            image = prefix or match["image"] or "clean"
            return (a, image), (b, image)
        return (prefix, a), (prefix, b)


def _baseline(row: Mapping[str, Any]) -> bool:
    return str(row["metric"]).startswith("majority_")


def _check(name: str, entries: Sequence[Mapping[str, Any]], keys: tuple[str, ...]) -> None:
    for index, entry in enumerate(entries):
        missing = [key for key in keys if key not in entry]
        if missing:
            raise DataError(
                f"the report's {name} lack {', '.join(missing)}",
                where=f"{name}[{index}]",
                found=", ".join(map(str, entry)) or "an empty entry",
                expected=", ".join(keys),
                remedy="run the evaluation again with this version",
            )
