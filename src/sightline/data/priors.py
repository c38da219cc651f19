"""The latest earlier study as prior image: of the same patient, of an earlier day, of the same split, or none at all.

After Libra's rule for MIMIC-CXR (github.com/X-iZhang/Libra, `scripts/mimic-cxr`): studies in the order of their dates,
the prior is the last image of the last earlier day, and studies of one day share it. The image stands behind the
current one in the conversation, as `ImageRef.when` = `prior`. A study without a usable date gets no prior and is none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from typing import Any

from .. import runs
from ..errors import DataError
from ..types import ImageRef, Message, Sample
from .prepare import Prepared
from .source import STAND_IN
from .store import write_samples

ALIKE = "projection"  # attribute that current and prior must share where both have it
Days = dict[date, list[tuple[ImageRef, str]]]


def day(text: str) -> date | None:
    """A study's date, of `2180-05-06`, `21800506` or a time stamp; None where it is no date."""
    try:
        return datetime.fromisoformat(text.strip()).date()
    except ValueError:
        return None


def attach(samples: Sequence[Sample]) -> tuple[list[Sample], dict[str, int]]:
    """Samples with their priors.

    A sample that shows a prior already, or none or several current images, stays as it is. Others gain the
    attribute `prior`, which is `latest` or `none`, and `prior_days`, how many days lie between.

    Args:
        samples: of one split: what stands in another one is never shown.

    Returns:
        The samples in their order, and how many there are of each kind: `attached`, `first` (no earlier study),
        `undated`, `unknown_patient`, `kept`.
    """
    known = _studies(samples)
    made, counts = [], Counter[str]()
    for sample in samples:
        kind, found = _found(sample, known.get(sample.patient, {}))
        counts[kind] += 1
        made.append(_told(sample, found) if kind != "kept" else sample)
    return made, dict(sorted(counts.items()))


def attach_all(made: Prepared) -> dict[str, dict[str, int]]:
    """Attach priors in every split of a prepared data set, in its files.

    Returns:
        The counts of `attach` by split; `dataset.json` holds them as `priors`.

    Raises:
        DataError: the data set holds preferences.
    """
    if made.kind != "samples":
        raise DataError(
            "priors are attached to samples, not to preferences", where="prior_study",
            remedy="attach them where the samples are prepared, then make the pairs",
        )  # fmt: skip
    counts = {}
    for split in made.counts:
        samples, counts[split] = attach(list(made.samples(split)))
        write_samples(made.folder / f"{split}.parquet", samples)
    about: dict[str, Any] = runs.read_json(made.folder / "dataset.json")
    runs.write_json(made.folder / "dataset.json", about | {"priors": counts})
    return counts


def _studies(samples: Sequence[Sample]) -> dict[str, Days]:
    """The current images of every known patient by day, in the order of the data set, with their projection."""
    known: dict[str, Days] = {}
    for sample in samples:
        when = day(sample.date)
        if when is None or sample.patient.startswith(STAND_IN):
            continue
        held = known.setdefault(sample.patient, {}).setdefault(when, [])
        held += [(ref, sample.attributes.get(ALIKE, "")) for ref in sample.images if ref.when == "current"]
    return known


def _found(sample: Sample, studies: Days) -> tuple[str, tuple[ImageRef, int] | None]:
    """What becomes of a sample, and its prior with the days between, if any."""
    if len(sample.images) != 1 or sample.images[0].when == "prior":
        return "kept", None
    if sample.patient.startswith(STAND_IN):
        return "unknown_patient", None
    now = day(sample.date)
    if now is None:
        return "undated", None
    days = sorted(studies)
    for earlier in reversed(days[: bisect_left(days, now)]):
        fitting = [ref for ref, shown in studies[earlier] if _alike(sample, ref, shown)]
        if fitting:
            return "attached", (fitting[-1], (now - earlier).days)
    return "first", None


def _alike(sample: Sample, ref: ImageRef, shown: str) -> bool:
    """Whether an earlier image can be compared with the sample's: of its kind and projection, and not the same file."""
    own, projection = sample.images[0], sample.attributes.get(ALIKE, "")
    return (
        (ref.kind, ref.form) == (own.kind, own.form)
        and (not shown or not projection or shown == projection)
        and (ref.path, ref.sha256) != (own.path, own.sha256)
        and not (ref.sha256 and ref.sha256 == own.sha256)
    )


def _told(sample: Sample, found: tuple[ImageRef, int] | None) -> Sample:
    """The sample with its prior behind the first place of its image, and with what is said about it."""
    if found is None:
        return replace(sample, attributes={**sample.attributes, "prior": "none"})
    ref, days = found
    about: Mapping[str, str] = {"prior": "latest", "prior_days": str(days)}
    return replace(
        sample,
        images=(*sample.images, replace(ref, when="prior")),
        messages=_shown(sample.messages),
        attributes={**sample.attributes, **about},
    )


def _shown(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Messages with image 1 behind the first place of image 0."""
    out: list[Message] = []
    done = False
    for message in messages:
        parts: list[str | int] = []
        for part in message.parts:
            parts.append(part)
            if part == 0 and isinstance(part, int) and not done:
                parts.append(1)
                done = True
        out.append(replace(message, parts=tuple(parts)))
    return tuple(out)
