"""Samples to rows of images and texts, their batches, and what an examination measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import models
import models_contrast
from sightline.errors import RecipeError
from sightline.images.seen import Seen
from sightline.losses.siglip import siglip
from sightline.losses.similarity import together
from sightline.models.features import Features, Pixels
from sightline.recipe import Contrast
from sightline.settings import Full, Plan, Train
from sightline.train.captions import CaptionCollator, captioned, check, keep
from sightline.train.contrast import Towers
from sightline.train.examination import Examination, order
from sightline.types import ImageRef, Message, Sample, View

ONE, TWO = ImageRef(path="1.png"), ImageRef(path="2.png")


def sample(
    name: str, answers: list[tuple[str, str]], images: tuple[ImageRef, ...] = (ONE,), **more: Any
) -> Sample:
    turns = [Message(role="user", parts=(*range(len(images)), "What is seen?"))]
    turns += [Message(role="assistant", parts=(text,), topic=topic) for topic, text in answers]
    return Sample(**{"id": name, "patient": "p1", "images": images, "messages": tuple(turns)} | more)


def test_the_answers_of_a_topic_are_the_text() -> None:
    told = [("report", "No  effusion."), ("nodule", "Yes"), ("report", "Large\nheart.")]
    rows, aside = captioned([sample("a", told)], "report")
    assert [(r.id, r.text, r.patient, r.view) for r in rows] == [
        ("a", "No effusion. Large heart.", "p1", View(ONE, "a"))
    ]
    assert aside == []
    assert [r.text for r in captioned([sample("a", told)], "")[0]] == ["No effusion. Yes Large heart."]


def test_samples_without_such_an_answer_are_passed_over_and_unusable_ones_set_aside() -> None:
    prior = ImageRef(path="1.png", when="prior")
    volume = ImageRef(path="1.nii", form="volume")
    samples = [
        sample("other", [("nodule", "Yes")]),
        sample("empty", [("report", "  ")]),
        sample("old", [("report", "Fine.")], (prior,)),
        sample("deep", [("report", "Fine.")], (volume,)),
    ]
    rows, aside = captioned(samples, "report")
    assert rows == []
    assert aside == [
        {"id": "empty", "reason": "its text is empty"},
        {"id": "old", "reason": "it shows no current 2-D image"},
        {"id": "deep", "reason": "it shows no current 2-D image"},
    ]


def test_every_current_image_has_a_row_with_the_same_keys() -> None:
    prior = ImageRef(path="0.png", when="prior")
    rows, _ = captioned([sample("a", [("report", "Fine.")], (prior, ONE, TWO))], "report")
    assert [(r.id, r.number, r.view.image.path) for r in rows] == [("a+1", 1, "1.png"), ("a+2", 2, "2.png")]
    assert rows[0].keys == rows[1].keys


def keys(**more: Any) -> tuple[int, int]:
    given = {"text": "Fine.", "name": "a", **more}
    name, text = given.pop("name"), given.pop("text")
    return captioned([sample(name, [("report", text)], **given)], "report")[0][0].keys


def test_who_is_no_negative_of_whom() -> None:
    """Equal words share the first key, one patient's study the second; an unknown study is nobody else's."""
    assert keys(name="b", patient="p2")[0] == keys()[0] != keys(text="fine.")[0]
    assert keys(text=" Fine. \n") == keys()
    assert keys(study="s1", name="b")[1] == keys(study="s1")[1] != keys(study="s2")[1]
    assert keys(study="s1", patient="p2")[1] != keys(study="s1")[1]
    assert keys(name="b")[1] != keys()[1]
    assert all(0 <= key < 2**60 for key in keys())


def test_a_batch() -> None:
    rows, _ = captioned([sample("a", [("report", "Fine.")]), sample("b", [("report", "Ill")])], "report")
    collate = CaptionCollator(models_contrast.tokenize, lambda view: Seen(torch.full((2,), 3.0), (1, 2)))
    batch = collate(rows)
    assert [v.tolist() for v in batch["images"]] == [[3.0, 3.0]] * 2
    assert batch["grids"] == [(1, 2), (1, 2)]
    assert batch["tokens"]["input_ids"].tolist() == [[70, 105, 110, 101, 46], [73, 108, 108, 0, 0]]
    assert batch["keys"].tolist() == [list(row.keys) for row in rows]
    assert batch["ids"] == ["a", "b"]


def section(**more: Any) -> Contrast:
    plain = {"stage": "contrast", "data": "data", "trainable": {"heads": {"full": {"lr": 1e-3}}}}
    return Contrast(**{**plain, **more})


def test_what_cannot_be_learned_is_refused() -> None:
    told = [sample("a", [("report", "Fine."), ("nodule", "Yes")])]
    check(section(), told, "encoder")
    with pytest.raises(RecipeError, match="one pair has no negatives") as caught:
        check(section(train=Train(batch=1, accumulate=8)), told, "encoder")
    assert caught.value.where == "encoder.train.batch"
    with pytest.raises(RecipeError, match="about 'reports'") as caught:
        check(section(topic="reports"), told, "encoder")
    assert caught.value.found == "'nodule', 'report'"
    check(section(topic=""), told, "encoder")
    with pytest.raises(RecipeError, match="about 'report'") as caught:
        check(section(), [], "encoder")
    assert caught.value.found == "no sample"


def test_features_are_kept_of_a_frozen_tower_if_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = models_contrast.toy({"width": 6}, 0)
    models.write_pictures(tmp_path)
    views = [View(ref, "r") for ref in models.PICTURES]
    look = keep(encoder, tmp_path, tmp_path / ".features", views, frozen=True)
    assert isinstance(look, Features)
    look.prepare(views)
    assert look(views[0]).values.shape == (models_contrast.HIDDEN,)
    assert isinstance(keep(encoder, tmp_path, tmp_path / ".features", views, frozen=False), Pixels)
    monkeypatch.setattr("sightline.train.captions.GIB", 1e-6)
    assert isinstance(keep(encoder, tmp_path, tmp_path / ".features", views, frozen=True), Pixels)
    assert "features are not kept: 192000000.0 GiB, more than 20" in capsys.readouterr().out


def exam(tmp_path: Path, batch: int) -> tuple[Examination, Towers]:
    """Ten rows over four pictures, five different texts."""
    encoder = models_contrast.toy({"width": 6}, 0)
    models.write_pictures(tmp_path)
    samples = [
        sample(f"s{i}", [("report", f"Report {i % 5}.")], (models.PICTURES[i % 4],), patient=f"p{i // 2}")
        for i in range(10)
    ]
    collate = CaptionCollator(encoder.tokenize, Pixels(encoder, tmp_path))
    return Examination(captioned(samples, "report")[0], collate, batch), Towers(
        encoder, encoder.model, given="pixels"
    )


def test_an_examination_embeds_in_eval_mode_and_leaves_the_mode_as_it_was(tmp_path: Path) -> None:
    whole, towers = exam(tmp_path, 10)
    towers.bundle.model.vision[2].p = 0.5
    towers.train()
    images, texts = whole.embed(towers)
    assert towers.training
    parts, _ = exam(tmp_path, 4)
    again = parts.embed(towers)
    assert images.shape == texts.shape == (10, 6)
    assert images.dtype == np.float32
    assert np.allclose(np.linalg.norm(images, axis=1), 1, atol=1e-6)
    assert np.allclose(images, again[0], atol=1e-6)
    assert np.allclose(texts, again[1], atol=1e-6)


def test_validation_is_the_loss_in_blocks_and_every_measure(tmp_path: Path) -> None:
    asked, towers = exam(tmp_path, 4)
    figures = asked.validate(towers, siglip)
    images, texts = (torch.from_numpy(side) for side in asked.embed(towers))
    scale, bias = (v.detach() for v in towers.bundle.scale())
    blocks = [slice(0, 4), slice(4, 8), slice(8, 10)]
    words = [row.text for row in asked.rows]
    expected = 0.0
    for at in blocks:
        same = torch.tensor([[a == b for b in words[at]] for a in words[at]])
        expected += float(siglip(together(images[at], texts[at], scale, bias, same))) * len(words[at]) / 10
    assert figures["loss"] == pytest.approx(expected, abs=1e-6)
    names = {m.name: m.value() for m in asked.measures(images.numpy(), texts.numpy())}
    assert figures == {"loss": figures["loss"], **names}
    assert len(names) == 10


def test_validation_is_in_float32_whatever_training_is(tmp_path: Path) -> None:
    asked, towers = exam(tmp_path, 10)
    plain = asked.embed(towers)[0]
    forward = towers.forward

    def lower(batch: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return forward(batch)

    towers.forward = lower  # type: ignore[method-assign]
    assert np.array_equal(asked.embed(towers)[0], plain)


def test_what_is_best() -> None:
    def figures(one: float, two: float, loss: float) -> dict[str, float]:
        return {"r_at_5_image_to_text": one, "r_at_5_text_to_image": two, "loss": loss}

    ordered = [figures(0.2, 0.2, 0.1), figures(0.1, 0.5, 2.0), figures(0.3, 0.3, 1.0), figures(0.9, 0.0, 5.0)]
    assert sorted(reversed(ordered), key=order) == ordered


def test_towers_count_what_trains() -> None:
    from sightline.models import trainable

    encoder = models_contrast.toy({"width": 6}, 0)
    trained = trainable.apply(encoder, {"text": Plan(full=Full(lr=1.0))}, 0)
    assert list(Towers(encoder, trained, given="pixels").weights()) == ["text.weight"]
