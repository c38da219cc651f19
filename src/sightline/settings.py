"""Groups of settings that the sections of a recipe are made of. No torch here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    """A frozen group of settings in which unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Split(Section):
    """How patients are dealt to train, valid and test. `by: official` keeps the data set's own split."""

    train: float = Field(default=0.7, ge=0, le=1)
    valid: float = Field(default=0.1, ge=0, le=1)
    test: float = Field(default=0.2, ge=0, le=1)
    by: Literal["patient", "image", "official"] = "patient"

    @model_validator(mode="after")
    def _whole(self) -> Split:
        if abs(self.train + self.valid + self.test - 1) > 1e-6:
            raise ValueError(f"train + valid + test = {self.train + self.valid + self.test:g}, expected 1")
        return self


class Full(Section):
    """Train every weight of a part."""

    lr: float = Field(gt=0)


class Lora(Section):
    """Train a low-rank adapter on the linear layers of a part (Hu et al. 2021, arXiv 2106.09685)."""

    r: int = Field(default=16, ge=1)
    alpha: float = Field(default=32, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    lr: float = Field(gt=0)
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"


class Plan(Section):
    """What happens to one part of a model: exactly one of `full` and `lora`."""

    full: Full | None = None
    lora: Lora | None = None

    @model_validator(mode="after")
    def _one(self) -> Plan:
        if (self.full is None) == (self.lora is None):
            raise ValueError("say exactly one of `full: {lr: ...}` and `lora: {r: ..., alpha: ..., lr: ...}`")
        return self


Trainable = dict[str, Literal["frozen"] | Plan]


class Model(Section):
    """A model put together from parts. A part is `kit/NAME`, a local folder, or a config as a mapping."""

    family: str = "llava"
    vision: str | dict[str, Any] = "kit/efficientnet-lite0"
    language: str | dict[str, Any] = "kit/smollm2-135m"
    connector: str = "mlp2x_gelu"
    select_layer: int = -1
    select: Literal["full", "default"] = "full"
    system: str = ""
    path: str | None = None


class Encoder(Section):
    """An image-text encoder: the kit's, one opened from a folder (`path`), or OpenCLIP's by name.

    `size` is another edge of images than the checkpoint's: positions are interpolated. `width` is that of the
    kit's embeddings.
    """

    encoder: str = "kit"
    path: str | None = None
    name: str | None = None
    size: int | None = Field(default=None, ge=16)
    width: int = Field(default=256, ge=8)


class Choose(Section):
    """How many reports are shown: all `k`, or as many as a rule finds good enough, at least one.

    `ratio` keeps report i while S1/Si < gamma (MMed-RAG's code), `gap` up to the first log(Si/Si+1) > gamma (its
    paper), `calibrated` the K whose bound on contradicting reports is at most `alpha`. `floor` is the least
    similarity.
    """

    rule: Literal["top", "ratio", "gap", "calibrated"] = "top"
    k: int = Field(default=5, ge=1)
    gamma: float | None = Field(default=None, gt=0)
    floor: float | None = None
    alpha: float = Field(default=0.1, gt=0, lt=1)


class Template(Section):
    """How reports stand in a prompt: whose wording, and what it calls the reader and the picture."""

    name: Literal["mmed_rag", "rule", "plain"] = "mmed_rag"
    role: str = "radiologist"
    image: str = "X-ray"


class Judge(Section):
    """What decides that an open answer is right, or which of several is better.

    `metric` and `threshold` judge reports (`mean`: the mean over the answers compared, as MMed-RAG has it); `model`
    is a saved model that scores `candidates` answers each, RLAIF-V's way.
    """

    metric: Literal["bleu", "rouge_l", "finding_f1"] = "bleu"
    threshold: Literal["mean"] | float = "mean"
    model: str | None = None
    candidates: int = Field(default=4, ge=2)


class Train(Section):
    """How long and how. `warmup` is a share of the steps, or their number from 1 on.

    Any other Hugging Face argument goes under `extra`, verbatim.
    """

    epochs: float = Field(default=1, gt=0)
    steps: int | None = Field(default=None, ge=1)
    batch: int = Field(default=8, ge=1)
    accumulate: int = Field(default=1, ge=1)
    warmup: float = Field(default=0.05, ge=0)
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    precision: Literal["float32", "bfloat16"] = "float32"
    save_every: int = Field(default=50, ge=1)
    keep: int = Field(default=2, ge=1)
    extra: dict[str, Any] = Field(default_factory=dict)

    @field_validator("warmup")
    @classmethod
    def _whole(cls, warmup: float) -> float:
        if warmup >= 1 and warmup != int(warmup):
            raise ValueError("below 1 it is a share of the steps, from 1 on a whole number of them")
        return warmup


class Generate(Section):
    """How answers are produced: greedy, so that a run can be repeated."""

    max_new_tokens: int = Field(default=64, ge=1)
    batch: int = Field(default=64, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"


class DegradeSpec(Section):
    """Which degraded image a pair, a loss or an evaluation uses."""

    kind: str = "replace"
    strength: float = Field(default=1.0, gt=0)


class Speed(Section):
    """What changes how fast a step is and, beyond rounding, not what it computes.

    `share` writes a prompt with its images once for all answers to it; `pack` puts rows behind one another up to so
    many tokens, without padding; `attention` is the one of transformers that computes it. `cache` keeps what frozen
    parts make of an image, `after` or `before` the connector, up to `cache_gb` GiB; `auto` takes what fits.
    """

    share: bool = True
    pack: int = Field(default=0, ge=0)
    attention: Literal["sdpa", "eager", "flex_attention"] = "sdpa"
    cache: Literal["auto", "after", "before", "off"] = "auto"
    cache_gb: float = Field(default=20.0, gt=0)


class Loss(BaseModel):
    """A loss plug-in by name, with its own options beside it.

    `sft` adds that many times the mean negative log-probability of the chosen answer's tokens. `degrade` is the
    degraded image of a loss that wants one (`mdpo`, `povid`); without it, the one of its paper.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = "dpo"
    sft: float = Field(default=0.0, ge=0)
    degrade: DegradeSpec | None = None

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class ContrastLoss(BaseModel):
    """A loss of image-text similarities by name, with its own options beside it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = "siglip"

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})
