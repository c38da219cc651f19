"""Evaluations of what no stage trained: exports, base models, and a model behind an address, by the same measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import models_export
import small
from commanded import command
from serving import IDENTITY, TOKEN, Parrot, running
from sightline import runs
from sightline.cli import measure
from sightline.errors import ModelError, RecipeError, RunError
from sightline.recipe import Evaluate
from sightline.stages import export as stage
from sightline.stages import served

READ = ["patients=4", "size=64"]


@pytest.fixture(scope="module")
def taught(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stage `taught` of the small recipe."""
    return small.taught(language, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def exports(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("exports")
    for kind in ("merged", "onnx"):
        stage.make(stage.Order(place=taught / "model", kind=kind, to=root / kind, home=root / kind))
    return {kind: root / kind for kind in ("merged", "onnx")}


def evaluated(model: object, root: Path, backend: str = "auto", limit: int = 4) -> Path:
    return measure.measure(str(model), "-", "phantom", READ, runs=root, limit=limit, backend=backend)


def answers(folder: Path, image: str = "clean") -> list[dict[str, Any]]:
    (path,) = (folder / "predictions").glob(f"*-{image}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_exports_are_measured_as_their_model_is(
    taught: Path, exports: dict[str, Path], tmp_path: Path
) -> None:
    wanted = answers(evaluated(taught, tmp_path))
    for kind, backend in (("merged", "auto"), ("onnx", "onnx")):
        folder = evaluated(exports[kind], tmp_path, backend)
        found = answers(folder)
        assert [a["text"] for a in found] == [a["text"] for a in wanted]
        assert [a["model"] for a in found] == [kind] * len(wanted)
        for one, other in zip(found, wanted, strict=True):
            assert one["choices"] == pytest.approx(other["choices"], abs=1e-3)
        told = runs.read_json(folder / "result.json")["models"][kind]
        assert told["line"] == [served.of_folder(exports[kind], "auto").sha256]
        assert (folder / "report.html").is_file()


def test_one_that_has_changed_is_asked_anew(exports: dict[str, Path], tmp_path: Path) -> None:
    before = served.of_folder(exports["merged"], "auto")
    (exports["merged"] / "note.txt").write_text("another model")
    try:
        with pytest.raises(RunError, match="have changed"):
            served.open_model(before)
        assert served.of_folder(exports["merged"], "auto").known != before.known
    finally:
        (exports["merged"] / "note.txt").unlink()
    assert served.of_folder(exports["merged"], "auto") == before


def test_a_model_behind_an_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIGHTLINE_REMOTE_TOKEN", TOKEN)
    backend = Parrot(words=("No",), slots=16)
    with running(backend, token=TOKEN) as server:
        folder = evaluated(IDENTITY.name, tmp_path, f"{server.url}/v1")
        count = len(backend.asked)
        assert evaluated(IDENTITY.name, tmp_path, f"{server.url}/v1") == folder
        assert len(backend.asked) == count  # what was answered is known
    found = answers(folder)
    assert {a["text"] for a in found} == {"No"}
    assert {a["logp"] for a in found} == {-0.25}
    assert not any(a["choices"] for a in found)
    assert count == 4 * len(found)  # clean, noise, black and swapped
    second = [q for q in backend.asked if len(q.messages) == 3]
    assert second
    assert all(q.messages[1].parts == ("No",) for q in second)  # its own answer, not the right one
    means = sorted({round(float(np.mean(q.pictures[0].pixels)), 3) for q in backend.asked})
    assert means[0] == 0.0  # black ones
    assert len(means) > 3
    told = runs.read_json(folder / "result.json")
    assert told["models"]["tiny-taught"]["line"] == [IDENTITY.sha256]
    assert runs.read_json(folder / "scores.json")["rows"]
    for words in (
        ("verify", folder),
        ("show", folder, "--how"),
        ("report", folder, "--out", tmp_path / "pages"),
    ):
        code, said, wrong = command(monkeypatch, capsys, *words)
        assert code == 0, said + wrong


def test_a_server_that_fails_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sightline.stages.far.TRIES", (0.01,))
    backend = Parrot(words=("No",), slots=16, fails=True)
    with running(backend) as server:
        with pytest.raises(RunError, match="does not answer"):
            evaluated(IDENTITY.name, tmp_path, f"{server.url}/v1")
        backend.fails = False
        assert len(answers(evaluated(IDENTITY.name, tmp_path, f"{server.url}/v1"))) > 1


def test_what_an_address_cannot_give_is_refused() -> None:
    there = served.Served(kind="address", place="http://127.0.0.1:9/v1", model="m", sha256="")
    graphs = served.Served(kind="graphs", place="/a", model="m", sha256="0")
    plain = {"stage": "evaluate", "data": "data", "models": ["./m"]}

    def asked(**more: Any) -> Evaluate:
        return Evaluate.model_validate({**plain, **more})

    served.check(there, asked(metrics=["vqa", "bleu"]))
    for more, what in (
        ({"metrics": ["vqa", "calibration"]}, "calibration"),
        ({"metrics": [{"looking": {}}]}, "looking"),
        ({"abstain": {}}, "abstain"),
        ({"generate": {"beams": 2}}, "2"),
        ({"images": ["clean", "occluded", "occluded_elsewhere"]}, "occluded, occluded_elsewhere"),
    ):
        with pytest.raises(RecipeError) as error:
            served.check(there, asked(**more))
        assert error.value.found == what
    served.check(graphs, asked(metrics=["calibration"], abstain={}))
    with pytest.raises(RecipeError, match="not told from outside"):
        served.check(graphs, asked(images=["clean", "occluded", "occluded_elsewhere"]))


def test_what_is_not_there(taught: Path, exports: dict[str, Path], tmp_path: Path) -> None:
    with running(Parrot()) as server:
        with pytest.raises(ModelError, match="no such model") as error:
            evaluated("another", tmp_path, f"{server.url}/v1")
        assert error.value.expected == IDENTITY.name
    with pytest.raises(ModelError, match="no server answers"):
        evaluated("m", tmp_path, "http://127.0.0.1:9/v1")
    with pytest.raises(RecipeError, match="does not open"):
        evaluated(exports["merged"], tmp_path, "onnx")
    with pytest.raises(RecipeError) as refused:
        evaluated(exports["merged"], tmp_path, "vllm")
    assert "has an address" in refused.value.remedy
    with pytest.raises(RecipeError, match="does not open a trained stage"):
        evaluated(taught, tmp_path, "onnx")
    with pytest.raises(ModelError, match="no trained stage"):
        evaluated(tmp_path / "absent", tmp_path)


def test_a_base_model_is_measured(exports: dict[str, Path], tmp_path: Path) -> None:
    base = tmp_path / "tiny-llava"
    base.mkdir()
    for path in exports["merged"].iterdir():
        if path.name not in ("model.yaml", "export.json", "README.md"):
            (base / path.name).write_bytes(path.read_bytes())
    there = served.of_folder(base, "transformers")
    assert (there.kind, there.model) == ("base", "tiny-llava")
    bundle: Any = served.open_model(there)
    assert bundle.family.name == "llava"
    asked = models_export.samples(tmp_path, 1)
    own: Any = served.open_model(served.of_folder(exports["merged"], "auto"))
    assert models_export.told(bundle, asked, tmp_path) == models_export.told(own, asked, tmp_path)
