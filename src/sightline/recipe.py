"""Every recipe section on one page. A recipe is a list of stages; a stage names the stages that it reads.

`load` reads YAML, applies overrides such as `aligned.loss.beta=0.2`, checks everything and reports all faults
at once with their dotted places. Options of plug-ins (a reader's, a loss's, a metric's) are the keyword-only
arguments of the plug-in itself and are checked without importing it. No torch here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from . import plugins
from .errors import RecipeError

MAX_BYTES = 1_000_000


class Section(BaseModel):
    """A frozen group of settings in which unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Split(Section):
    """How patients are dealt to train, valid and test. `by: official` keeps the data set's own split."""

    train: float = Field(0.7, ge=0, le=1)
    valid: float = Field(0.1, ge=0, le=1)
    test: float = Field(0.2, ge=0, le=1)
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

    r: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
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

    epochs: float = Field(1, gt=0)
    steps: int | None = Field(None, ge=1)
    batch: int = Field(8, ge=1)
    accumulate: int = Field(1, ge=1)
    warmup: float = Field(0.05, ge=0, lt=1)
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    precision: Literal["float32", "bfloat16"] = "float32"
    save_every: int = Field(50, ge=1)
    keep: int = Field(2, ge=1)
    extra: dict[str, Any] = Field(default_factory=dict)


class Generate(Section):
    """How answers are produced: greedy, so that a run can be repeated."""

    max_new_tokens: int = Field(64, ge=1)
    batch: int = Field(64, ge=1)
    precision: Literal["float32", "bfloat16"] = "float32"


class Loss(BaseModel):
    """A loss plug-in by name, with its own options beside it."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = "dpo"

    @property
    def options(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class DegradeSpec(Section):
    """Which degraded image a pair or an evaluation uses."""

    kind: str = "replace"
    strength: float = Field(1.0, gt=0)


class Prepare(BaseModel):
    """Raw files to checked, patient-split Parquet. Further keys are options of the reader."""

    model_config = ConfigDict(extra="allow", frozen=True)
    stage: Literal["prepare"]
    reader: str
    root: str | None = None
    split: Split = Split()
    strict: bool = False
    max_bad: float = Field(0.05, ge=0, le=1)
    max_pixels: int = Field(50_000_000, ge=1)

    @property
    def options(self) -> dict[str, Any]:
        """The reader's own options."""
        return dict(self.model_extra or {})


class Sft(Section):
    """Teach: cross-entropy on the assistant's words only."""

    stage: Literal["sft"]
    data: str
    where: dict[str, str] = Field(default_factory=dict)
    model: str | Model
    trainable: Trainable
    max_tokens: int = Field(1024, ge=16)
    train: Train = Train()


class Prefer(Section):
    """Preference pairs from samples. `kinds` gives each kind its share of the training samples."""

    stage: Literal["prefer"]
    data: str
    model: str | None = None
    kinds: dict[Literal["wrong_finding", "degraded"], float]
    degrade: DegradeSpec = DegradeSpec()
    topics: tuple[str, ...] = ()
    limit: int | None = Field(None, ge=1)


class Align(Section):
    """Align by preference pairs, from the parent merged, with a fresh adapter on top."""

    stage: Literal["align"]
    data: str
    where: dict[str, str] = Field(default_factory=dict)
    model: str
    reference: Literal["parent", "base"] = "parent"
    loss: Loss = Loss()
    trainable: Trainable = {"language": Plan(lora=Lora(r=16, alpha=32, lr=1e-4))}
    max_tokens: int = Field(1024, ge=16)
    train: Train = Train()


class Evaluate(Section):
    """Answers of every model on clean and blind images, scored with intervals, and a report."""

    stage: Literal["evaluate"]
    data: str
    split: Literal["train", "valid", "test"] = "test"
    models: tuple[str, ...] = Field(min_length=1)
    images: tuple[str, ...] = ("clean", "noise", "black", "swapped")
    metrics: tuple[str, ...] = ("vqa",)
    generate: Generate = Generate()
    limit: int | None = Field(None, ge=1)
    resamples: int = Field(1000, ge=100)

    @field_validator("images")
    @classmethod
    def _clean(cls, images: tuple[str, ...]) -> tuple[str, ...]:
        if "clean" not in images:
            raise ValueError("the list must hold 'clean': blind images are compared with it")
        return images


AnyStage = Annotated[Prepare | Sft | Prefer | Align | Evaluate, Field(discriminator="stage")]


class Recipe(Section):
    """One system, from raw files to measured models."""

    name: str = Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
    seed: int = 0
    stages: dict[str, AnyStage] = Field(min_length=1)

    def reads(self, stage: str) -> list[str]:
        """The stages whose results a stage reads, in the order in which they are named."""
        section = self.stages[stage]
        named = [getattr(section, "data", None), getattr(section, "model", None)]
        named += list(getattr(section, "models", ()))
        return list(dict.fromkeys(n for n in named if isinstance(n, str) and n in self.stages))


class _Loader(yaml.SafeLoader):
    """YAML without aliases (they can explode) and without repeated keys (the last would win silently)."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise RecipeError("YAML aliases (*name) are not read", where=f"line {mark.line + 1}")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise RecipeError(f"the key '{key}' stands twice", where=f"line {key_node.start_mark.line + 1}")
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and check a recipe.

    Args:
        path: the YAML file.
        overrides: `stage.key.key=value` (or `seed=1`); the value is YAML.

    Raises:
        RecipeError: with every fault that was found, each with its dotted place.
    """
    if not path.is_file():
        raise RecipeError("no such recipe", where=str(path), remedy="`sightline ls` lists recipes")
    if path.stat().st_size > MAX_BYTES:
        raise RecipeError("a recipe file is small", where=str(path), found=f"{path.stat().st_size} bytes")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError("this is not YAML", where=str(path), found=" ".join(str(error).split())) from None
    except RecursionError:
        raise RecipeError("the YAML is nested too deeply", where=str(path)) from None
    if not isinstance(tree, dict) or not isinstance(tree.get("stages"), dict):
        raise RecipeError("a recipe has `name` and `stages`", where=str(path), found=type(tree).__name__)
    for text in overrides:
        _override(tree, text)
    return check(tree, str(path))


def check(tree: dict[str, Any], where: str) -> Recipe:
    """Check a recipe given as plain mappings. See `load`."""
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError(_explain(error), where=where) from None
    faults = _graph_faults(recipe) + _plugin_faults(recipe)
    if faults:
        raise RecipeError("\n".join([f"{len(faults)} fault(s) in the recipe", *faults]), where=where)
    return recipe


def _override(tree: dict[str, Any], text: str) -> None:
    """Set one `a.b=c`; the first word is a stage's name, or `name`, `seed`."""
    place, equals, value = text.partition("=")
    keys = place.split(".")
    if not equals or not all(keys):
        raise RecipeError("an override reads stage.key=value", found=text)
    if keys[0] not in ("name", "seed"):
        if keys[0] not in tree["stages"]:
            known = [*tree["stages"], "seed", "name"]
            raise RecipeError(
                f"the override names no stage{plugins.nearest(keys[0], known)}",
                found=text,
                expected=f"one of {', '.join(known)} first",
            )
        keys = ["stages", *keys]
    node = tree
    for key in keys[:-1]:
        below = node.get(key)
        if not isinstance(below, dict):
            below = node[key] = {}
        node = below
    try:
        node[keys[-1]] = yaml.load(value, Loader=_Loader)
    except yaml.YAMLError:
        raise RecipeError("the value of an override is not YAML", found=text) from None


def _explain(error: ValidationError) -> str:
    """All faults of a validation as lines `place: what, found ...`."""
    faults = {_place(item["loc"]): item for item in error.errors()}
    inner = {loc for loc in faults if not any(o != loc and o[: len(loc)] == loc for o in faults)}
    lines = [f"{len(inner)} fault(s) in the recipe"]
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
        lines.append(f"  {'.'.join(loc)}: {text}")
    return "\n".join(lines)


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


def _graph_faults(recipe: Recipe) -> list[str]:
    """Names that name no stage, stages of the wrong kind, and a stage that reads a later one."""
    faults = []
    kinds = {name: stage.stage for name, stage in recipe.stages.items()}
    order = list(recipe.stages)
    for name, stage in recipe.stages.items():
        wanted: list[tuple[str, str, tuple[str, ...]]] = []
        if isinstance(stage, Sft | Prefer | Align | Evaluate):
            wanted.append(("data", stage.data, ("prefer", "prepare") if stage.stage == "align" else ("prepare",)))
        if isinstance(getattr(stage, "model", None), str):
            wanted.append(("model", stage.model, ("sft", "align")))  # type: ignore[union-attr,arg-type]
        if isinstance(stage, Evaluate):
            wanted += [("models", m, ("sft", "align")) for m in stage.models if m != "base"]
        for key, value, allowed in wanted:
            faults += _reference_fault(f"  {name}.{key}", value, allowed, kinds, order.index(name), order)
    return faults


def _reference_fault(
    place: str, value: str, allowed: tuple[str, ...], kinds: dict[str, Any], at: int, order: list[str]
) -> list[str]:
    """What is wrong with one stage's mention of another, if anything."""
    if value not in kinds:
        is_model = "sft" in allowed
        if is_model and ("/" in value or Path(value).exists()):
            return []
        return [f"{place}: '{value}' names no stage{plugins.nearest(value, list(kinds))}; known: {', '.join(kinds)}"]
    if kinds[value] not in allowed:
        return [f"{place}: '{value}' is a {kinds[value]} stage, expected {' or '.join(allowed)}"]
    if order.index(value) >= at:
        return [f"{place}: '{value}' stands later in the recipe; move it up"]
    return []


def _plugin_faults(recipe: Recipe) -> list[str]:
    """Unknown plug-ins, and options that their functions do not take."""
    faults: list[str] = []

    def attempt(place: str, kind: plugins.Kind, name: str, options: dict[str, Any] | None = None) -> None:
        try:
            if options is None:
                plugins.source(kind, name)
            else:
                plugins.bind(kind, name, options, where=f"{place}.")
        except RecipeError as error:
            details = "; ".join(t for t in (error.where, error.expected and f"known: {error.expected}") if t)
            faults.append(f"  {place}: {error.what}" + (f" ({details})" if details else ""))

    for name, stage in recipe.stages.items():
        if isinstance(stage, Prepare):
            attempt(name, "readers", stage.reader, stage.options)
        if isinstance(stage, Prefer):
            attempt(f"{name}.degrade", "degrade", stage.degrade.kind)
        if isinstance(stage, Align):
            attempt(f"{name}.loss", "losses", stage.loss.name, stage.loss.options)
        if isinstance(stage, Sft) and isinstance(stage.model, Model):
            attempt(f"{name}.model.family", "families", stage.model.family)
        if isinstance(stage, Evaluate):
            for metric in stage.metrics:
                attempt(f"{name}.metrics", "metrics", metric)
            for image in stage.images:
                if image not in ("clean", "noise"):
                    attempt(f"{name}.images", "degrade", image)
    return faults
