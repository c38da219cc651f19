"""A report as an index holds it: its text, whose it is, and what its study's images are."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..types import ImageRef, Sample

DOMAIN = "domain"  # the attribute that names a sample's domain, where one does
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report of one study.

    Args:
        id: that of the sample it comes from; unique in an index.
        patient: never shown to this patient's own samples.
        split: `train` or `valid`.
        text: the report, blanks at its ends removed.
        study, date: those of the sample.
        domain: the sample's attribute of that name, else the kind of its first image.
        images: the study's images.
        labels: truth known per finding.
        attributes: the sample's.
    """

    id: str
    patient: str
    split: str
    text: str
    study: str = ""
    date: str = ""
    domain: str = ""
    images: tuple[ImageRef, ...] = ()
    labels: Mapping[str, int] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)


def text_of(sample: Sample, topic: str) -> str:
    """A sample's report: its answers of a topic (of any, if `topic` is ""), joined; "" where it has none."""
    answers = [m for m in sample.messages if m.role == "assistant" and topic in ("", m.topic)]
    return " ".join(text for m in answers if (text := m.text.strip()))


def gather(samples: Iterable[Sample], split: str, topic: str) -> list[Report]:
    """The reports of a split; samples without one are passed over."""
    return [
        Report(
            id=s.id, patient=s.patient, split=split, text=text, study=s.study, date=s.date, domain=domain_of(s),
            images=s.images, labels=s.labels, attributes=s.attributes,
        )
        for s in samples
        if (text := text_of(s, topic))
    ]  # fmt: skip


def domain_of(sample: Sample) -> str:
    """What kind of picture a sample is about, as far as its data say."""
    return sample.attributes.get(DOMAIN) or (sample.images[0].kind if sample.images else "")


def normalise(text: str) -> str:
    """The form in which equal reports are equal: NFKC, lower case, single blanks, no full stop at the end.

    Other punctuation stays: "No effusion. Nodule." and "No effusion, nodule." say different things.
    """
    plain = unicodedata.normalize("NFKC", text).lower()
    return _BLANKS.sub(" ", plain).strip().rstrip(".").rstrip()
