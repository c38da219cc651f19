"""sft with `watch`: figures of the valid split while a model learns, by hand, and nothing that is learned changes."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
import torch
from test_processes import Fork, words

import models
import small
from sightline import plugins, recipe, runs, stages
from sightline.data.chat import Chat
from sightline.data.collate import Plan, SupervisedCollator, Together
from sightline.data.rows import encode_samples
from sightline.errors import Interrupted, RecipeError, RunError
from sightline.judging import loaded
from sightline.models.features import Pixels, gridder
from sightline.stages import launch
from sightline.stages.launch import Spread
from sightline.train.forced import Forced
from sightline.train.trainers import Answers, SupervisedTrainer
from sightline.types import Prediction

WATCH = {"every": 2, "metrics": ["rouge", {"vqa": {}}]}
SPLIT = {"train": 0.5, "valid": 0.25, "test": 0.25}


def document(language: Path, **taught: Any) -> dict[str, Any]:
    made = small.only(language, "data", "taught")
    made["stages"]["data"].update(patients=12, split=SPLIT)
    made["stages"]["taught"]["train"] = {"steps": 5, "batch": 4, "save_every": 2, "warmup": 0.2}
    made["stages"]["taught"].update(taught)
    return made


def run(made: dict[str, Any], root: Path, spread: Spread | None = None) -> Path:
    done = stages.execute(recipe.check(made, "test"), root, say=lambda line: None, spread=spread)
    return done["taught"]


def history(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "validation.json").read_text(encoding="utf-8"))["history"]


@pytest.fixture(scope="module")
def done(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(document(language, watch=WATCH), tmp_path_factory.mktemp("runs"))


def test_every_so_many_steps_and_after_the_last_one(done: Path) -> None:
    found = history(done)
    assert [e["step"] for e in found] == [2, 4, 5]
    assert {"loss", "rouge_l", "accuracy", "balanced_accuracy"} <= set(found[0])
    assert found[-1]["loss"] < found[0]["loss"]
    assert [e["loss"] for e in small.events(done, "validation")] == [e["loss"] for e in found]
    best = json.loads((done / "validation.json").read_text(encoding="utf-8"))["best"]
    assert best == min(found, key=lambda e: e["loss"])["step"]


def test_nothing_that_is_learned_depends_on_it(language: Path, done: Path, tmp_path: Path) -> None:
    plain = run(document(language), tmp_path)
    assert not (plain / "validation.json").exists()
    assert small.curve(plain) == small.curve(done)
    name = "model/adapter_model.safetensors"
    assert (plain / name).read_bytes() == (done / name).read_bytes()
    section = recipe.check(document(language), "test").stages["taught"].model_dump(mode="json")
    assert "watch" not in section, "results that were made before are still up to date"


def test_the_figures_are_those_of_plain_forward_passes(language: Path, tmp_path: Path) -> None:
    """Loss and likeliest words from logits, a sample at a time; the batch has rows of different lengths."""
    models.write_pictures(tmp_path)
    made = models.bundle(language)
    samples = [
        models.sample("a", [("Is there a line?", "Yes"), ("Say where.", "On the left side.")], models.PICTURES[:1]),
        models.sample("b", [("Is it?", "No")], models.PICTURES[1:2]),
        models.sample("c", [("Describe.", "The heart is large, the lungs are clear.")], models.PICTURES[2:3]),
    ]  # fmt: skip
    chat, grid = Chat.of(made), gridder(made, tmp_path)
    rows, _ = encode_samples(samples, chat, 2048, grid)
    plan = Plan(look=Pixels(made, tmp_path), pad=chat.pad, image_token=chat.image_token, share=False)
    answers = Answers(made, made.model, given="pixels")
    forced = Forced(
        answers=answers, rows=rows, samples={s.id: s for s in samples}, collate=SupervisedCollator(plan),
        batch=2, metrics=loaded(["rouge", "vqa"]),
    )  # fmt: skip
    answers.train()
    found = forced.validate()
    assert answers.training, "it goes on learning"
    total, count, said = 0.0, 0, []
    for row, sample in zip(rows, samples, strict=True):
        view = Pixels(made, tmp_path)(row.views[0])
        batch = {"input_ids": torch.tensor([row.encoded.ids]), "images": [view.values]}
        with torch.no_grad():
            logits = made.head(made.forward(batch, given="pixels"))[0].log_softmax(-1)
        for place in [i for i, flag in enumerate(row.encoded.learned) if flag]:
            total -= float(logits[place - 1, row.encoded.ids[place]])
            count += 1
        for number, turn in enumerate(row.encoded.turns):
            ids = logits[turn.start - 1 : turn.stop - 1].argmax(-1).tolist()
            text = made.tokenizer.decode(ids, skip_special_tokens=True).strip()
            asked, right = sample.messages[2 * number], sample.messages[2 * number + 1]
            said.append(
                Prediction(
                    sample=sample.id, patient=sample.patient, turn=number, topic=right.topic, question=asked.text,
                    answer=right.text, text=text,
                )
            )  # fmt: skip
    assert count == sum(sum(row.encoded.learned) for row in rows) > 40
    assert found.pop("loss") == pytest.approx(total / count, abs=1e-5)
    wanted = {
        m.name: m.value() for name in ("rouge", "vqa") for m in plugins.load("metrics", name).score(said)
    }
    assert found == {name: value for name, value in wanted.items() if isfinite(value)}
    batch = forced.collate([Together((rows[0],))])
    read = forced.read(rows[:1], answers.imagine(batch)["labels"])
    assert [p.text for p in read] == [p.text for p in said[:2]]


def test_a_run_that_was_cut_goes_on_with_its_figures(
    language: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = SupervisedTrainer.compute_loss

    def cut(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 3:
            raise Interrupted("cut")
        return whole(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(SupervisedTrainer, "compute_loss", cut)
        with pytest.raises(Interrupted):
            run(document(language, watch=WATCH), tmp_path)
    again = run(document(language, watch=WATCH), tmp_path)
    assert [e["resumed_at"] for e in small.events(again, "training")] == [0, 2]
    assert history(again) == history(done)
    assert runs.content(again) == runs.content(done)


@pytest.mark.parametrize("shard", ["fsdp2", pytest.param("zero3", marks=pytest.mark.slow)])
def test_two_processes_see_the_same(
    language: Path, done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard: str
) -> None:
    if shard == "zero3":
        pytest.importorskip("deepspeed")
    monkeypatch.setattr(launch, "popen", Fork)
    try:
        folder = run(document(language, watch=WATCH), tmp_path, Spread(2, shard))
    except RunError:
        pytest.fail(words(tmp_path))
    assert [e["step"] for e in history(folder)] == [2, 4, 5]
    for one, two in zip(history(done), history(folder), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-4)


def test_a_limit_chooses_by_hash_and_an_empty_split_is_said(
    language: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = run(document(language, watch={"every": 5, "metrics": ["rouge"], "limit": 2}), tmp_path / "few")
    assert [e["step"] for e in history(few)] == [5]
    made = document(language, watch=WATCH)
    made["stages"]["data"]["split"] = {"train": 0.75, "valid": 0, "test": 0.25}
    folder = run(made, tmp_path / "none")
    assert "the valid split has no such samples: nothing is watched" in capsys.readouterr().out
    assert not (folder / "validation.json").exists()
    assert len(small.events(folder, "not_watched")) == 1


@pytest.mark.parametrize(
    ("metrics", "fault"),
    [
        (["rogue"], "taught.watch.metrics: no metrics plug-in 'rogue'; did you mean 'rouge'?"),
        ([{"vqa": {"tpic": 1}}], "taught.watch.metrics: options of 'vqa' do not fit"),
    ],
)
def test_a_metric_that_is_none_is_told_before_anything_runs(
    language: Path, metrics: list[Any], fault: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe.check(document(language, watch={"metrics": metrics}), "test")
    assert fault in caught.value.block()
