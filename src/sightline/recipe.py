"""Every stage of a recipe on one page. A recipe is a list of stages; a stage names the stages that it reads.

Groups of settings that several stages share stand in `settings`.

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
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from . import faults, graph, tree
from .errors import RecipeError
from .settings import (
    Abstain,
    Choose,
    ContrastLoss,
    DegradeSpec,
    Encoder,
    Full,
    Generate,
    Judge,
    Lora,
    Loss,
    Model,
    Near,
    Plan,
    Raw,
    Section,
    Speed,
    Split,
    Template,
    Train,
    Trainable,
    spare,
)
from .watching import Chosen, Subgroup, Watch

# Keys of `prepare` that are no part of its key while they are empty.
LATER = ("sources", "prior_study", "near")


class Prepare(BaseModel):
    """Raw files to checked, patient-split Parquet. Further keys are options of the reader.

    Instead of one `reader`, `sources` names several data sets that become one. `prior_study: latest` shows every
    study with the patient's latest study of an earlier day, where there is one.
    `near: {}` looks for near duplicates, too.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    stage: Literal["prepare"]
    reader: str = ""
    root: str | None = None
    sources: dict[Annotated[str, Field(pattern=graph.NAME)], Raw] = Field(default_factory=dict)
    split: Split = Split()
    strict: bool = False
    max_bad: float = Field(default=0.05, ge=0, le=1)
    max_pixels: int = Field(default=50_000_000, ge=1)
    prior_study: Literal["latest"] | None = None
    near: Near | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Prepare:
        if bool(self.reader) == bool(self.sources):
            raise ValueError("say either `reader`, or `sources: {name: {reader: ..., root: ...}}`")
        if self.sources and (self.root is not None or self.options):
            extra = ", ".join([*(["root"] if self.root is not None else []), *self.options])
            raise ValueError(f"{extra}: belongs to one of the `sources`, beside its `reader`")
        return self

    @model_serializer(mode="wrap")
    def _plain(self, plainly: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The section without keys that came later and are not used: old results stay up to date."""
        return spare(self, plainly(self), LATER)

    @property
    def options(self) -> dict[str, Any]:
        """The reader's own options."""
        return dict(self.model_extra or {})


Where = dict[str, str | tuple[str, ...]]


class Contrast(Section):
    """Tune an image-text encoder on images and the answers of one topic.

    `chunk` pairs pass through the towers at a time while all pairs of `train.batch` stay each other's negatives;
    0 passes them together.
    """

    stage: Literal["contrast"]
    data: str
    where: Where = Field(default_factory=dict)
    model: str | Encoder = Encoder()
    topic: str = "report"
    loss: ContrastLoss = ContrastLoss()
    trainable: Trainable
    chunk: int = Field(default=0, ge=0)
    validate_every: int = Field(default=50, ge=1)
    train: Train = Train()


class Index(Section):
    """Reports with their embeddings, to be searched. Reports of the test split are never taken in.

    `collapse` joins reports whose words are that alike (1: only equal ones). `approximate_above` is
    the number of reports from which on search is approximate.
    """

    stage: Literal["index"]
    data: str
    where: Where = Field(default_factory=dict)
    model: str
    split: tuple[Literal["train", "valid"], ...] = Field(default=("train",), min_length=1)
    topic: str = "report"
    collapse: float = Field(default=1.0, gt=0, le=1)
    approximate_above: int = Field(default=1_000_000, ge=1)


class Retrieve(Section):
    """Reports of other patients for every sample. Several indexes are named by domain: the image decides."""

    stage: Literal["retrieve"]
    data: str
    index: str | dict[str, str]
    choose: Choose = Choose()
    prompt: Template = Template()


class Sft(Section):
    """Teach: cross-entropy on the assistant's words only.

    `together` is how many conversations about the same images one row may hold: they see the images and not each
    other, and the images are read once; `train.batch` counts such groups. `reports` is the share of samples whose
    prompt shows the reports retrieved for them. `watch` measures answers of the valid split while it learns.
    """

    stage: Literal["sft"]
    data: str
    where: Where = Field(default_factory=dict)
    model: str | Model
    trainable: Trainable
    max_tokens: int = Field(default=1024, ge=16)
    together: int = Field(default=1, ge=1)
    reports: float = Field(default=1.0, ge=0, le=1)
    speed: Speed = Speed()
    train: Train = Train()
    watch: Watch | None = None
    later = ("watch",)


Kind = Literal[
    "wrong_finding", "degraded", "noised", "cross_modality", "over_reliance", "under_use", "judged"
]
ASKING = ("noised", "cross_modality", "over_reliance", "under_use", "judged")


class Prefer(Section):
    """Preference pairs from samples. `kinds` gives each kind its share of the samples of `split`.

    `noised` (MMed-RAG's first stage), `cross_modality`, `over_reliance` and `under_use` (its second) ask `model`
    itself, with and without the image and the retrieved reports; `judged` lets `judge.model` choose among answers.
    `even` keeps as many of those yes/no pairs that prefer yes as prefer no.
    """

    stage: Literal["prefer"]
    data: str
    model: str | None = None
    split: Literal["train", "valid"] = "train"
    kinds: dict[Kind, float]
    degrade: DegradeSpec = DegradeSpec()
    topics: tuple[str, ...] = ()
    limit: int | None = Field(default=None, ge=1)
    judge: Judge = Judge()
    even: bool = False
    generate: Generate = Generate()
    later = ("even",)

    @model_validator(mode="after")
    def _asked(self) -> Prefer:
        lonely = [kind for kind in self.kinds if kind in ASKING]
        if lonely and self.model is None:
            raise ValueError(f"{', '.join(lonely)}: made of the answers of a model; name it as `model`")
        if "judged" in self.kinds and self.judge.model is None:
            raise ValueError("judged: a second model judges the answers; name it as `judge.model`")
        return self


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
    trainable: Trainable = Field(default={"language": Plan(lora=Lora(r=16, alpha=32, lr=1e-4))})
    max_tokens: int = Field(default=1024, ge=16)
    train: Train = Train()


class Evaluate(Section):
    """Answers of every model on clean and blind images, scored with intervals, and a report.

    Of `images`, `unaided` is the clean image without the reports that were retrieved for it. A metric is a name, or
    `{name: {option: value}}`; one with an option `data` that is left out is given the data root. `abstain` asks the
    clean images of one more split and keeps a threshold of confidence in `abstain.json`. `subgroups` are attributes, or
    `{age: 20}` for bands of numbers.
    """

    stage: Literal["evaluate"]
    data: str
    split: Literal["train", "valid", "test"] = "test"
    where: Where = Field(default_factory=dict)
    models: tuple[str, ...] = Field(min_length=1)
    images: tuple[str, ...] = ("clean", "noise", "black", "swapped")
    metrics: tuple[Chosen, ...] = ("vqa",)
    generate: Generate = Generate()
    limit: int | None = Field(default=None, ge=1)
    resamples: int = Field(default=1000, ge=100)
    abstain: Abstain | None = None
    subgroups: tuple[Subgroup, ...] | None = None
    later = ("subgroups",)

    @model_validator(mode="after")
    def _held(self) -> Evaluate:
        if self.abstain and self.abstain.split == self.split:
            raise ValueError(f"abstain.split: '{self.split}' is what is measured; calibrate on another split")
        both = {"occluded", "occluded_elsewhere"} & set(self.images)
        if len(both) == 1:
            raise ValueError("images: `occluded` and `occluded_elsewhere` belong together")
        return self

    @field_validator("images")
    @classmethod
    def _clean(cls, images: tuple[str, ...]) -> tuple[str, ...]:
        if "clean" not in images:
            raise ValueError("the list must hold 'clean': blind images are compared with it")
        return images

    @property
    def encoder(self) -> str | None:
        """The `contrast` stage that the metric `similarity` names, if any."""
        named = (m.get("similarity", {}).get("encoder") for m in self.metrics if not isinstance(m, str))
        return next((str(name) for name in named if name), None)


class Gate(Section):
    """How far measures may fall when a model is exported: the lower end of the difference's interval decides.

    `allow` maps measures to amounts in their own unit, such as `{balanced_accuracy: 0.02}`; `metrics` are those that
    give them.
    """

    allow: dict[str, Annotated[float, Field(ge=0)]] = Field(min_length=1)
    metrics: tuple[Chosen, ...] = Field(default=("vqa",), min_length=1)
    split: Literal["train", "valid", "test"] = "test"
    where: Where = Field(default_factory=dict)
    limit: int | None = Field(default=None, ge=1)
    generate: Generate = Generate()
    resamples: int = Field(default=1000, ge=100)


class Calibrate(Section):
    """What `gptq` and `awq` are calibrated on: samples of the train split, chosen by a hash of seed and id.

    So many weights of a `group` share a scale: the largest of 128, 64 and 32 that divides every layer's inputs.
    """

    samples: int = Field(default=128, ge=1)
    where: Where = Field(default_factory=dict)
    max_tokens: int = Field(default=1024, ge=16)
    group: Literal[32, 64, 128] | None = None


CALIBRATED = ("gptq", "awq")


class Export(Section):
    """A trained model, or an image-text encoder, as files that other programs open.

    With a `gate` it fails where the answers to `data` become worse than it allows. `round`: more that `fp8` rounds.
    """

    stage: Literal["export"]
    model: str
    to: Literal["merged", "onnx", "onnx_int8", "int8", "nf4", "fp8", "gptq", "awq"] = "merged"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    data: str | None = None
    gate: Gate | None = None
    calibrate: Calibrate | None = None
    round: tuple[Literal["vision", "connector", "head"], ...] | None = None
    later = ("calibrate", "round")

    @model_validator(mode="after")
    def _asked(self) -> Export:
        calibrated = self.to in CALIBRATED
        if calibrated and self.data is None:
            raise ValueError(f"{self.to} is calibrated: name the `data` that the model was taught on")
        if not calibrated and self.calibrate is not None:
            raise ValueError(f"calibrate: of {' and '.join(CALIBRATED)} alone, {self.to} is not calibrated")
        if not calibrated and (self.data is None) != (self.gate is None):
            raise ValueError("`data` and `gate` belong together: what is asked, and how far answers may fall")
        if calibrated and self.gate is not None and self.gate.split == "train":
            raise ValueError("gate.split: the train split is what it is calibrated on; ask another one")
        if self.round and self.to != "fp8":
            raise ValueError("round: of fp8 alone")
        if self.precision != "float32" and self.to.startswith("onnx"):
            raise ValueError("precision: graphs are computed in float32")
        return self


AnyStage = Annotated[
    Prepare | Contrast | Index | Retrieve | Sft | Prefer | Align | Evaluate | Export,
    Field(discriminator="stage"),
]


class Recipe(Section):
    """One system, from raw files to measured models."""

    name: str = Field(pattern=graph.NAME)
    seed: int = 0
    stages: dict[str, AnyStage] = Field(min_length=1)

    def reads(self, stage: str) -> list[str]:
        """The stages whose results a stage reads, in the order in which they are named."""
        section = self.stages[stage]
        named = [getattr(section, "data", None), getattr(section, "model", None)]
        named += [*getattr(section, "models", ()), getattr(section, "encoder", None)]
        named.append(getattr(getattr(section, "judge", None), "model", None))
        index = getattr(section, "index", ())
        named += [index] if isinstance(index, str) else list(dict(index).values())
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
        stages = faults.sound(document, TypeAdapter(AnyStage))
        lines = faults.explain(error, Recipe, STAGES, _INNER)
    named = document["stages"] if isinstance(document.get("stages"), dict) else {}
    kinds = {str(n): s["stage"] if str(n) in stages else None for n, s in named.items()}
    found = [*lines, *graph.names(kinds), *graph.mentions(stages, kinds), *graph.plug_ins(stages)]
    if found:
        head = f"{len(found)} fault(s) in the recipe"
        raise RecipeError("\n  ".join([head, *found]), where=where)
    return recipe


STAGES: dict[str, type[BaseModel]] = {
    "prepare": Prepare, "contrast": Contrast, "index": Index, "retrieve": Retrieve, "sft": Sft, "prefer": Prefer,
    "align": Align, "evaluate": Evaluate, "export": Export,
}  # fmt: skip
_INNER = (
    Split, Train, Generate, Full, Lora, Plan, Model, DegradeSpec, Speed, Encoder, Choose, Template, Judge, Gate, Near,
    Calibrate, Watch,
)  # fmt: skip
