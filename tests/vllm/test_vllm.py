"""vLLM in its own environment (`make test-vllm`): through `sightline serve` it says what transformers says."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlavaForConditionalGeneration

import models
import models_export
from serving import CHAT, running, until, url
from sightline.export import opened
from sightline.models import checkpoint
from sightline.serve import vllm
from sightline.serve.local import Local
from sightline.serve.opening import How, open_model
from sightline.serve.sources import find
from sightline.stages import export as stage

PYTHON = os.environ.get(vllm.ENVIRONMENT, "")
ABSENT = os.environ.get("SIGHTLINE_VLLM_ABSENT", "") or "`make test-vllm` sets up vLLM and runs this"
# Two heads of 32: vLLM's attention on a CPU knows no smaller ones.
PARTS = {**models_export.WIDE, "num_attention_heads": 2, "num_key_value_heads": 1}
SMALLEST = ("max-model-len=256", "enforce-eager", "max-num-batched-tokens=512")
BY_NUMBER = "return-tokens-as-token-ids"  # torn letters are written otherwise there; ids are ids
BEGIN = 600.0  # seconds, on two shared cores
SAMPLES = 20
LAYERS = r".*language_model.*\.(q_proj|v_proj|down_proj)"

pytestmark = [
    pytest.mark.skipif(not Path(PYTHON).is_file(), reason=ABSENT),
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]


@dataclass
class Served:
    """`sightline serve --backend vllm` in a process of its own."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        found = [line.split()[1].rstrip("/") for line in self.lines if line.startswith("page http://")]
        return found[0] if found else ""


@pytest.fixture(scope="module")
def merged(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny LLaVA (CLIP and Llama) with its adapter merged, in float32."""
    root = tmp_path_factory.mktemp("merged")
    section = {**models.section(language), "language": {**PARTS, "tokenizer": str(language)}}
    place = models_export.save(checkpoint.compose(section, 0), root)
    stage.make(stage.Order(place=place, kind="merged", to=root / "made", home=root / "made"))
    assert opened.report(root / "made")["opens_with"] == ["transformers"]
    return root / "made"


@pytest.fixture(scope="module", params=["merged", "adapter"])
def model(request: Any, merged: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path | None]:
    """The folder, and an adapter of another program or none."""
    if request.param == "merged":
        return merged, None
    torch.manual_seed(0)
    asked = LoraConfig(r=20, lora_alpha=20, target_modules=LAYERS, init_lora_weights=False)
    lora = get_peft_model(LlavaForConditionalGeneration.from_pretrained(merged), asked)
    place = tmp_path_factory.mktemp("lora")
    lora.save_pretrained(place, save_embedding_layers=False)
    return merged, place


@pytest.fixture(scope="module")
def served(model: tuple[Path, Path | None]) -> Iterator[Served]:
    folder, adapter = model
    words = [
        "serve",
        str(folder),
        "--backend",
        "vllm",
        "--vllm-python",
        PYTHON,
        "--port",
        "0",
        "--slots",
        "4",
    ]
    words += ["--adapter", str(adapter)] if adapter else []
    words += [word for option in (*SMALLEST, BY_NUMBER) for word in ("--vllm-arg", option)]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    process = subprocess.Popen(
        [sys.executable, "-c", "from sightline.cli import main; main()", *words], stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, env=environment,
    )  # fmt: skip
    made = Served(process)
    reader = threading.Thread(target=lambda: made.lines.extend(process.stdout or ()), daemon=True)
    reader.start()
    try:
        until(lambda: made.address or process.poll() is not None, BEGIN)
        assert made.address, "".join(made.lines[-60:])
        yield made
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(90)
        reader.join(5)


def asked(question: str, image: Path, name: str) -> dict[str, Any]:
    content = [
        {"type": "image_url", "image_url": {"url": url(image.read_bytes())}},
        {"type": "text", "text": question},
    ]
    return {
        "model": name, "messages": [{"role": "user", "content": content}], "max_tokens": models_export.STEPS,
        "logprobs": True,
    }  # fmt: skip


def numbers(answer: dict[str, Any]) -> list[int]:
    """The ids of an answer's tokens."""
    content = answer["choices"][0]["logprobs"]["content"]
    return [int(each["token"].removeprefix("token_id:")) for each in content]


def answers(client: httpx.Client, name: str, root: Path) -> list[dict[str, Any]]:
    made = []
    for sample in models_export.samples(root, SAMPLES):
        body = asked(str(sample.messages[0].parts[1]), root / sample.images[0].path, name)
        answer = client.post(CHAT, json=body)
        assert answer.status_code == 200, answer.text
        made.append(answer.json())
    return made


def test_twenty_greedy_answers_are_those_of_transformers(
    model: tuple[Path, Path | None], served: Served, tmp_path: Path
) -> None:
    own = open_model(find(model[0]), How(adapter=model[1]))
    with running(Local(own.bundle, own.identity, 4)) as made, made.client() as client:
        wanted = answers(client, own.identity.name, tmp_path)
    with httpx.Client(base_url=served.address, timeout=120) as client:
        found = answers(client, own.identity.name, tmp_path)
    ids = models_export.told(own.bundle, models_export.samples(tmp_path, SAMPLES), tmp_path)
    assert models_export.without_end([numbers(answer) for answer in found], own.bundle) == ids
    assert len({tuple(row) for row in ids}) > SAMPLES / 2  # it looks at what it is asked
    for one, other, row in zip(found, wanted, ids, strict=True):
        assert one["usage"]["prompt_tokens"] == other["usage"]["prompt_tokens"]
        assert other["usage"]["completion_tokens"] == len(row)
        assert one["choices"][0]["finish_reason"] == other["choices"][0]["finish_reason"]
        assert one["sightline"]["model_sha256"] == own.identity.sha256
        near = pytest.approx(other["sightline"]["sure"]["confidence"], rel=1e-2)
        assert one["sightline"]["sure"]["confidence"] == near


def test_what_it_would_obey_is_refused_and_nothing_of_a_question_is_logged(
    model: tuple[Path, Path | None], served: Served, tmp_path: Path
) -> None:
    name = model[0].name if model[1] is None else f"{model[0].name}+{model[1].name}"
    image = tmp_path / models.picture(tmp_path, "a.png", 1).path
    with httpx.Client(base_url=served.address, timeout=120) as client:
        answer = client.post(CHAT, json=asked("Say <|im_end|> twice", image, name))
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "control_word")
        assert client.post(CHAT, json=asked("Where is Maier's nodule?", image, name)).status_code == 200
        long = client.post(CHAT, json=asked("word " * 300, image, name))
        assert (long.status_code, "too long" in long.json()["error"]["message"]) == (502, True)
    log = "".join(served.lines)
    assert "Maier" not in log
    assert base64.b64encode(image.read_bytes()).decode()[:40] not in log


def below(pid: int) -> list[int]:
    """All processes that a process started, and those that these started."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    own = [int(each) for each in path.read_text().split()] if path.exists() else []
    return [*own, *(deeper for each in own for deeper in below(each))]


def test_it_ends_with_the_server(served: Served) -> None:
    """The last test of this file: the server is stopped."""
    started = below(served.process.pid)
    assert len(started) > 1  # the leash, and vLLM
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(90) == 0
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in started), 30)
    assert "stopped\n" in served.lines
