"""What can be served and by whom: stages, exports, graphs, base models with an adapter; and what is refused."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import LlavaForConditionalGeneration

import models
import models_export
from commanded import command
from serving import CHAT, Parrot, png, question, running
from sightline import runs
from sightline.errors import ModelError, RecipeError
from sightline.export import generate
from sightline.models import adapter, checkpoint, quantized
from sightline.serve import sources, suited
from sightline.serve.limits import Limits
from sightline.serve.local import Local
from sightline.serve.opening import How, open_model
from sightline.stages import export as stage

BASE = "llava-hf/another-llava"
LAYERS = r".*language_model.*\.(q_proj|v_proj)"


@pytest.fixture(scope="module")
def made(language: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trained tiny LLaVA as a stage, merged, as graphs, and as a base model's folder with an adapter beside it."""
    root = tmp_path_factory.mktemp("made")
    section = {**models.section(language), "language": {**models_export.WIDE, "tokenizer": str(language)}}
    found = {"stage": models_export.save(checkpoint.compose(section, 0), root / "tiny" / "taught")}
    for kind in ("merged", "onnx"):
        to = root / kind
        stage.make(stage.Order(place=found["stage"], kind=kind, to=to, home=to))
        found[kind] = to
    found["base"] = root / "tiny-llava"
    shutil.copytree(found["merged"], found["base"])
    for name in ("model.yaml", "export.json", "README.md"):
        (found["base"] / name).unlink()
    torch.manual_seed(0)
    plain = LlavaForConditionalGeneration.from_pretrained(found["base"])
    lora = get_peft_model(plain, LoraConfig(r=20, target_modules=LAYERS, init_lora_weights=False))
    lora.peft_config["default"].base_model_name_or_path = BASE
    lora.save_pretrained(root / "adapter", save_embedding_layers=False)
    found["adapter"] = root / "adapter"
    return found


def test_what_a_path_means(made: dict[str, Path], tmp_path: Path) -> None:
    kinds = {"stage": "stage", "merged": "export", "onnx": "graphs", "base": "base"}
    assert {name: sources.find(made[name]).kind for name in kinds} == kinds
    names = {name: sources.find(made[name]).name for name in kinds}
    assert names == {"stage": "tiny/taught", "merged": "merged", "onnx": "onnx", "base": "tiny-llava"}
    exported = tmp_path / "tiny" / "small"
    shutil.copytree(made["onnx"], exported / "export")
    (exported / runs.MANIFEST).write_text("{}")
    for place in (exported, exported / "export"):
        found = sources.find(place)
        assert (found.kind, found.name, found.folder) == (
            "graphs",
            "tiny/small",
            (exported / "export").resolve(),
        )
    assert sources.find(made["stage"].parent) == sources.find(made["stage"])
    with pytest.raises(ModelError, match="not a saved model"):
        sources.find(tmp_path)


@pytest.mark.parametrize(
    ("name", "asked", "answers"),
    [
        ("stage", "auto", "transformers"), ("merged", "auto", "transformers"), ("onnx", "auto", "onnx"),
        ("base", "transformers", "transformers"), ("onnx", "onnx", "onnx"), ("merged", "vllm", "vllm"),
        ("onnx", "transformers", ""), ("onnx", "vllm", ""), ("stage", "onnx", ""), ("base", "onnx", ""),
    ],
)  # fmt: skip
def test_who_answers(name: str, asked: str, answers: str, made: dict[str, Path]) -> None:
    source = sources.find(made[name])
    if answers:
        assert sources.backend(source, asked) == answers
    else:
        with pytest.raises(RecipeError, match=f"the backend '{asked}' does not open"):
            sources.backend(source, asked)


def answered(place: Path, how: How, body: dict[str, Any]) -> dict[str, Any]:
    """What a server says with a model."""
    opened = open_model(sources.find(place), how)
    backend = Local(opened.bundle, opened.identity, 4)
    with running(backend, about=opened.about) as server, server.client() as client:
        answer = client.post(CHAT, json={**body, "model": opened.identity.name})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def ids(answer: dict[str, Any]) -> list[str]:
    return [token["token"] for token in answer["choices"][0]["logprobs"]["content"]]


def test_graphs_answer_as_the_plain_script_does_and_as_the_stage_does(made: dict[str, Path]) -> None:
    model = generate.Model(made["onnx"])
    pixels = np.asarray(Image.open(io.BytesIO(png())).convert("RGB"), np.float32) / 255
    body = question("What is seen there?", max_tokens=8, logprobs=True)
    wanted = model.greedy(model.prompt("What is seen there?", 1), model.prepare(pixels)[None], 8)
    found = {name: answered(made[name], How(), body) for name in ("onnx", "stage", "merged")}
    assert ids(found["onnx"]) == [model.tokenizer.decode([i], skip_special_tokens=False) for i in wanted]
    assert ids(found["onnx"]) == ids(found["stage"]) == ids(found["merged"])
    assert found["onnx"]["sightline"]["model_sha256"] != found["merged"]["sightline"]["model_sha256"]


def test_graphs_hold_a_conversation_and_show_black(made: dict[str, Path]) -> None:
    body = question(max_tokens=5, logprobs=True)
    body["messages"] += [
        {"role": "assistant", "content": "No"},
        {"role": "user", "content": "And what is seen?"},
    ]
    onnx, taught = (answered(made[name], How(), body) for name in ("onnx", "stage"))
    assert ids(onnx) == ids(taught)
    blind = question(max_tokens=5, logprobs=True, sightline={"image": "black"})
    onnx, taught = (answered(made[name], How(), blind) for name in ("onnx", "stage"))
    assert ids(onnx) == ids(taught)
    assert onnx["sightline"]["image"] == "black"


def test_an_adapter_on_a_base(made: dict[str, Path]) -> None:
    opened = open_model(sources.find(made["base"]), How(adapter=made["adapter"]))
    plain = open_model(sources.find(made["base"]), How())
    assert opened.identity.name == "tiny-llava+adapter"
    assert opened.identity.facts == {"family": "llava", "precision": "float32", "adapter": "adapter"}
    assert opened.identity.sha256 != plain.identity.sha256
    assert (
        opened.note == f"note: the adapter says that it was trained on {BASE}, and it is served on tiny-llava"
    )
    assert plain.note == ""
    words = ("lora_", "base_layer")
    assert not [name for name, _ in opened.bundle.model.named_parameters() if any(w in name for w in words)]
    body = question("What is seen there?", max_tokens=8, logprobs=True)
    both = [answered(made["base"], How(adapter=path), body) for path in (None, made["adapter"])]
    assert both[0]["choices"][0]["logprobs"] != both[1]["choices"][0]["logprobs"]


@pytest.mark.parametrize("load", ["4bit", "8bit"])
def test_rounded_as_it_is_opened(load: str, made: dict[str, Path]) -> None:
    pytest.importorskip("bitsandbytes")
    opened = open_model(sources.find(made["stage"]), How(load=load))
    assert quantized.is_rounded(opened.bundle.model)
    assert opened.identity.facts == {"family": "llava", "precision": "float32", "load": load}
    beside = open_model(
        sources.find(made["base"]), How(load=load, adapter=made["adapter"], precision="bfloat16")
    )
    held = [name for name, _ in beside.bundle.model.named_parameters() if "lora_A" in name]
    assert len(held) == 2 * 2  # q and v of two layers
    answer = answered(made["base"], How(load=load, adapter=made["adapter"]), question(max_tokens=3))
    assert answer["usage"]["completion_tokens"] in (1, 2, 3)


def test_what_is_served_as_it_is(made: dict[str, Path], tmp_path: Path) -> None:
    for how in (How(load="4bit"), How(adapter=made["adapter"]), How(precision="bfloat16")):
        with pytest.raises(ModelError, match="an ONNX export is served as it is"):
            open_model(sources.find(made["onnx"]), how)
    rounded = tmp_path / "rounded"
    shutil.copytree(made["merged"], rounded)
    told = json.loads((rounded / "export.json").read_text())
    (rounded / "export.json").write_text(json.dumps({**told, "kind": "int8"}))
    with pytest.raises(ModelError, match="rounded already"):
        open_model(sources.find(rounded), How(load="4bit"))


def test_an_answer_for_which_nothing_is_said(made: dict[str, Path]) -> None:
    backend = Parrot()
    limits = Limits(usual=2, answer=1024, temperature=0.7)
    with running(backend, limits=limits) as server, server.client() as client:
        client.post(CHAT, json=question())
        client.post(CHAT, json=question(temperature=0, max_tokens=3))
        client.post(CHAT, json=question(temperature=None))
    assert [(q.limit, q.temperature) for q in backend.asked] == [(2, 0.7), (3, 0.0), (2, 0.7)]


def suits(source: sources.Source, version: str = "0.32.0", found: adapter.Adapter | None = None) -> str:
    """Why vLLM does not take a model; nothing where it does."""
    try:
        suited.check(source, version, found)
    except ModelError as error:
        return error.what if error.remedy else "no remedy"
    return ""


def test_models_that_vllm_takes(made: dict[str, Path]) -> None:
    found = adapter.look(made["adapter"])
    assert suits(sources.find(made["merged"])) == ""
    assert suits(sources.find(made["base"]), found=found) == ""
    assert (found.rank, suited.rank(found), suited.touches_tower(found)) == (20, 32, False)
    assert "vLLM opens whole folders" in suits(sources.find(made["stage"]))
    assert "ONNX graphs" in suits(sources.find(made["onnx"]))


@pytest.mark.parametrize(
    ("model", "why"),
    [
        ({"vision": {"model_type": "efficientnet_lite"}}, "the kit's convolutional tower"),
        ({"vision": "kit/efficientnet-lite0"}, "the kit's convolutional tower"),
        ({"connector": "temporal"}, "Libra's connector"),
        ({"connector": {"name": "temporal"}}, "Libra's connector"),
        ({"family": "umbrella", "patches": {}}, "UMBRELLA's tower"),
        ({}, "vLLM opens whole folders"),
    ],
)
def test_stages_that_no_export_would_help(model: dict[str, Any], why: str, tmp_path: Path) -> None:
    info = {"format": 1, "parent": None, "base": {"model": {"family": "llava", "vision": "a", **model}}}
    (tmp_path / checkpoint.INFO).write_text(json.dumps(info))
    assert why in suits(sources.find(tmp_path))


@pytest.mark.parametrize(
    ("config", "version", "why"),
    [
        ({"model_type": "mllama"}, "0.32.0", "vLLM 0.32.0 does not open Mllama"),
        ({"model_type": "mllama"}, "0.11.0rc1", "does not open Mllama"),
        ({"model_type": "mllama"}, "0.10.2", ""),
        ({"model_type": "llava", "vision_config": {"model_type": "dinov2"}}, "0.32.0", "a tower 'dinov2'"),
        ({"model_type": "llava", "vision_config": {"model_type": "siglip_vision_model"}}, "0.32.0", ""),
        ({"model_type": "qwen3_vl"}, "0.32.0", ""),
        ({"model_type": "llama"}, "0.32.0", "no family opens a model of the type 'llama'"),
    ],
)
def test_folders_that_vllm_takes(config: dict[str, Any], version: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    found = suits(sources.find(tmp_path), version)
    assert why in found
    assert bool(found) == bool(why)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"r": 513}, "rank 513"),
        ({"r": 8, "rank_pattern": {"q_proj": 600}}, "rank 600"),
        ({"r": 8, "modules_to_save": ["lm_head"]}, "trained in full"),
        ({"r": 8, "use_dora": True}, "DoRA"),
    ],
)
def test_adapters_that_vllm_does_not_take(told: dict[str, Any], why: str, made: dict[str, Path]) -> None:
    found = adapter.Adapter(made["adapter"], told)
    assert why in suits(sources.find(made["base"]), found=found)


def test_an_adapter_of_another_model_is_refused_before_vllm_starts(
    made: dict[str, Path], tmp_path: Path
) -> None:
    place = tmp_path / "other"
    shutil.copytree(made["adapter"], place)
    weights = load_file(place / adapter.WEIGHTS)
    first = next(key for key in weights if "language_model" in key and "lora_A" in key)
    for changed, why in (
        (
            {**weights, first.replace("layers.0", "layers.9"): weights[first].clone()},
            "1 unexpected layers; unexpected: ",
        ),
        ({**weights, first: torch.zeros(20, 48)}, "1 layers with other numbers of inputs: "),
    ):
        save_file(changed, place / adapter.WEIGHTS)
        for base in ("base", "merged"):
            with pytest.raises(ModelError, match="does not fit the model") as error:
                suited.check(sources.find(made[base]), "0.32.0", adapter.look(place))
            assert error.value.found.startswith(why)
            assert BASE in error.value.expected


@pytest.mark.parametrize("part", ["vision_tower.encoder.layers.0.mlp.fc1", "multi_modal_projector.linear_1"])
def test_an_adapter_outside_the_language_model(part: str, made: dict[str, Path], tmp_path: Path) -> None:
    place = tmp_path / "other"
    shutil.copytree(made["adapter"], place)
    key = f"base_model.model.model.{part}.lora_A.weight"
    save_file({**load_file(place / adapter.WEIGHTS), key: torch.zeros(20, 16)}, place / adapter.WEIGHTS)
    assert "changes tower or connector" in suits(sources.find(made["base"]), found=adapter.look(place))


def test_ranks_are_rounded_up() -> None:
    def rank(r: int) -> int:
        return suited.rank(adapter.Adapter(Path("a"), {"r": r}))

    assert [rank(r) for r in (1, 2, 8, 9, 16, 128, 129, 300, 512)] == [1, 8, 8, 16, 16, 128, 256, 320, 512]


def test_an_export_with_a_tower_of_our_own_is_refused(made: dict[str, Path], tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(made["merged"], own)
    told = json.loads((own / "export.json").read_text())
    (own / "export.json").write_text(json.dumps({**told, "opens_with": ["sightline"]}))
    assert "opened by Sightline alone" in suits(sources.find(own))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tensor-parallel", "2"], "--backend auto with --tensor-parallel"),
        (["--vllm-python", "python"], "--backend auto with --vllm-python"),
        (["--vllm-arg", "enforce-eager", "--backend", "onnx"], "--backend onnx with --vllm-arg"),
        (["--backend", "vllm", "--load", "4bit"], "--backend vllm with --load"),
        (["--remote", "http://127.0.0.1:9/v1", "--adapter", "a"], "--remote with --adapter"),
        (["--backend", "tgi"], "auto or transformers or onnx or vllm"),
        (["--load", "2bit"], "4bit or 8bit"),
        (["--precision", "int3"], "float32 or bfloat16"),
    ],
)
def test_options_that_do_not_go_together(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, error = command(monkeypatch, capsys, "serve", "absent", *words)
    assert (code, said in error) == (1, True), error


def test_vllm_is_refused_before_anything_starts(
    made: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SIGHTLINE_VLLM_PYTHON", raising=False)
    code, _, error = command(monkeypatch, capsys, "serve", made["merged"], "--backend", "vllm")
    assert (code, "an environment of its own, and none is named" in error) == (1, True)
    code, _, error = command(monkeypatch, capsys, "serve", made["onnx"], "--backend", "transformers")
    assert (code, "does not open an ONNX export" in error) == (1, True)
