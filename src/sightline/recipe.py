"""Every recipe section on one page. A recipe is a list of stages; a stage names the stages that it reads.

`load` reads YAML, applies overrides such as `aligned.loss.beta=0.2`, checks everything and reports all faults
at once with their dotted places. Options of plug-ins (a reader's, a loss's, a metric's) are the keyword-only
arguments of the plug-in itself and are checked without importing it. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from . import graph, plugins, tree
from .errors import RecipeError


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


class Train(Section):
    """How long and how. Any other Hugging Face argument goes under `extra`, verbatim."""

    epochs: float = Field(default=1, gt=0)
    steps: int | None = Field(default=None, ge=1)
    batch: int = Field(default=8, ge=1)
    accumulate: int = Field(default=1, ge=1)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    precision: Literal["float32", "bfloat16"] = "float32"
    save_every: int = Field(default=50, ge=1)
    keep: int = Field(default=2, ge=1)
    extra: dict[str, Any] = Field(default_factory=dict)


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


class Prepare(BaseModel):
    """Raw files to checked, patient-split Parquet. Further keys are options of the reader."""

    model_config = ConfigDict(extra="allow", frozen=True)
    stage: Literal["prepare"]
    reader: str
    root: str | None = None
    split: Split = Split()
    strict: bool = False
    max_bad: float = Field(default=0.05, ge=0, le=1)
    max_pixels: int = Field(default=50_000_000, ge=1)

    @property
    def options(self) -> dict[str, Any]:
        """The reader's own options."""
        return dict(self.model_extra or {})


Where = dict[str, str | tuple[str, ...]]


class Sft(Section):
    """Teach: cross-entropy on the assistant's words only.

    `together` is how many conversations about the same images one row may hold: they see the images and not each
    other, and the images are read once. `train.batch` then counts such groups.
    """

    stage: Literal["sft"]
    data: str
    where: Where = Field(default_factory=dict)
    model: str | Model
    trainable: Trainable
    max_tokens: int = Field(default=1024, ge=16)
    together: int = Field(default=1, ge=1)
    speed: Speed = Speed()
    train: Train = Train()


class Prefer(Section):
    """Preference pairs from samples. `kinds` gives each kind its share of the training samples."""

    stage: Literal["prefer"]
    data: str
    model: str | None = None
    kinds: dict[Literal["wrong_finding", "degraded"], float]
    degrade: DegradeSpec = DegradeSpec()
    topics: tuple[str, ...] = ()
    limit: int | None = Field(default=None, ge=1)


class Align(Section):
    """Align by preference pairs, from the parent merged, with a fresh adapter on top.

    `model` is a taught model, or a new one from parts or a folder: ORPO needs no teaching before it.
    """

    stage: Literal["align"]
    data: str
    where: Where = Field(default_factory=dict)
    model: str | Model
    reference: Literal["parent", "base", "none"] = "parent"
    loss: Loss = Loss()
    speed: Speed = Speed()
    trainable: Trainable = {"language": Plan(lora=Lora(r=16, alpha=32, lr=1e-4))}
    max_tokens: int = Field(default=1024, ge=16)
    train: Train = Train()


class Evaluate(Section):
    """Answers of every model on clean and blind images, scored with intervals, and a report."""

    stage: Literal["evaluate"]
    data: str
    split: Literal["train", "valid", "test"] = "test"
    where: Where = Field(default_factory=dict)
    models: tuple[str, ...] = Field(min_length=1)
    images: tuple[str, ...] = ("clean", "noise", "black", "swapped")
    metrics: tuple[str, ...] = ("vqa",)
    generate: Generate = Generate()
    limit: int | None = Field(default=None, ge=1)
    resamples: int = Field(default=1000, ge=100)

    @field_validator("images")
    @classmethod
    def _clean(cls, images: tuple[str, ...]) -> tuple[str, ...]:
        if "clean" not in images:
            raise ValueError("the list must hold 'clean': blind images are compared with it")
        return images


AnyStage = Annotated[Prepare | Sft | Prefer | Align | Evaluate, Field(discriminator="stage")]


class Recipe(Section):
    """One system, from raw files to measured models."""

    name: str = Field(pattern=graph.NAME)
    seed: int = 0
    stages: dict[str, AnyStage] = Field(min_length=1)

    def reads(self, stage: str) -> list[str]:
        """The stages whose results a stage reads, in the order in which they are named."""
        section = self.stages[stage]
        named = [getattr(section, "data", None), getattr(section, "model", None)]
        named += list(getattr(section, "models", ()))
        return list(dict.fromkeys(n for n in named if isinstance(n, str) and n in self.stages))


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and check a recipe.

    Args:
        path: the YAML file.
        overrides: `stage.key.key=value` (or `seed=1`); the value is YAML.

    Raises:
        RecipeError: with every fault that was found, each with its dotted place.
    """
    document = tree.read(path)
    for text in overrides:
        tree.override(document, text)
    return check(document, str(path))


def check(document: dict[str, Any], where: str) -> Recipe:
    """Check a recipe given as plain mappings. See `load`."""
    try:
        recipe = Recipe.model_validate(document)
        stages, lines = dict(recipe.stages), []
    except ValidationError as error:
        stages, lines = _sound(document), _explain(error)
    named = document["stages"] if isinstance(document.get("stages"), dict) else {}
    kinds = {str(n): s["stage"] if str(n) in stages else None for n, s in named.items()}
    faults = [*lines, *graph.names(kinds), *graph.mentions(stages, kinds), *graph.plug_ins(stages)]
    if faults:
        head = f"{len(faults)} fault(s) in the recipe"
        raise RecipeError("\n  ".join([head, *faults]), where=where)
    return recipe


def _sound(document: dict[str, Any]) -> dict[str, Any]:
    """The stages with their faulty keys left out, where that makes sense; what they name can be checked."""
    found: dict[str, Any] = {}
    for name, section in (document.get("stages") or {}).items():
        kept = section
        for _ in range(2):
            try:
                found[str(name)] = TypeAdapter(AnyStage).validate_python(kept)
                break
            except ValidationError as error:
                faulty = {item["loc"][1] for item in error.errors() if len(item["loc"]) > 1}
                kept = {k: v for k, v in section.items() if k not in faulty} if faulty else section
    return found


def _explain(error: ValidationError) -> list[str]:
    """All faults of a validation as lines `place: what, found ...`; places read as in an override."""
    faults = {_place(item["loc"]): item for item in error.errors()}
    inner = {loc for loc in faults if not any(o != loc and o[: len(loc)] == loc for o in faults)}
    lines = []
    for loc in sorted(inner, key=list(faults).index):
        item = faults[loc]
        text = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            stage = _STAGES.get(str(item["loc"][2])) if len(item["loc"]) > 3 else Recipe
            text = "unknown key" + plugins.nearest(loc[-1], _known_keys(stage))
        elif item["type"] == "union_tag_invalid":
            text = f"unknown stage; known: {', '.join(_STAGES)}"
        elif item["type"] not in ("missing", "value_error"):
            text += f", found {item['input']!r}"
        words = loc[1:] if loc[0] == "stages" and len(loc) > 1 else loc
        lines.append(f"{'.'.join(words)}: {text}")
    return lines


def _place(loc: tuple[str | int, ...]) -> tuple[str, ...]:
    """A dotted place as the user wrote it: without the words that pydantic adds for unions."""
    parts = [str(p) for p in loc]
    if len(parts) > 2 and parts[0] == "stages" and parts[2] in _STAGES:
        del parts[2]
    added = ("Plan", "Model", "literal['frozen']", "str")
    return tuple(p for p in parts if p not in added and not p.startswith("function-"))


_STAGES: dict[str, type[BaseModel]] = {
    "prepare": Prepare, "sft": Sft, "prefer": Prefer, "align": Align, "evaluate": Evaluate,
}  # fmt: skip


def _known_keys(section: type[BaseModel] | None) -> list[str]:
    """Keys of a section and of the sections inside it."""
    if section is None:
        return []
    keys = list(section.model_fields)
    for inner in (Split, Train, Generate, Full, Lora, Plan, Model, DegradeSpec):
        keys += inner.model_fields
    return keys
