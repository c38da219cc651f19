"""Answers as cases: what an answer is, how sure it was, which cases are kept, and how large their pictures are."""

from __future__ import annotations

import io
from math import log
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sightline.stages import cases
from sightline.types import ImageRef, Message, Prediction, Sample

REPORT = "Left effusion. No right effusion. No nodule."


def said(
    text: str, answer: str, *, topic: str = "nodule", question: str = "Is there a nodule?", **more: object
) -> Prediction:
    return Prediction(
        sample=str(more.pop("sample", "s")), patient="p", turn=int(str(more.pop("turn", 0))), topic=topic,
        question=question, answer=answer, text=text, **more,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "answer", "kind"),
    [
        ("Yes", "Yes", "tp"),
        ("Yes", "No", "fp"),
        ("no.", "No", "tn"),
        ("No", "yes", "fn"),
        ("Lungs", "Yes", "un"),
    ],
)
def test_a_yes_no_answer_is_one_of_five(text: str, answer: str, kind: str) -> None:
    assert cases.marks(said(text, answer)) == [(kind, "nodule")]


def test_an_open_answer_is_right_or_wrong_and_a_report_is_marked_by_finding() -> None:
    where = {"topic": "", "question": "Where is it?"}
    assert cases.marks(said("The left lung.", "left lung", **where)) == [("ok", "turn 1")]
    assert cases.marks(said("right lung", "left lung", turn=2, **where)) == [("no", "turn 3")]
    found = dict((t, k) for k, t in cases.marks(said("Left effusion. Nodule.", REPORT, topic="report")))
    assert found["report:effusion_left"] == "tp"
    assert found["report:effusion_right"] == "tn"
    assert found["report:nodule"] == "fp"
    missed = dict((t, k) for k, t in cases.marks(said("Nothing.", REPORT, topic="report")))
    assert missed["report:effusion_left"] == "fn"


def test_the_right_answer_of_a_broken_turn_lost_log_probability() -> None:
    def choices(yes: float) -> dict[str, float]:
        return {"yes": log(yes), "no": log(1 - yes)}

    before = said("Yes", "Yes", choices=choices(0.8), model="before")
    after = said("No", "Yes", choices=choices(0.1), model="after")
    shown = cases._turn({"before": before, "after": after})
    assert shown["drop"] == pytest.approx(log(8))
    assert shown["probability"] == pytest.approx({"before": 0.8, "after": 0.1})
    assert shown["confidence"] == pytest.approx({"before": 0.8, "after": 0.9})
    assert cases.is_broken(shown, ["before", "after"])
    assert not cases.is_broken(shown, ["after", "before"])
    assert not cases.is_broken(shown, ["after"])
    open_one = said("left", "right", topic="", question="Where?", logp=log(0.5))
    assert cases._turn({"a": open_one, "b": open_one})["confidence"] == pytest.approx({"a": 0.5, "b": 0.5})
    assert "drop" not in cases._turn({"a": open_one, "b": open_one})


def study(root: Path, count: int) -> list[Sample]:
    """Samples with one picture each; two of them show the same."""
    samples = []
    for number in range(count):
        name = f"{number:03d}.png"
        grey = np.full((600, 300), number % 250, np.uint8)
        grey[::7] = 255 - number % 250
        Image.fromarray(grey).save(root / name)
        samples.append(
            Sample(
                id=f"s{number:03d}", patient=f"p{number:03d}", images=(ImageRef(path=name, sha256=name),),
                messages=(Message(role="user", parts=(0, "Nodule?")), Message(role="assistant", parts=("Yes",))),
            )
        )  # fmt: skip
    return samples


def made(texts: dict[str, str], samples: list[Sample]) -> cases.Made:
    """Answers of two models to clean images; letters: y and n."""
    words = {"y": "Yes", "n": "No"}
    return {
        (model, "clean"): [
            said(words[letter], "Yes", sample=s.id, model=model)
            for s, letter in zip(samples, letters, strict=True)
        ]
        for model, letters in texts.items()
    }


def test_cases_to_keep_then_broken_then_wrong_ones(tmp_path: Path) -> None:
    samples = study(tmp_path, 6)
    answers = made({"before": "yynnyn", "after": "ynnyyn"}, samples)
    assert cases.changes(answers) == {"turns": 6, "fixed": 1, "broke": 1}
    every, total = cases.gallery(samples, tmp_path, answers)
    assert [c.sample for c in every] == [s.id for s in samples]
    assert total == 6
    few, total = cases.gallery(samples, tmp_path, answers, keep=["s004"], most=3)
    assert [c.sample for c in few] == ["s001", "s002", "s004"], "kept, broken, and the first wrong one"
    assert total == 6
    assert cases.counts(answers)["after"] == {"nodule": {"tp": 3, "fn": 3}}
    assert cases.changes({k: v for k, v in answers.items() if k[0] == "after"}) == {}
    assert cases.gallery(samples, tmp_path, {}) == ([], 0)


def test_pictures_are_small_grey_webp_and_keep_to_the_budget(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = study(tmp_path, 4)
    first = cases.thumbnails(tmp_path, samples)
    opened = Image.open(io.BytesIO(first[0]))
    assert (opened.format, opened.size) == ("WEBP", (256, 512))
    assert cases.thumbnails(tmp_path, samples) == first, "the same bytes every time"
    monkeypatch.setattr(cases, "BUDGET", sum(map(len, first)) - 1)
    second = cases.thumbnails(tmp_path, samples)
    assert Image.open(io.BytesIO(second[0])).size == (192, 384)
    monkeypatch.setattr(cases, "BUDGET", 1)
    assert Image.open(io.BytesIO(cases.thumbnails(tmp_path, samples)[3])).size == (80, 160)


def test_samples_of_one_picture_are_one_case(tmp_path: Path) -> None:
    one, two = study(tmp_path, 2)
    same = [one, Sample(id=two.id, patient=one.patient, images=one.images, messages=two.messages, study="st")]
    found, total = cases.gallery(same, tmp_path, made({"a": "yn", "b": "nn"}, same))
    assert total == len(found) == 1
    assert [t["sample"] for t in found[0].turns] == ["s000", "s001"]
    assert (found[0].sample, found[0].errors) == ("p000", 2)
