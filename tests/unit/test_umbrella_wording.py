"""What UMBRELLA takes over from the LLaVA that it is made of: conversation format, system text, earlier scans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import models
import models_umbrella
from sightline.data.chat import Chat
from sightline.data.rows import encode_samples
from sightline.images.brain import Brain
from sightline.models import checkpoint, trainable
from sightline.models.features import gridder
from sightline.settings import Full, Model
from sightline.settings import Plan as Trains


def test_a_named_format_is_written_as_its_authors_do(language: Path, tmp_path: Path) -> None:
    made = models_umbrella.bundle(language, template="mistral_instruct", system="Be brief.")
    plain = models.bundle(language, template="mistral_instruct", system="Be brief.")
    assert made.wording == plain.wording == {"opening": " ", "kept": True, "closing": " "}
    assert made.tokenizer.chat_template == plain.tokenizer.chat_template
    ref = models_umbrella.head(tmp_path, "a.nii", Brain(side="left", sex="male"))
    sample = models.sample("a", [("Is it?", "Yes")], [ref])
    rows, _ = encode_samples([sample], Chat.of(made), 500, gridder(made, tmp_path))
    text = made.tokenizer.decode(rows[0].encoded.ids)
    assert text == (
        f"[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n{'<empty_output>' * 8}\nIs it? [/INST] Yes <|im_end|>"
    )
    learned = [i for i, flag in zip(rows[0].encoded.ids, rows[0].encoded.learned, strict=True) if flag]
    assert made.tokenizer.decode(learned) == " Yes <|im_end|>"
    model = Model.model_validate(models_umbrella.section(language, template="mistral_instruct"))
    again = checkpoint.compose(model.model_dump(mode="json"), 0)
    trained = trainable.apply(again, {"patches": Trains(full=Full(lr=1e-2))}, 0)
    asked = {"patches": {"full": {"lr": 1e-2}, "lora": None}}
    checkpoint.save(tmp_path / "m", again, trained, parent=None, trained=asked, home=tmp_path / "m")
    assert checkpoint.load(tmp_path / "m").wording == made.wording


@pytest.mark.parametrize(("prior", "tokens"), [("auto", 16), ("stand", 16), ("leave", 8)])
def test_earlier_scans_stand_in_the_row_or_are_left_out(
    language: Path, tmp_path: Path, prior: str, tokens: int
) -> None:
    made = models_umbrella.bundle(language, prior=prior)
    assert made.prior == ("stand" if prior == "auto" else prior)
    brain = Brain(side="left", sex="male")
    refs = [models_umbrella.head(tmp_path, f"{i}.nii", brain, seed=i) for i in range(2)]
    sample = models.sample("a", [("Is it?", "Yes")], [refs[0], replace(refs[1], when="prior")])
    rows, aside = encode_samples([sample], Chat.of(made), 500, gridder(made, tmp_path))
    assert aside == []
    assert rows[0].encoded.ids.count(made.image_token) == tokens
    assert [view.image.path for view in rows[0].views] == ["0.nii", "1.nii"][: tokens // 8]
