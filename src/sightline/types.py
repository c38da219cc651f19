"""The words that every floor shares: frozen, without pixels and without tensors.

A `Sample` is one study of one patient as a conversation about its images. A `Preference` is a pair of
answers, of which either side may see other (or degraded) images. A `Prediction` is one answer of one model
to one turn of one sample. A `Score` is a number that knows its interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .errors import DataError

Role = Literal["system", "user", "assistant"]
ROLES = ("system", "user", "assistant")
FORMS = ("raster", "volume")
WHENS = ("current", "prior")
SPARE = {"spare": True}  # of a field that plain values leave out while it is empty


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRef:
    """Where an image is. `path` is relative to the data root; nothing is decoded before it is needed.

    Args:
        path: POSIX path below the data root.
        sha256: hash of the file's bytes; "" until `prepare` has seen the file.
        kind: what it shows (`xray`, `ct`, `mri`, `fundus`, ...); free text.
        when: `current` or `prior` (an earlier study of the same patient).
        form: `raster` (2-D) or `volume` (3-D or 4-D).
    """

    path: str
    sha256: str = ""
    kind: str = "image"
    when: str = "current"
    form: str = "raster"

    def __post_init__(self) -> None:
        if self.when not in WHENS or self.form not in FORMS:
            raise DataError(
                "an image reference has an unknown 'when' or 'form'",
                found=f"when={self.when!r}, form={self.form!r}",
                expected=f"when in {WHENS}, form in {FORMS}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn. A part is a text, or the index of an image in the sample's `images`.

    Args:
        role: `system`, `user` or `assistant`.
        parts: texts and image indices in reading order.
        topic: what an assistant turn is about (`effusion_left`, `report`, ...), for scoring; "" if unknown.
    """

    role: str
    parts: tuple[str | int, ...]
    topic: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise DataError(
                f"unknown role '{self.role}'",
                found=repr(self.role),
                expected="one of system, user, assistant",
                remedy="rename the speaker, or use a reader that knows this layout",
            )

    @property
    def text(self) -> str:
        """The texts of the message, joined; images leave no trace."""
        return "".join(p for p in self.parts if isinstance(p, str))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One study as a conversation.

    Args:
        id: unique in its data set.
        patient: never empty; where patients are unknown, the image's hash stands in.
        study: study id or "".
        date: ISO date or "".
        images: the images that message parts point to.
        messages: the conversation; assistant turns hold the right answers.
        labels: truth known per finding, e.g. `{"effusion_left": 1}`.
        attributes: anything for subgroup analysis (age, sex, site, severity ...).
        references: reference reports put there by retrieval.
    """

    id: str
    patient: str
    images: tuple[ImageRef, ...]
    messages: tuple[Message, ...]
    study: str = ""
    date: str = ""
    labels: Mapping[str, int] = field(default_factory=dict)
    attributes: Mapping[str, str] = field(default_factory=dict)
    references: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.id or not self.patient:
            raise DataError(
                "a sample needs an id and a patient",
                found=f"id={self.id!r}, patient={self.patient!r}",
                expected="two non-empty strings",
            )
        _check_indices(self.messages, len(self.images), self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Degrade:
    """A seeded corruption of an image; a pure function of (kind, strength, seed, record id)."""

    kind: str
    strength: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover(Degrade):
    """A degradation of one box of an image: left, top, right and bottom as shares of its width and height."""

    box: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class View:
    """An image as one record sees it: the file, its degradation if any, and the prior image that it is compared with.

    A `prior` is there only for models that make one map of both; for others a prior image is a view like any other.
    """

    image: ImageRef
    record: str
    degrade: Degrade | None = None
    prior: View | None = None

    @property
    def sight(self) -> tuple[str, ...]:
        """What decides its pixels: two records that show one file see the same, unless it is degraded."""
        spoiled = ("", "") if self.degrade is None else (str(self.degrade), self.record)
        own = (self.image.sha256 or self.image.path, *spoiled)
        return own if self.prior is None else (*own, *self.prior.sight)

    @property
    def each(self) -> tuple[View, ...]:
        """Its images one by one."""
        return (self,) if self.prior is None else (replace(self, prior=None), self.prior)

    def spoilt(self, degrade: Degrade) -> View:
        """The same with all its images degraded."""
        prior = None if self.prior is None else replace(self.prior, degrade=degrade)
        return replace(self, degrade=degrade, prior=prior)


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Two answers to one prompt, of which `chosen` is better. Answers differ or images do.

    Args:
        prompt: messages up to and including the user turn that is answered.
        chosen, rejected: the two answers.
        chosen_images, rejected_images: what each side sees: None (the `images` themselves), other images of
            the same number, or a `Degrade` of `images`.
        why: how the pair was made (`wrong_finding`, `degraded`, ...); recipes select on it as `kind`.
    """

    id: str
    patient: str
    images: tuple[ImageRef, ...]
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str
    chosen_images: tuple[ImageRef, ...] | Degrade | None = None
    rejected_images: tuple[ImageRef, ...] | Degrade | None = None
    why: str = ""

    def __post_init__(self) -> None:
        if not self.id or not self.patient:
            raise DataError(
                "a preference needs an id and a patient", found=f"id={self.id!r}, patient={self.patient!r}"
            )
        if self.chosen == self.rejected and self.chosen_images == self.rejected_images:
            raise DataError(
                "the two answers are equal and so are their images",
                where=f"record {self.id}, field rejected",
                found=repr(self.chosen[:60]),
                expected="answers that differ, or images that differ",
                remedy="drop the record, or mark its rejected side as noised",
            )
        for side in (self.chosen_images, self.rejected_images):
            if isinstance(side, tuple) and len(side) != len(self.images):
                raise DataError(
                    "one side of a preference shows another number of images",
                    where=f"record {self.id}, fields chosen_images and rejected_images",
                    found=f"{len(side)} image(s)",
                    expected=f"{len(self.images)}, as many as the prompt has places",
                )
        _check_indices(self.prompt, len(self.images), self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One model's answer to one assistant turn of one sample.

    Args:
        sample: the sample's id.
        patient: its patient, the unit of resampling.
        turn: index of the assistant turn among the sample's assistant turns.
        topic: what the turn is about, copied from the message.
        question: text of the user turn.
        answer: the right answer.
        text: the model's answer.
        choices: log-probability of each choice at this turn, in nats (`{"yes": -0.3, "no": -1.4}`); empty
            for open questions.
        logp: mean log-probability of the tokens of a decoded answer, its end included, in nats; None where it is
            not known.
        model: a stage's name or `base`.
        image: `clean`, or the kind of degradation that the model saw.
        attributes: what a score must know beside the words: attributes of the sample, or figures that a model gave.
    """

    sample: str
    patient: str
    turn: int
    question: str
    answer: str
    text: str
    topic: str = ""
    choices: Mapping[str, float] = field(default_factory=dict)
    model: str = ""
    image: str = "clean"
    logp: float | None = None
    attributes: Mapping[str, str] = field(default_factory=dict, metadata=SPARE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """A number with its interval.

    Args:
        value: the metric, in its own unit.
        interval: 95 % interval (low, high), or None where it has not been computed.
        per_sample: one value per prediction scored, in order, or None where the metric is not an average.
        parts: named components, e.g. one value per finding.
        n: predictions scored.
        patients: patients they belong to.
    """

    value: float
    interval: tuple[float, float] | None = None
    per_sample: Sequence[float] | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    n: int = 0
    patients: int = 0


def _check_indices(messages: Sequence[Message], count: int, record: str) -> None:
    """Every image index of a conversation must point at an image, and every image must be shown."""
    shown = [p for m in messages for p in m.parts if isinstance(p, int)]
    if any(i < 0 or i >= count for i in shown) or set(shown) != set(range(count)):
        raise DataError(
            "image places and images do not match",
            where=f"record {record}, field messages",
            found=f"places {shown} for {count} image(s)",
            expected="each image shown at least once, and no place without an image",
            remedy="add or remove an <image> mark, or an image",
        )


def to_plain(value: Any) -> Any:
    """A dataclass of this module as dicts, lists and scalars, ready for JSON."""
    if hasattr(value, "__dataclass_fields__"):
        fields = {name: (each, getattr(value, name)) for name, each in value.__dataclass_fields__.items()}
        return {
            name: to_plain(held)
            for name, (each, held) in fields.items()
            if held or not each.metadata.get("spare")
        }
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    return value
