"""Answers of every family equal those of the stock model's own `generate`, id by id, turn by turn, in any batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

import models
import models_gemma3
import models_idefics3
import models_llava_next
import models_mllama
import models_qwen
from sightline import inference, plugins, runs
from sightline.data.chat import Chat
from sightline.inference import Answer, Item, Manner, ask, choices_of, items
from sightline.models.family import Bundle
from sightline.models.features import Features, gridder
from sightline.settings import Generate
from sightline.types import ImageRef, Message, Sample, View

SIZES = [(28, 28), (40, 93), (90, 31)]  # height and width
STEPS = 7
ENDS = range(7, 288, 5)  # a fifth of the words end an answer, so that rows of a batch end at different steps


def loud_gemma3(language: Path) -> Bundle:
    """A Gemma 3 whose layers outweigh the word that was read last: its head is its embedding, and it would echo."""
    made = models_gemma3.bundle(language)
    norms = [p for name, p in made.model.named_parameters() if ".post_" in name and "language_model" in name]
    assert len(norms) == 2 * 3
    with torch.no_grad():
        for weight in norms:
            weight.add_(4.0)
    return made


FAMILIES: dict[str, Callable[[Path], Bundle]] = {
    "llava": models.bundle,
    "llava_next": models_llava_next.bundle,
    "gemma3": loud_gemma3,
    "mllama": models_mllama.bundle,
    "idefics3": models_idefics3.idefics3,
    "smolvlm": models_idefics3.smolvlm,
    "qwen2_5_vl": models_qwen.qwen2_5_vl,
    "qwen3_vl": models_qwen.qwen3_vl,
}


@dataclass(frozen=True)
class Setting:
    """A tiny model, the folder of its pictures, and features of them."""

    bundle: Bundle
    root: Path
    look: Features

    def items(self, samples: Sequence[Sample]) -> list[Item]:
        grid = gridder(self.bundle, self.root)
        return items(samples, Chat.of(self.bundle), lambda s, i: View(s.images[i], s.id), grid)

    def told(
        self, samples: Sequence[Sample], batch: int, manner: Manner = inference.PLAIN
    ) -> dict[str, list[Answer]]:
        found: dict[str, list[Answer]] = {}
        todo = self.items(samples)
        self.look.prepare([view for item in todo for view in item.views])
        settings = Generate(max_new_tokens=STEPS, batch=batch)
        ask(self.bundle, todo, self.look, settings, lambda i, a: found.update({i.sample.id: a}), manner)
        return found


@pytest.fixture(scope="module", params=list(FAMILIES))
def setting(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    place = tmp_path_factory.mktemp(request.param)
    for i, size in enumerate(SIZES):
        Image.fromarray(picture(i)).save(place / f"{i}.png")
        assert picture(i).shape == (*size, 3)
    bundle = FAMILIES[request.param](models.write_language(place / "language"))
    return Setting(bundle, place, Features(bundle, place, place / "kept"))


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "end_tokens", ends)


def ends(bundle: Bundle) -> set[int]:
    return set(ENDS) - {bundle.image_token}


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (*SIZES[number], 3), dtype=np.uint8)


def sample(name: str, root: Path, shown: Sequence[int], *turns: tuple[Any, ...]) -> Sample:
    """A conversation about pictures; each turn is its question's parts and the right answer."""
    refs = [ImageRef(path=f"{i}.png", sha256=runs.hash_file(root / f"{i}.png")) for i in shown]
    messages = []
    for *parts, answer in turns:
        messages.append(Message(role="user", parts=tuple(parts)))
        messages.append(Message(role="assistant", parts=(answer,), topic="t"))
    return Sample(id=name, patient="p", images=tuple(refs), messages=tuple(messages))


def conversations(root: Path) -> list[Sample]:
    """None, one and two images of different sizes, one of them shown in a later turn."""
    open_, closed = ("What is seen in it?", "A line"), ("Is there fluid?", "Yes")
    return [
        sample("none", root, (), ("Tell me more", "A line"), closed, open_),
        sample("small", root, (0,), (0, *open_), closed, ("Where?", "Left")),
        sample("wide", root, (1,), ("See here", 1 - 1, *open_), closed, open_),
        sample("two", root, (2, 1), (0, 1, *open_), closed, ("And why is that so?", "Left")),
        sample("apart", root, (1, 2), (0, "or", 1, *open_), closed, open_),
        sample("later", root, (1, 2), (0, *open_), closed, ("And", 1, "here?", "Left")),
        sample("late", root, (2,), ("Hello", "So"), closed, (0, *open_)),
    ]


def stock_inputs(bundle: Bundle, ids: list[int], shown: Sequence[np.ndarray]) -> dict[str, Tensor]:
    """What the stock model's own image processor makes of pictures, and what goes with these ids."""
    name, told = bundle.family.name, torch.tensor([ids])
    made: dict[str, Any] = {"input_ids": told, "attention_mask": torch.ones_like(told)}
    if not shown:
        return made
    if name == "llava":
        values = [bundle.preprocess(image.astype(np.float32) / 255) for image in shown]
        return {**made, "pixel_values": torch.stack(values)}
    several = [list(shown)] if name in ("idefics3", "smolvlm", "mllama") else list(shown)
    processor: Any = bundle.preprocess.processor  # type: ignore[attr-defined]
    made |= dict(processor(images=several, return_tensors="pt", input_data_format="channels_last"))
    tiles = made.pop("num_tiles", None)
    made.pop("num_crops", None)
    kinds = (told == bundle.image_token).long()
    if name == "gemma3":
        made["token_type_ids"] = kinds
    if name.startswith("qwen"):
        made["mm_token_type_ids"] = kinds
    if name == "mllama":
        sparse = [get_cross_attention_token_mask(ids, bundle.image_token)]
        most = int(processor.max_image_tiles)
        dense = convert_sparse_cross_attention_mask_to_dense(sparse, tiles, most, len(ids))
        made["cross_attention_mask"] = torch.from_numpy(dense)
    return made


@torch.no_grad()
def compare(setting: Setting, item: Item, answers: Sequence[Answer]) -> None:
    """Every answer against the stock model, after all that was said before it."""
    bundle, images = setting.bundle, [int(v.image.path[0]) for v in item.views]
    ids: list[int] = []
    at = 0
    for turn, closed, answer in zip(item.encoded.turns, item.closed, answers, strict=True):
        ids += item.encoded.ids[at : turn.start]
        at = turn.stop
        shown = [picture(i) for i in images[: images_in(bundle, item, ids)]]
        inputs = stock_inputs(bundle, ids, shown)
        if closed:
            logps = bundle.model(**inputs).logits[0, -1].float().log_softmax(-1)
            for word, own in choices_of(bundle).items():
                assert abs(answer.choices[word] - float(logps[own].logsumexp(0))) <= 1e-5
        else:
            made = bundle.model.generate(
                **inputs, max_new_tokens=STEPS, do_sample=False, eos_token_id=sorted(ends(bundle)),
                pad_token_id=0, suppress_tokens=suppressed(bundle),
            )[0, len(ids) :].tolist()  # fmt: skip
            spoken = made[:-1] if made[-1] in ends(bundle) else made
            assert list(answer.ids) == spoken
        ids += answer.ids


def suppressed(bundle: Bundle) -> list[int] | None:
    """The image token, where the head knows it."""
    known = bundle.model.get_output_embeddings().out_features
    return [bundle.image_token] if bundle.image_token < known else None


def images_in(bundle: Bundle, item: Item, ids: Sequence[int]) -> int:
    """How many of the conversation's images stand in these ids."""
    count, left = 0, list(ids).count(bundle.image_token)
    while left > 0:
        shape = SIZES[int(item.views[count].image.path[0])]
        left -= bundle.words(bundle.preprocess.grid(*shape)).count(bundle.image_token)
        count += 1
    return count


def test_answers_equal_the_stock_model_s(setting: Setting) -> None:
    samples = conversations(setting.root)
    found = setting.told(samples, 64)
    for item in setting.items(samples):
        compare(setting, item, found[item.sample.id])
    lengths = {len(answer.ids) for answers in found.values() for answer in answers if not answer.choices}
    assert len(lengths) > 2
    assert max(lengths) == STEPS
    assert len({answers[0].ids for answers in found.values()}) > 2  # it looks at what it is given


def test_no_family_says_that_it_cannot_be_asked() -> None:
    names = plugins.names("families")
    assert set(FAMILIES) <= set(names)
    assert not [n for n in names if "generation" in plugins.load("families", n).cannot]


def test_a_batch_answers_as_one_by_one(setting: Setting) -> None:
    samples = conversations(setting.root)
    alone, few, together = (setting.told(samples, batch) for batch in (1, 3, 64))
    for name, answers in alone.items():
        for found in (few[name], together[name]):
            assert [a.ids for a in found] == [a.ids for a in answers]
            for one, other in zip(found, answers, strict=True):
                assert one.choices.keys() == other.choices.keys()
                assert all(abs(one.choices[w] - other.choices[w]) <= 1e-5 for w in one.choices)


def test_right_answers_stand_before_the_next_question_where_asked_for(setting: Setting) -> None:
    """The last turn after right answers is what the conversation cut down to its last answer is told."""
    samples = conversations(setting.root)
    led = setting.told(samples, 64, Manner(right=True))
    lasts = []
    for item in setting.items(samples):
        turns, closed = item.encoded.turns[-1:], item.closed[-1:]
        lasts.append(replace(item, encoded=replace(item.encoded, turns=turns), closed=closed))
    alone: dict[str, list[Answer]] = {}
    ask(
        setting.bundle, lasts, setting.look, Generate(max_new_tokens=STEPS, batch=64),
        lambda item, answers: alone.update({item.sample.id: answers}),
    )  # fmt: skip
    for name, answers in led.items():
        assert answers[-1].ids == alone[name][0].ids
    assert [a[-1].ids for a in led.values()] != [a[-1].ids for a in setting.told(samples, 64).values()]


def test_images_in_right_answers_are_shown_only_with_them(setting: Setting) -> None:
    if setting.bundle.family.placement == "front":
        pytest.skip("all images stand in front of the first question")
    refs = sample("a", setting.root, (0, 1), (0, 1, "Is it?", "Yes")).images
    asked = [Message(role="user", parts=("Show it",)), Message(role="user", parts=(1, "And here?"))]
    answers = [Message(role="assistant", parts=("Here", 0)), Message(role="assistant", parts=("Left",))]
    shown = Sample(id="a", patient="p", images=refs, messages=(asked[0], answers[0], asked[1], answers[1]))
    bare = replace(answers[0], parts=("Here",)), replace(asked[1], parts=(0, "And here?"))
    plain = Sample(id="b", patient="p", images=refs[1:], messages=(asked[0], *bare, answers[1]))
    own, right = setting.told([shown, plain], 2), setting.told([shown], 1, Manner(right=True))
    assert [a.ids for a in own["a"]] == [a.ids for a in own["b"]]
    (item,) = setting.items([shown])
    encoded = replace(item.encoded, turns=item.encoded.turns[-1:])
    alone: list[Answer] = []
    last = replace(item, encoded=encoded, closed=item.closed[-1:])
    how = Generate(max_new_tokens=STEPS)
    ask(setting.bundle, [last], setting.look, how, lambda _, told: alone.extend(told))
    assert right["a"][-1].ids == alone[0].ids


def test_the_image_token_is_never_said(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, place = setting.bundle, setting.bundle.image_token

    def liked(states: Tensor) -> Tensor:
        logits = bundle.family.head(bundle.model)(states)
        logits[:, place : place + 1] = 1e4
        return logits

    monkeypatch.setattr(Bundle, "head", property(lambda self: liked))
    found = setting.told(conversations(setting.root), 64)
    said = [i for answers in found.values() for answer in answers for i in answer.ids]
    assert len(said) > 20
    assert place not in said
