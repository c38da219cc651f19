"""What a run would do and need, found out without torch and without changing anything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .. import runs
from ..errors import RunError
from ..recipe import Align, Contrast, Prepare, Recipe, Sft
from ..settings import Connector, Encoder, Model, Plan, Raw
from ..stages import version_of
from . import memory, published, sizes

State = Literal["up to date", "would run", "would resume"]

# Parameters of the kit's parts: SmolLM2-135M with tied embeddings, EfficientNet-Lite0 without its classifier, MiniLM
# without its pooler, EfficientNet-Lite0 up to the last of three layers.
KIT = {
    "kit/smollm2-135m": 134_515_008, "kit/efficientnet-lite0": 3_371_008, "kit/minilm-l6": 22_565_376,
    "kit/efficientnet-lite0-layers": 700_768,
}  # fmt: skip
TOWERS = {"vision": "kit/efficientnet-lite0", "text": "kit/minilm-l6"}  # of the kit's image-text encoder
KIT_CONFIGS: dict[str, dict[str, Any]] = {
    "kit/smollm2-135m": {
        "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
        "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
    }
}  # fmt: skip
CONNECTOR = 1_100_000  # parameters between those two
TEMPORAL = 61_773_111  # of Libra's, at the width of LLaMA-7B
LIBRARIES = 0.95e9  # resident memory of torch and transformers before any model, measured
LOADING = 1.5  # how many times over weights are held while a model is put together, measured
PICTURE = 32_000  # bytes of one generated 224 x 224 picture, measured
STUDIES = 1.3  # studies of one generated patient, on average


@dataclass(frozen=True)
class Step:
    """One stage of a plan: its kind, the stages that it reads, whether it would run and why."""

    name: str
    kind: str
    reads: tuple[str, ...]
    state: State
    why: str

    def text(self) -> str:
        """The step as one line."""
        source = f" <- {', '.join(self.reads)}" if self.reads else ""
        return f"  {self.name + source:<40}{self.kind:<10}{self.state}{f' ({self.why})' if self.why else ''}"


def plan(recipe: Recipe, root: Path) -> list[Step]:
    """Every stage with its state, in the recipe's order.

    Args:
        recipe: the checked recipe.
        root: the folder of all runs.
    """
    steps: list[Step] = []
    fresh: dict[str, str] = {}
    for name, section in recipe.stages.items():
        folder, reads = root / recipe.name / name, tuple(recipe.reads(name))
        outside = _outside(section, recipe)
        state, why = _state(folder, section.model_dump(mode="json"), recipe.seed, [*reads, *outside], fresh)
        if state == "up to date":
            fresh[name] = runs.content(folder)
        steps.append(Step(name, section.stage, (*reads, *outside), state, why))
    return steps


def _state(
    folder: Path, section: dict[str, Any], seed: int, reads: Sequence[str], fresh: dict[str, str]
) -> tuple[State, str]:
    """Whether a stage is up to date, and if not, why."""
    chain = {}
    for name in reads:
        if name in fresh:
            chain[name] = fresh[name]
        elif (Path(name) / runs.MANIFEST).is_file():
            chain[name] = runs.content(Path(name))
        else:
            return "would run", f"'{name}' comes first"
    key = runs.key_of(section, seed, version_of(str(section["stage"])), chain)
    if runs.is_done(folder, key):
        return "up to date", ""
    marker = folder.parent / f".{folder.name}.work" / "key.json"
    if marker.is_file() and runs.read_json(marker).get("key") == key:
        return "would resume", ""
    if not folder.exists():
        return "would run", "new"
    damaged = _same_key(folder, key)
    return "would run", "a file is damaged" if damaged else "the recipe, its data or the code changed"


def _same_key(folder: Path, key: str) -> bool:
    try:
        return bool(runs.read_json(folder / runs.MANIFEST).get("key") == key)
    except RunError:
        return True


def _outside(section: Any, recipe: Recipe) -> list[str]:
    """Saved models that a stage names by folder."""
    judge = getattr(getattr(section, "judge", None), "model", None)
    named = [getattr(section, "model", None), judge, *getattr(section, "models", ())]
    return [m for m in named if isinstance(m, str) and m != "base" and m not in recipe.stages]


def needs(recipe: Recipe, root: Path) -> list[str]:
    """Rough memory and disk that a run needs, and what this machine has; then what each training step holds.

    In the first line weights are counted in float32; a trained weight costs four times as much (its gradient and the
    optimizer's two moments). Activations are left out there: `steps` has them.
    """
    counts = {n: c for n, s in recipe.stages.items() if (c := _parameters(s, recipe)) is not None}
    lines = []
    if counts:
        most = max(counts, key=lambda n: counts[n][0] * 4 + counts[n][1] * 12)
        total, trained = counts[most]
        memory = LIBRARIES + 4 * LOADING * total + 12 * trained
        lines.append(
            f"memory: about {memory / 1e9:.1f} GB before activations"
            f" ({most}: {total / 1e6:.0f} M weights, at most {trained / 1e6:.0f} M trained){_free_memory()}"
        )
    disk = sum(_disk(s) for s in recipe.stages.values()) + sum(4 * t for _, t in counts.values())
    free = shutil.disk_usage(next(p for p in (root, *root.resolve().parents) if p.exists())).free
    lines.append(
        f"disk:   about {disk / 1e9:.2f} GB for pictures and trained weights; {free / 1e9:.1f} GB free"
    )
    return [*lines, *steps(recipe)]


def steps(recipe: Recipe) -> list[str]:
    """One line for each stage that trains a language model: what a step holds, and the devices it fits on."""
    lines = []
    for name, section in recipe.stages.items():
        step = step_of(section, recipe)
        if step is not None:
            lines.append(f"a step of {name}: {memory.need(step).text()}")
    return lines


def step_of(section: Any, recipe: Recipe) -> memory.Step | None:
    """What decides the memory of a stage's step; None where its model is not known by its config."""
    model = _base(section, recipe)
    if not isinstance(section, Sft | Align) or not isinstance(model, Model):
        return None
    found = _outlines(model)
    if "language" not in found:
        return None
    counts = _counts(model, found)
    asked = {part: plan for part, plan in section.trainable.items() if isinstance(plan, Plan)}
    trained = 0
    for part, plan in asked.items():
        size = found.get(part)
        if plan.full:
            trained += counts.get(part, 0)
        elif plan.lora and size:
            trained += size.lora(plan.lora.r, plan.lora.targets)
    rows = section.train.batch * (2 if isinstance(section, Align) else 1)
    through = {"vision", "patches"} & set(
        asked
    )  # a gradient passes the tower to what trains in it or before it
    tower = found.get("vision") if through else None
    patches = counts["patches"]  # they come to what a folder holds
    whole = (_weights(model.path) if model.path else 0) or sum(counts.values()) - patches
    return memory.Step(
        weights=whole + patches, trained=trained, language=found["language"], tokens=rows * section.max_tokens,
        half=section.train.precision == "bfloat16", again=bool(section.train.extra.get("gradient_checkpointing")),
        load=model.load, vision=tower, patches=section.train.batch * section.max_tokens if tower else 0,
    )  # fmt: skip


def _counts(model: Model, found: Mapping[str, sizes.Size]) -> dict[str, int]:
    """Parameters by part: of files where there are any for a part by itself, else as configs tell them."""
    known = {} if model.path else _sizes(model)
    counts = {part: known.get(part) or size.weights for part, size in found.items()}
    width = found["vision"].layer.width if "vision" in found else 0
    patches = 0 if model.patches is None else sizes.patches(model.patches, width)
    return {**counts, "connector": _connector(found, model), "patches": patches}


def _outlines(model: Model) -> dict[str, sizes.Size]:
    """Sizes by part, as configs tell them."""
    if model.path:
        return sizes.parts(published.config(model.path))
    named = {"language": model.language, "vision": model.vision}
    told = {part: KIT_CONFIGS.get(str(s), published.config(s)) for part, s in named.items()}
    return {p: found[p] for p, config in told.items() if p in (found := sizes.parts(config))}


def _connector(found: Mapping[str, sizes.Size], model: Model) -> int:
    """Parameters of a connector between two parts that are known; the kit's otherwise."""
    if "vision" not in found:
        return CONNECTOR
    wide, own = found["language"].layer.width, Connector.of(model.connector)
    if own.plugin == "temporal":
        return int(TEMPORAL * (wide / 4096) ** 2)
    layers = 1 if model.family == "mllama" else int(own.options.get("layers", 1))
    return found["vision"].output * wide + (layers - 1) * wide**2


def _parameters(section: Any, recipe: Recipe) -> tuple[int, int] | None:
    """All weights, and those that train at most, of a training stage; None where loading alone could tell."""
    if not isinstance(section, Contrast | Sft | Align):
        return None
    model = _base(section, recipe)
    if model is None:
        return None
    parts = _sizes(model)
    if not any(parts.values()) and (isinstance(model, Encoder) or model.path):
        return None
    trained = 0
    for part, asked in section.trainable.items():
        if isinstance(asked, Plan):
            share = 1.0 if asked.full else 0.01 * max(1, asked.lora.r / 16 if asked.lora else 1)
            trained += int(parts.get(part, CONNECTOR) * share)
    return sum(parts.values()) + CONNECTOR, trained


def _sizes(model: Model | Encoder) -> dict[str, int]:
    """Parameters by part; those of a folder count as the language model's, of an encoder half for each tower."""
    if isinstance(model, Encoder):
        if model.path:
            return dict.fromkeys(TOWERS, _weights(model.path) // 2)
        return {part: KIT[name] for part, name in TOWERS.items()} if model.encoder == "kit" else {}
    if model.path:
        return {"language": _weights(model.path)}
    return {"vision": _weights(model.vision), "language": _weights(model.language)}


def _base(section: Any, recipe: Recipe) -> Model | Encoder | None:
    """The `model` section at the root of a stage's line."""
    while isinstance(section, Contrast | Sft | Align):
        if isinstance(section.model, Model | Encoder):
            return section.model
        if section.model not in recipe.stages:
            return None
        section = recipe.stages[section.model]
    return None


def _weights(source: str | dict[str, Any]) -> int:
    """Parameters of a part: known for the kit, from the file sizes of a local folder, 0 for a config."""
    if isinstance(source, dict):
        return 0
    if source in KIT:
        return KIT[source]
    return sum(_elements(p) for p in Path(source).glob("*.safetensors"))


def _elements(path: Path) -> int:
    """Numbers in a safetensors file, from its header alone (8 bytes of length, then JSON)."""
    with path.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    total = 0
    for name, entry in header.items():
        if name != "__metadata__":
            count = 1
            for edge in entry["shape"]:
                count *= edge
            total += count
    return total


def _disk(section: Any) -> float:
    """Bytes that a stage's pictures take, where it generates them."""
    if not isinstance(section, Prepare):
        return 0.0
    read: list[Prepare | Raw] = [section, *section.sources.values()]
    patients = [each.options.get("patients", 900) for each in read if each.reader == "phantom"]
    return sum(map(float, patients)) * STUDIES * PICTURE


def _free_memory() -> str:
    """What is free now, on systems that say so in /proc."""
    place = Path("/proc/meminfo")
    if not place.is_file():
        return ""
    known = dict(line.split()[:2] for line in place.read_text(encoding="utf-8").splitlines())
    return f"; {int(known.get('MemAvailable:', 0)) * 1024 / 1e9:.1f} GB free"
