"""What a run knows of its model beside figures: parts, data, steps of training; for the model card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import runs
from ..runs import Run
from ..types import Sample

PARTS = ("family", "path", "vision", "connector", "language", "template")
STEPS = ("epochs", "steps", "batch", "precision")
DATA = ("reader", "counts", "by", "rejected", "generated", "official")


def about(run: Run, line: Mapping[str, Path], samples: Sequence[Sample]) -> dict[str, Any]:
    """The facts of a model card.

    Args:
        run: the evaluation.
        line: the stages that it rests on, in order.
        samples: what was asked.

    Returns:
        `run`, `seed`, `model` (the parts by name), `data` (one dict for each data set), `training` (dicts with `name`
        and `how`), `measured`, and `external`: whether the test data are other than all that the model learned from.
    """
    sections = {name: runs.read_json(place / runs.MANIFEST)["section"] for name, place in line.items()}
    data = {
        name: runs.read_json(place / "dataset.json")
        for name, place in line.items()
        if (place / "dataset.json").is_file()
    }
    section = run.facts["section"]
    learned = {s["data"] for s in sections.values() if s["stage"] in ("sft", "contrast") and "data" in s}
    return {
        "run": run.folder.parent.name,
        "seed": run.facts["seed"],
        "model": _parts(sections),
        "data": [{"name": name, **{k: each[k] for k in DATA if k in each}} for name, each in data.items()],
        "training": [{"name": name, "how": how} for name, each in sections.items() if (how := _step(each))],
        "measured": {
            "measured_on": f"{section['split']} split of {section['data']}",
            "only": ", ".join(f"{k} {v}" for k, v in section.get("where", {}).items()),
            "samples": len(samples),
            "patients": len({s.patient for s in samples}),
            "kinds_of_images": sorted({ref.kind for s in samples for ref in s.images}),
        },
        "external": bool(learned) and section["data"] not in learned,
    }


def _parts(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the first trained model was composed from."""
    made = [s["model"] for s in sections.values() if isinstance(s.get("model"), Mapping)]
    first = made[0] if made else {}
    return {name: first[name] for name in PARTS if first.get(name)}


def _step(section: Mapping[str, Any]) -> str:
    """A stage that trains, or makes what is trained on, in a line; empty for other stages."""
    stage = section["stage"]
    if stage == "prefer":
        kinds = ", ".join(f"{name} {share:g}" for name, share in section.get("kinds", {}).items())
        return f"pairs from the answers of {section.get('model')}: {kinds}"
    if "train" not in section:
        return ""
    loss = section.get("loss")
    name = loss.get("name") if isinstance(loss, Mapping) else loss
    start = section.get("model")
    train = dict(section["train"])
    if train.get("steps") is not None:
        train.pop("epochs", None)  # steps decide then
    told = [
        f"{stage}{f' by {name}' if name else ''} on {section.get('data')}",
        f"from {start}" if isinstance(start, str) else "",
        ", ".join(f"{k} {train[k]}" for k in STEPS if train.get(k) is not None),
        "; ".join(f"{part} {_how(how)}" for part, how in (section.get("trainable") or {}).items() if how),
    ]
    return ". ".join(text for text in told if text)


def _how(how: Any) -> str:
    """`frozen`, or `lora r 16, alpha 32, lr 0.0003`."""
    if not isinstance(how, Mapping):
        return str(how)
    return "; ".join(
        f"{kind} {', '.join(f'{k} {v}' for k, v in (options or {}).items() if not isinstance(v, (list, dict)))}"
        for kind, options in how.items()
        if options is not None
    )
