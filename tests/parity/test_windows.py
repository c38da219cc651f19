"""Language models with windows: batched answers and shared rows equal what the stock model makes of one row alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Gemma2Config, MistralConfig, Phi3Config, Qwen2Config

import models
from sightline.data.chat import Chat
from sightline.data.collate import PairCollator, Plan
from sightline.data.rows import encode_pairs
from sightline.images.seen import Seen
from sightline.inference import Answer, ask, items
from sightline.losses.logps import token_logps
from sightline.models import features, pairpass
from sightline.models.family import Bundle
from sightline.settings import Generate
from sightline.types import Message, Preference, Sample, View

WINDOW, STEPS = 7, 6
SHAPE: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 1024, "initializer_range": 0.3,
    "sliding_window": WINDOW, "bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0,
    "tie_word_embeddings": False,
}  # fmt: skip
KINDS = ["sliding_attention", "full_attention", "sliding_attention"]
CONFIGS: dict[str, Any] = {
    "mistral": (MistralConfig, {}),
    "phi3": (Phi3Config, {"original_max_position_embeddings": 1024}),
    # the stock LLaVA forgets to cap logits, ours does not
    "gemma2": (
        Gemma2Config,
        {"layer_types": KINDS, "query_pre_attn_scalar": 8, "final_logit_softcapping": None},
    ),
    "qwen2": (Qwen2Config, {"use_sliding_window": True, "layer_types": KINDS}),
}


@pytest.fixture(scope="module", params=list(CONFIGS))
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    kind, more = CONFIGS[request.param]
    place = tmp_path_factory.mktemp(request.param)
    words = models.bytes_tokenizer()
    torch.manual_seed(0)
    config = kind(**{**SHAPE, **more}, vocab_size=len(words))
    AutoModelForCausalLM.from_config(config).save_pretrained(place)
    words.save_pretrained(place)
    models.write_pictures(place)
    return models.bundle(place)


@pytest.fixture
def root(made: Bundle) -> Path:
    return Path(made.base["model"]["language"])


def samples() -> list[Sample]:
    return [
        models.sample(
            f"s{i}",
            [("What is seen" + "?" * 5 * i, "A line"), ("Is it so?", "Yes"), ("And " * i + "why?", "So")],
            models.PICTURES[: i % 3],
        )
        for i in range(4)
    ]


def test_the_window_is_known(made: Bundle) -> None:
    assert pairpass.window(made.family.language(made.model).config) == WINDOW


def test_answers_of_a_batch_equal_the_stock_model_s(made: Bundle, root: Path) -> None:
    found: dict[str, list[Answer]] = {}
    todo = items(samples(), Chat.of(made), lambda s, i: View(s.images[i], s.id))

    def look(view: View) -> Seen:
        seen = features.pixels(made, root, view)
        with torch.no_grad():
            return Seen(made.family.encode_images(made.model, [seen.values], [()])[0])

    settings = Generate(max_new_tokens=STEPS, batch=8)
    ask(made, todo, look, settings, lambda item, answers: found.update({item.sample.id: answers}))
    for item in todo:
        ids: list[int] = []
        at = 0
        images = [features.pixels(made, root, view).values for view in item.views]
        shown = {"pixel_values": torch.stack(images)} if images else {}
        for turn, closed, answer in zip(item.encoded.turns, item.closed, found[item.sample.id], strict=True):
            ids += item.encoded.ids[at : turn.start]
            at = turn.stop
            told = torch.tensor([ids])
            if not closed:
                stock = made.model.generate(
                    input_ids=told, attention_mask=torch.ones_like(told), **shown, max_new_tokens=STEPS,
                    do_sample=False, eos_token_id=2, pad_token_id=0, suppress_tokens=[made.image_token],
                )[0, len(ids) :].tolist()  # fmt: skip
                assert [i for i in stock if i != 2] == list(answer.ids)
            else:
                with torch.no_grad():
                    logps = made.model(input_ids=told, **shown).logits[0, -1].log_softmax(-1)
                yes = [made.tokenizer(w)["input_ids"][0] for w in ("Yes", "yes", "YES")]
                assert abs(float(logps[yes].logsumexp(0)) - answer.choices["yes"]) <= 1e-5
            ids += answer.ids
    assert len({answers[0].ids for answers in found.values()}) > 1


def pairs() -> list[Preference]:
    prompt = (Message(role="user", parts=(0, "Is there fluid on the left side of the chest?")),)
    return [
        Preference(
            id="a", patient="p", images=models.PICTURES[:1], prompt=prompt, chosen="Yes, a little on the left",
            rejected="No, the lung is clear and nothing is seen",
        )
    ]  # fmt: skip


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_two_answers_in_one_row_are_as_likely_as_in_two(made: Bundle, root: Path, attention: str) -> None:
    chat = Chat.of(made)
    encoded, aside = encode_pairs(pairs(), chat, 1000)
    assert not aside

    def likely(share: bool) -> Tensor:
        plan = Plan(
            look=lambda view: features.pixels(made, root, view), pad=chat.pad, image_token=chat.image_token,
            share=share,
        )  # fmt: skip
        batch = PairCollator(plan, {})(encoded)
        assert len(batch["input_ids"]) == (1 if share else 2)
        states = made.forward(batch, given="pixels")
        logps = token_logps(states, batch["labels"], made.head, batch["source"]).double()
        return torch.stack([logps[batch["answer"] == i].sum() for i in range(2)])

    made.attend(attention)
    one, two = likely(True), likely(False)
    made.attend("sdpa")
    assert float((one - two).abs().max()) <= 1e-4
    assert abs(float(two[0] - two[1])) > 1
