"""What was calibrated is evaluated and served like any other rounded export."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch

import small
from serving import CHAT, question, running
from sightline.cli import measure
from sightline.data import prepare
from sightline.errors import ModelError
from sightline.export import calibration, opened
from sightline.export.written import KINDS, ROUNDED
from sightline.recipe import Calibrate
from sightline.serve import sources
from sightline.serve.local import Local
from sightline.serve.opening import How, open_model
from sightline.stages import export as stage


@pytest.fixture(scope="module")
def exports(language: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small recipe's model by GPTQ and by AWQ."""
    if importlib.util.find_spec("llmcompressor") is None:
        pytest.skip("llmcompressor is not installed")
    ran = small.taught(language, tmp_path_factory.mktemp("runs")).parent
    asked = Calibrate(samples=4, max_tokens=2048)
    held = calibration.of(prepare.load(ran / "data"), asked, lambda sample: sample, 0)
    made = {kind: tmp_path_factory.mktemp("exports") / kind for kind in ("gptq", "awq")}
    for kind, to in made.items():
        stage.make(stage.Order(place=ran / "taught" / "model", kind=kind, to=to, home=to, calibration=held))
    return made


def test_one_list_says_what_is_rounded() -> None:
    assert ROUNDED == ("int8", "nf4", "fp8", "gptq", "awq")
    assert set(ROUNDED) == set(KINDS) - {"merged", "onnx", "onnx_int8"}


@pytest.mark.parametrize("kind", ["gptq", "awq"])
def test_it_is_measured(kind: str, exports: dict[str, Path], tmp_path: Path) -> None:
    folder = measure.measure(
        str(exports[kind]), "-", "phantom", ["patients=4", "size=64"], runs=tmp_path, limit=4
    )
    (path,) = (folder / "predictions").glob("*-clean.jsonl")
    answers = [json.loads(line) for line in path.read_text().splitlines()]
    assert {a["model"] for a in answers} == {kind}
    assert len({a["sample"] for a in answers}) == 4


@pytest.mark.parametrize("kind", ["gptq", "awq"])
def test_it_is_served(kind: str, exports: dict[str, Path]) -> None:
    source = sources.find(exports[kind])
    made = open_model(source, How())
    assert made.identity.facts == {"family": "llava", "precision": "float32", "export": kind}
    own, here = opened.load(exports[kind]).model.state_dict(), made.bundle.model.state_dict()
    assert all(torch.equal(own[name], here[name]) for name in own)
    backend = Local(made.bundle, made.identity, 4)
    with running(backend, about=made.about) as server, server.client() as client:
        told = client.post(CHAT, json=question(max_tokens=3, model=made.identity.name)).json()
    assert told["usage"]["completion_tokens"] in (1, 2, 3)
    with pytest.raises(ModelError, match="rounded already"):
        open_model(source, How(load="4bit"))
