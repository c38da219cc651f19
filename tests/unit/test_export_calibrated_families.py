"""Which models GPTQ and AWQ work with: their layers meet what they meet in the model, and nothing else is changed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

import models
import models_export
import models_gemma3
import models_idefics3
import models_languages
import models_llava_next
import models_mllama
import models_qwen
from sightline.errors import ModelError
from sightline.export import calibration, compressed, opened, packed
from sightline.export.calibration import Calibration
from sightline.models import checkpoint
from sightline.models.family import Bundle
from sightline.recipe import Calibrate
from sightline.settings import Lora, Plan
from sightline.stages import export as stage

FOLDERS: dict[str, Callable[[Path], Bundle]] = {
    "llava_next": models_llava_next.bundle,
    "gemma3": models_gemma3.bundle,
    "idefics3": models_idefics3.idefics3,
    "smolvlm": models_idefics3.smolvlm,
    "qwen2_5_vl": models_qwen.qwen2_5_vl,
    "qwen3_vl": models_qwen.qwen3_vl,
    "mllama": models_mllama.bundle,
}
LANGUAGES = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2")  # of a LLaVA
CASES = [(n, k) for n in (*LANGUAGES, *FOLDERS) for k in packed.SCHEMES if (n, k) != ("mllama", "awq")]
LORA = {"language": Plan(lora=Lora(r=2, alpha=4, lr=1e-3))}


def bundle(name: str, language: Path, root: Path) -> Bundle:
    """A tiny model whose layers groups of 32 weights divide."""
    if name in FOLDERS:
        return FOLDERS[name](root / "language")
    template = {"mistral": "mistral_instruct", "llama": "v1"}.get(name)
    section = models.section(language, template=template)
    own = models_languages.config(name, root / "tokenizer")
    window = {"sliding_window": 16} if "sliding_window" in own else {}  # shorter than any row
    section["language"] = {**own, **window, "intermediate_size": 64}
    return checkpoint.compose(section, 0)


def held(root: Path, count: int) -> Calibration:
    """Samples with a picture each."""
    return Calibration(
        root=root, samples=models_export.samples(root, count), read=lambda sample: sample,
        asked=Calibrate(samples=count), seed=0, data="",
    )  # fmt: skip


@pytest.fixture
def _package() -> None:
    if importlib.util.find_spec("llmcompressor") is None:
        pytest.skip("llmcompressor is not installed")
    compressed.needed()


def watch(layer: torch.nn.Module, met: list[Tensor]) -> Any:
    """Note the states that a layer is given."""

    def note(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        met.append((args[0] if args else kwargs["hidden_states"]).detach().clone())

    return layer.register_forward_pre_hook(note, with_kwargs=True)


def far(made: Tensor, wanted: Tensor) -> float:
    return float((made - wanted).norm() / wanted.norm())


@torch.no_grad()
def outputs(inner: Any, rows: Sequence[dict[str, Any]]) -> list[Tensor]:
    return [inner(**row).last_hidden_state for row in rows]


@pytest.mark.usefixtures("_package")
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_layers_meet_and_give_what_they_do_in_the_model(
    name: str, kind: str, language: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 8 bits rounding hardly shows: a mask, a position or a picture that got lost would, by most of the states."""
    made = bundle(name, language, tmp_path)
    inner: Any = made.family.language(made.model)
    inner.config._name_or_path = made.base["model"].get("path") or str(language)
    rows = calibration.take(made, held(tmp_path, 4)).inputs
    wanted: list[Tensor] = []
    met: list[Tensor] = []
    hook = watch(inner.layers[-1], wanted)
    given = outputs(inner, rows)
    hook.remove()
    norms = [p.detach().clone() for p in inner.layers.parameters() if p.dim() == 1]
    eight = packed.scheme(kind, 32)
    eight.weights.num_bits = 8
    monkeypatch.setattr(packed, "scheme", lambda *_: eight)
    hook = watch(inner.layers[-1], met)
    packed.round_off(inner, rows, kind, 32)
    hook.remove()
    assert len(met) == 2 * len(rows)  # once to calibrate the layer, once to go on with it rounded
    near = {"gptq": 0.05, "awq": 1e-3}[kind]  # AWQ rounds when all layers have been balanced
    assert all(far(*each) < near for each in zip(met[: len(rows)], wanted, strict=True))
    assert all(0 < far(*each) < 0.1 for each in zip(outputs(inner, rows), given, strict=True))
    after = [p for p in inner.layers.parameters() if p.dim() == 1 and p.is_floating_point()]
    balanced = any(not torch.equal(*each) for each in zip(norms, after, strict=True))
    assert balanced == (kind == "awq")


@pytest.mark.usefixtures("_package")
@pytest.mark.parametrize("name", list(FOLDERS))
def test_transformers_opens_what_is_written(name: str, language: Path, tmp_path: Path) -> None:
    """By its own class alone, with no key too many or too few, and with the weights that Sightline opens."""
    made = bundle(name, language, tmp_path)
    saved = models_export.save(made, tmp_path / "saved", LORA, 0.1)
    place = tmp_path / "out"
    stage.make(stage.Order(place=saved, kind="gptq", to=place, home=place, calibration=held(tmp_path, 4)))
    stock, told = AutoModelForImageTextToText.from_pretrained(place, output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    stock.hf_quantizer.compressor.decompress_model(stock)
    found, wanted = stock.state_dict(), opened.load(place).model.state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    scales = {key.rpartition(".")[0] for key in wanted if key.endswith(".weight_scale")}
    language_model = made.family.parts["language"][0]
    linears = {n for n, m in stock.named_modules() if isinstance(m, torch.nn.Linear)}
    assert scales == {n for n in linears if n.startswith(f"{language_model}.")}
    assert len(scales) < len(linears)


def test_what_was_not_seen_to_work_is_refused(language: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="'awq' was not seen to work with a language model 'mllama_text_model'"
    ) as error:
        packed.check(bundle("mllama", language, tmp_path), "awq", held(tmp_path, 1))
    assert error.value.found == "family 'mllama'"
    made = bundle("llama", language, tmp_path)
    inner: Any = made.family.language(made.model)
    inner.config.model_type = "another"
    for kind in packed.SCHEMES:
        with pytest.raises(
            ModelError, match=f"'{kind}' was not seen to work with a language model 'another'"
        ):
            packed.check(made, kind, held(tmp_path, 1))
