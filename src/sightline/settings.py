"""Groups of settings that the sections of a recipe are made of. No torch here."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

MLP = re.compile(r"^mlp([1-9][0-9]*)x_gelu$")


def spare(section: BaseModel, plain: dict[str, Any], later: Collection[str]) -> dict[str, Any]:
    """A section as plain values, without those of the keys in `later` that are as they are by default."""
    known = {key: type(section).model_fields[key].get_default(call_default_factory=True) for key in later}
    return {key: value for key, value in plain.items() if key not in known or value != known[key]}


class Section(BaseModel):
    """A frozen group of settings in which unknown keys are refused.

    Keys in `later` came later: while they are as by default they are left out, and old results stay up to date.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    later: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _plain(self, plainly: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return spare(self, plainly(self), self.later)


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


class Raw(BaseModel):
    """One of several data sets that `prepare` merges. Further keys are options of its reader.

    Patients of different sources are different people, unless their sources have the same `people`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    reader: str
    root: str | None = None
    people: str = ""

    @property
    def options(self) -> dict[str, Any]:
        """The reader's own options."""
        return dict(self.model_extra or {})


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


class VolumePatches(Section):
    """One kind of volume and its patches, in voxels along right, anterior and superior; `times` points of time.

    `spacing` is in mm; null takes the one at which the whole volume just fits into `size`, the same along all axes.
    Of a size that patches do not divide, `pad` fills up at the end and `drop` cuts off; otherwise it is refused.
    """

    size: tuple[int, int, int]
    patch: tuple[int, int, int]
    times: int | None = Field(default=None, ge=1)
    time_patch: int | None = Field(default=None, ge=1)
    spacing: tuple[float, float, float] | None = None
    pad: bool = False
    drop: bool = False

    @model_validator(mode="after")
    def _sound(self) -> VolumePatches:
        if min(self.size) < 1 or min(self.patch) < 1 or (self.spacing and min(self.spacing) <= 0):
            raise ValueError("sizes, patches and spacings are above 0")
        if (self.times is None) != (self.time_patch is None):
            raise ValueError("`times` and `time_patch` belong together")
        if self.pad and self.drop:
            raise ValueError("say `pad` or `drop`, not both")
        return self

    @property
    def edges(self) -> tuple[int, ...]:
        """Voxels along every axis, time last."""
        return self.size if self.times is None else (*self.size, self.times)

    @property
    def edges_of_patch(self) -> tuple[int, ...]:
        """Voxels of a patch along every axis, time last."""
        return self.patch if self.time_patch is None else (*self.patch, self.time_patch)


class Patches(Section):
    """Volumes in the place of pictures: `t1` without a time axis, `fmri` with one, at least one of them.

    `scale` is how intensities are normalised, `frames` which points of time are taken; `flip` exchanges left and right.
    `weights` names a checkpoint of UMBRELLA whose patches are taken; without it, they start at random.
    """

    t1: VolumePatches | None = None
    fmri: VolumePatches | None = None
    scale: Literal["znorm", "znorm_minback", "none"] = "znorm"
    frames: Literal["first", "even", "window"] = "even"
    flip: bool = False
    weights: str | None = None
    later = ("weights",)

    @model_validator(mode="after")
    def _kinds(self) -> Patches:
        if self.t1 is None and self.fmri is None:
            raise ValueError("say `t1`, `fmri` or both")
        if self.t1 is not None and self.t1.times is not None:
            raise ValueError("`t1` has no time: leave out `times` and `time_patch`")
        if self.fmri is not None and self.fmri.times is None:
            raise ValueError("`fmri` needs `times` and `time_patch`")
        return self


class Connector(BaseModel):
    """A connector by name, with its own options beside it.

    `weights` is a safetensors file with its tensors; without it, it starts at random.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    weights: str | None = None

    @classmethod
    def of(cls, asked: Any) -> Connector:
        """A connector as a recipe names it: a word, a mapping, or one of these."""
        if isinstance(asked, cls):
            return asked
        return cls(name=asked) if isinstance(asked, str) else cls.model_validate(asked)

    @property
    def plugin(self) -> str:
        """Its plug-in's name: that of `mlpNx_gelu` is `mlp`."""
        return "mlp" if MLP.match(self.name) else self.name

    @property
    def options(self) -> dict[str, Any]:
        """Options of its plug-in; `mlpNx_gelu` says how many layers it has."""
        found = MLP.match(self.name)
        return {**(self.model_extra or {}), **({"layers": int(found[1])} if found else {})}


class Model(Section):
    """A model put together from parts. A part is `kit/NAME`, a local folder, or a config as a mapping.

    A language model's config also names the folder of its `tokenizer`. `template` is a named conversation format
    instead of the tokenizer's own; `image_token` a word of the vocabulary, or its number, that stands for images. Of
    `select`, `default` leaves out what a tower puts before its patches (a class token, where it has one). `prior`
    says what becomes of images of an earlier study: what the connector makes of them (`auto`), their place among
    the other images (`stand`), or nothing (`leave`). `patches` says how the family `umbrella` cuts volumes. `load`
    holds the language model's linear layers in 4 or 8 bits, for adapters.
    """

    family: str = "llava"
    vision: str | dict[str, Any] = "kit/efficientnet-lite0"
    language: str | dict[str, Any] = "kit/smollm2-135m"
    connector: str | Connector = "mlp2x_gelu"
    select_layer: int = -1
    select: Literal["full", "default"] = "full"
    system: str = ""
    path: str | None = None
    template: str | None = None
    image_token: str | int | None = None
    prior: Literal["auto", "stand", "leave"] = "auto"
    patches: Patches | None = None
    load: Literal["float32", "4bit", "8bit"] = "float32"
    later = ("template", "image_token", "prior", "patches", "load")


class Encoder(Section):
    """An image-text encoder: the kit's, one opened from a folder (`path`), or OpenCLIP's by name.

    `size` is another edge of images than the checkpoint's: positions are interpolated. `width` is that of the
    kit's embeddings. `vision` and `text`, with its `tokenizer`, are configs of a new `siglip` with random weights.
    """

    encoder: str = "kit"
    path: str | None = None
    name: str | None = None
    size: int | None = Field(default=None, ge=16)
    width: int = Field(default=256, ge=8)
    vision: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    later = ("vision", "text")

    @model_validator(mode="after")
    def _new(self) -> Encoder:
        given = {self.vision is not None, self.text is not None}
        if True in given and (False in given or self.encoder != "siglip" or self.path or self.size):
            raise ValueError("configs of both towers make a new `siglip`, without `path` and `size`")
        return self


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
    """How reports stand in a prompt: whose words, what they call reader and picture; `auto`: `plain` in Chinese too."""

    name: Literal["mmed_rag", "rule", "plain"] = "mmed_rag"
    role: str = "radiologist"
    image: str = "X-ray"
    language: Literal["en", "auto"] = "en"
    later = ("language",)


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
    """How answers are produced, so that a run can be repeated: greedy, or the best of `beams` kept side by side.

    A finished answer of beams scores log p / length^`length_penalty`; `no_repeat` is how long a run of words may not
    come twice in it.
    """

    max_new_tokens: int = Field(default=64, ge=1)
    batch: int = Field(default=64, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"
    beams: int = Field(default=1, ge=1)
    length_penalty: float = 1.0
    no_repeat: int = Field(default=0, ge=0)
    later = ("beams", "length_penalty", "no_repeat")

    @model_validator(mode="after")
    def _beams(self) -> Generate:
        if self.beams == 1 and (self.length_penalty != 1 or self.no_repeat):
            raise ValueError("`length_penalty` and `no_repeat` belong to `beams` of 2 and more")
        return self


class Abstain(Section):
    """When a model should leave an answer to a human: a threshold on its confidence, calibrated on another split.

    `alpha` is the most that the expected share of a patient's questions may be that are answered, and wrongly.
    """

    alpha: float = Field(default=0.1, gt=0, lt=1)
    split: Literal["train", "valid", "test"] = "valid"


class Near(Section):
    """When two `images` (correlation of details) or `texts` (share of runs of three words) are nearly the same."""

    images: float = Field(default=0.88, gt=0, le=1)
    texts: float = Field(default=0.8, gt=0, le=1)


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
