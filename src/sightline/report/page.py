"""What a report is made from: plain numbers, texts and PNG bytes, and how to look them up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import DataError, ImageError
from .markup import number

NOTICE = "For research only. Not a medical device; not for diagnosis or treatment."
IMAGES = ("clean", "unaided", "noise", "black", "swapped")
SEEN = ("clean", "unaided")  # the image itself, with and without retrieved reports
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
NOT_FINDINGS = frozenset({"dropped_resamples"})
PNG = b"\x89PNG\r\n\x1a\n"

Side = tuple[str, str]
"""A model and the kind of image it saw."""

_SIDES = re.compile(r"^(?:(?P<prefix>.+?):\s*)?(?P<a>.+?) minus (?P<b>.+?)(?:,? on (?P<image>\S+))?[.?]?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One case of the gallery.

    Args:
        sample: the sample's id.
        patient: its patient.
        image_png: the clean image, as PNG bytes.
        shown: degraded pictures that models saw, kind -> PNG bytes.
        turns: dicts with `question`, `topic`, `answer` (the right one), `answers` {model: text},
            `right` {model: bool} and, optionally, `probability` {model: p(yes)}.
        errors: wrong answers of the case; cases with more come first.
    """

    sample: str
    patient: str
    image_png: bytes
    turns: Sequence[Mapping[str, Any]] = ()
    shown: Mapping[str, bytes] = field(default_factory=dict)
    errors: int = 0

    def __post_init__(self) -> None:
        for kind, data in {"clean": self.image_png, **self.shown}.items():
            if not data.startswith(PNG):
                raise ImageError(
                    "a picture of the report's gallery is not a PNG file",
                    where=f"case {self.sample}, image {kind}",
                    found=repr(bytes(data[:8])),
                    expected=repr(PNG),
                    remedy="encode the picture as PNG before it is given to the report",
                )


@dataclass(frozen=True, slots=True, kw_only=True)
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
        curves: stage -> list of dicts with `step` and any numbers logged at it.
        gallery: cases.
        stages: provenance, dicts with `stage`, `name`, `content`, `seconds`, `parents`, `machine`,
            `versions`.
        notes: warnings, one sentence each.
        audit: results of the data audit, or None.
    """

    title: str
    notice: str = NOTICE
    recipe: str = ""
    command: str = ""
    rows: Sequence[Mapping[str, Any]] = ()
    parts: Mapping[tuple[str, str, str], Mapping[str, float]] = field(default_factory=dict)
    paired: Sequence[Mapping[str, Any]] = ()
    curves: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    calibration: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    abstain: Mapping[str, Any] | None = None
    gallery: Sequence[Card] = ()
    stages: Sequence[Mapping[str, Any]] = ()
    notes: Sequence[str] = ()
    audit: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        _check("rows", self.rows, ("model", "image", "metric", "value"))
        _check("paired", self.paired, ("question", "metric", "difference"))

    @property
    def models(self) -> list[str]:
        """Model names in order of training: `base` first, then as rows name them, then as cards do."""
        found = dict.fromkeys(str(row["model"]) for row in self.rows if not _baseline(row))
        for card in self.gallery:
            for turn in card.turns:
                found.update(dict.fromkeys(map(str, turn.get("answers", {}))))
        return sorted(found, key=lambda name: name != "base")

    @property
    def images(self) -> list[str]:
        """Kinds of images that were scored, clean first."""
        found = dict.fromkeys(str(row["image"]) for row in self.rows)
        return sorted(found, key=lambda kind: IMAGES.index(kind) if kind in IMAGES else len(IMAGES))

    @property
    def blind(self) -> list[str]:
        """Kinds of images that do not show what is asked about."""
        return [kind for kind in self.images if kind not in SEEN]

    @property
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
        for entry in self.paired:
            sides = self.sides(entry) if entry["metric"] == metric else None
            values = [number(entry.get(key)) for key in ("difference", "low", "high")]
            if sides not in ((left, right), (right, left)) or None in values:
                continue
            middle, low, high = (v for v in values if v is not None)
            return (middle, low, high) if sides == (left, right) else (-middle, -high, -low)
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
