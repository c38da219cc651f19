"""A trained tiny LLaVA to export, questions to ask it, and programs without Sightline that ask what was exported."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import models
from sightline.data.chat import Chat
from sightline.export import opened
from sightline.inference import Answer, ask, end_tokens, items
from sightline.models import checkpoint, trainable
from sightline.models.family import Bundle
from sightline.models.features import Features, gridder
from sightline.settings import Full, Generate, Lora, Plan
from sightline.types import Sample, View

STEPS = 10
ASKED = {"connector": Plan(full=Full(lr=1e-2)), "language": Plan(lora=Lora(r=4, alpha=8, lr=1e-3))}
# Rows of whole blocks of 64, as NF4 wants them.
WIDE = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 320, "initializer_range": 0.2,
    "max_position_embeddings": 1024, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
TRANSFORMERS = """
import json, sys
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
folder, steps, asked = sys.argv[1], int(sys.argv[2]), json.loads(sys.stdin.read())
processor = AutoProcessor.from_pretrained(folder)
model = AutoModelForImageTextToText.from_pretrained(folder)
made = []
for question, image in asked:
    talk = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    text = processor.apply_chat_template(talk, add_generation_prompt=True)
    given = processor(images=Image.open(image), text=text, return_tensors="pt")
    made.append(model.generate(**given, max_new_tokens=steps)[0, given["input_ids"].shape[1] :].tolist())
assert "sightline" not in sys.modules
print(json.dumps({"type": type(model).__module__, "ids": made}))
"""
SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from generate import Model, read
steps, asked = int(sys.argv[2]), json.loads(sys.stdin.read())
model, made = Model(Path(sys.argv[1])), []
for question, image in asked:
    made.append(model.greedy(model.prompt(question, 1), model.prepare(read(Path(image)))[None], steps))
assert not {"sightline", "torch", "transformers"} & set(sys.modules)
print(json.dumps({"ids": made}))
"""


def save(bundle: Bundle, place: Path, asked: Mapping[str, Any] = ASKED, size: float = 0.2) -> Path:
    """Train nothing, but move what would train, and save it as a stage does."""
    model = trainable.apply(bundle, asked, 0)
    models.stir(bundle.model.parameters(), 1, size)
    plain = {part: plan.model_dump() for part, plan in asked.items()}
    checkpoint.save(place / "model", bundle, model, parent=None, trained=plain, home=place / "model")
    return place / "model"


def samples(root: Path, count: int) -> list[Sample]:
    """Open questions, each about a picture of its own."""
    made = []
    for i in range(count):
        image = models.picture(root, f"{i}.png", seed=100 + i)
        made.append(models.sample(f"s{i}", [(f"What is seen at {i * i}, there?", "A line")], [image]))
    return made


def told(bundle: Bundle, asked: Sequence[Sample], root: Path, batch: int = 64) -> list[list[int]]:
    """The ids of Sightline's own answers."""
    found: dict[str, list[Answer]] = {}
    look = Features(bundle, root, root / "kept")
    todo = items(asked, Chat.of(bundle), lambda s, i: View(s.images[i], s.id), gridder(bundle, root))
    look.prepare([view for item in todo for view in item.views])
    how = Generate(max_new_tokens=STEPS, batch=batch)
    ask(bundle, todo, look, how, lambda item, answers: found.update({item.sample.id: answers}))
    return [list(found[sample.id][0].ids) for sample in asked]


def elsewhere(
    program: str, place: Path, asked: Sequence[Sample], root: Path, path: str = ""
) -> dict[str, Any]:
    """What a fresh process makes of the same questions; it must not even have imported Sightline."""
    given = [[s.messages[0].text, str(root / s.images[0].path)] for s in asked]
    ran = subprocess.run(
        [sys.executable, "-c", program, str(place), str(STEPS)], input=json.dumps(given), capture_output=True,
        text=True, check=False, cwd=root, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def without_end(ids: Sequence[Sequence[int]], bundle: Bundle) -> list[list[int]]:
    """Answers without the token that ends them."""
    ends = end_tokens(bundle)
    return [[i for i in row if i not in ends] for row in ids]


def found_at(package: str) -> str:
    """Where a package lies, for processes that are told nothing else."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parents[1])


def agree(package: str, place: Path, root: Path, count: int) -> dict[str, Any]:
    """Answers of a fresh process, which needs this package, are those of the same rounded weights here."""
    asked = samples(root, count)
    bundle = opened.load(place)
    wanted = told(bundle, asked, root)
    found = elsewhere(TRANSFORMERS, place, asked, root, found_at(package))
    assert without_end(found["ids"], bundle) == wanted
    assert found["type"] == "transformers.models.llava.modeling_llava"
    return opened.report(place)
