"""The command line: exit codes, messages without tracebacks, pure JSON, and signals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sightline import cli, runs, stages
from sightline.cli import machine, measure
from sightline.cli.plan import needs, plan
from sightline.errors import ModelError, RecipeError
from sightline.recipe import Recipe, check
from sightline.stages import HERE, version_of

RECIPE = """# a small data set
name: small
stages:
  data: {stage: prepare, reader: phantom, patients: 6, size: 64}
"""
SCORE = {"model": "taught", "image": "clean", "metric": "vqa", "value": 0.5, "low": 0.4, "high": 0.625}
SCORES = {
    "rows": [{**SCORE, "n": 10, "patients": 5, "extra": 1}],
    "paired": [
        {"question": "taught against base", "metric": "vqa", "a": "taught", "b": "base", "difference": 0.1}
        | {"low": 0.0, "high": 0.2, "p": 0.03, "n": 10, "patients": 5}
    ],
}
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def sightline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """Run a command in this process; gives (exit code, standard output, standard error)."""
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sightline", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out = capsys.readouterr()
        return int(caught.value.code or 0), out.out, out.err

    yield run
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of one stage in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    Path("recipes").mkdir()
    Path("recipes/small.yaml").write_text(RECIPE)
    return Path("recipes/small.yaml")


def evaluation(folder: Path) -> Path:
    """A finished evaluate stage with the scores above."""
    with runs.start(folder, section={"stage": "evaluate"}, seed=0, version=1, parents={}) as run:
        runs.write_json(run.work / "scores.json", SCORES)
        (run.work / "report.html").write_text("<html></html>")
    return folder


def test_a_run_and_what_can_be_asked_of_it(recipe: Path, sightline: Cli) -> None:
    code, out, _ = sightline("check", recipe)
    assert code == 0
    assert "would run (new)" in out
    assert "disk:" in out
    assert not Path("runs").exists()

    code, out, _ = sightline("run", recipe, "data.patients=5")
    assert code == 0
    assert "data: prepare" in out
    assert "not for clinical use" in out
    assert "data: up to date" in sightline("run", recipe, "data.patients=5")[1]
    assert "up to date" in sightline("check", recipe, "data.patients=5")[1]
    assert "the recipe, its data or the code changed" in sightline("check", recipe)[1]

    assert "data  prepare  finished" in sightline("show", "runs/small")[1]
    assert json.loads(sightline("show", "runs/small", "--json")[1])[0]["state"] == "finished"
    assert "train.parquet" in sightline("show", "runs/small/data")[1]
    assert "0 images in both" in sightline("data", "audit", "runs/small/data")[1]
    shown = sightline("data", "show", "runs/small/data", "0")[1]
    assert "<image 0>Is there a left effusion?" in shown
    by_id = sightline("data", "show", "runs/small/data", shown.split()[0])[1]
    assert by_id == shown
    code, _, err = sightline("data", "show", "runs/small/data", "nobody")
    assert code == 1
    assert "a place from 0 to" in err

    assert "as its manifest says" in sightline("verify", "runs/small")[1]
    Path("runs/small/data/train.parquet").write_bytes(b"x")
    code, out, err = sightline("verify", "runs/small/data")
    assert code == 1
    assert "train.parquet: found 1 bytes, expected" in err
    assert "a file is damaged" in sightline("check", recipe, "data.patients=5")[1]


def test_an_interrupted_stage_is_shown_and_checked_as_such(recipe: Path, sightline: Cli) -> None:
    made = check({"name": "small", "stages": {"data": {"stage": "prepare", "reader": "phantom"}}}, "here")
    section = made.stages["data"].model_dump(mode="json")

    def die() -> None:
        with runs.start(
            Path("runs/small/data"), section=section, seed=0, version=version_of("prepare"), parents={}
        ):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        die()
    assert [s.state for s in plan(made, Path("runs"))] == ["would resume"]
    assert "interrupted" in sightline("show", "runs/small")[1]


def test_the_memory_of_an_encoder_is_told(tmp_path: Path) -> None:
    encoder = {"stage": "contrast", "data": "data", "trainable": {"text": {"full": {"lr": 1e-4}}}}
    data = {"stage": "prepare", "reader": "phantom"}
    told = needs(check({"name": "small", "stages": {"data": data, "encoder": encoder}}, "here"), tmp_path)
    assert "(encoder: 27 M weights, at most 23 M trained)" in told[0]  # Lite0, MiniLM and heads


def test_a_judge_outside_the_recipe_is_read_too(tmp_path: Path) -> None:
    places = {name: tmp_path / "saved" / name for name in ("model", "judge")}
    for place in places.values():
        place.mkdir(parents=True)
        runs.seal(place)
    section = {
        "stage": "prefer", "data": "data", "model": str(places["model"]), "kinds": {"judged": 1},
        "judge": {"model": str(places["judge"])},
    }  # fmt: skip
    stages_ = {"data": {"stage": "prepare", "reader": "phantom"}, "pairs": section}
    step = plan(check({"name": "small", "stages": stages_}, "here"), tmp_path)[1]
    assert step.reads == ("data", str(places["model"]), str(places["judge"]))


def test_versions_of_stages_are_read_without_importing_them() -> None:
    for path in HERE.glob("[!_]*.py"):
        if "\nVERSION = " in path.read_text(encoding="utf-8"):
            assert version_of(path.stem) >= 1
    assert stages.__name__ == "sightline.stages"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["run", "absent.yaml"], 1, "recipe: no such recipe"),
        (["run", "recipes/small.yaml", "data.patents=3"], 1, "did you mean 'patients'"),
        (["run", "recipes/small.yaml", "--only", "dta"], 1, "--only names no stage: dta"),
        (["show", "absent"], 1, "run: no finished stage here"),
        (["verify", "absent"], 1, "run: no finished stage here"),
        (["data", "audit", "absent"], 1, "no prepared data set in this folder"),
        (["data", "audit", ".", "--reader", "vqa_rat"], 1, "did you mean 'vqa_rad'"),
        (["evaluate", "absent", ".", "--reader", "vqa_rad"], 1, "model: no trained stage in this folder"),
        (["rnu", "recipes/small.yaml"], 2, "No such command 'rnu'"),
        (["run"], 2, "Missing argument"),
        (["evaluate", "a", "b"], 2, "Missing option '--reader'"),
        (["run", "recipes/small.yaml", "--whole"], 2, "No such option"),
    ],
)
def test_mistakes(recipe: Path, sightline: Cli, words: Sequence[str], code: int, said: str) -> None:
    found, out, err = sightline(*words)
    assert found == code
    assert said in err
    assert "Traceback" not in err
    assert out == ""


def test_trace_raises_instead(recipe: Path, sightline: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["sightline", "run", "absent.yaml", "--trace"])
    with pytest.raises(RecipeError, match="no such recipe"):
        cli.main()


def test_a_full_disk_is_an_error_and_not_a_traceback(
    recipe: Path, sightline: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*words: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device", "runs/small/data")

    monkeypatch.setattr(stages, "execute", full)
    code, _, err = sightline("run", recipe)
    assert code == 1
    assert err.startswith("error: No space left on device\n  where:    runs/small/data")


def test_scores_as_table_and_as_json_of_exactly_eight_keys(tmp_path: Path, sightline: Cli) -> None:
    folder = evaluation(tmp_path / "evaluate")
    out = sightline("show", folder)[1]
    assert out.splitlines()[0].split() == [
        "model",
        "image",
        "metric",
        "value",
        "low",
        "high",
        "n",
        "patients",
    ]
    assert out.splitlines()[1].split() == ["taught", "clean", "vqa", "0.5", "0.4", "0.625", "10", "5"]
    assert json.loads(sightline("show", folder, "--json")[1]) == [{**SCORE, "n": 10, "patients": 5}]
    paired = json.loads(sightline("show", folder, "--json", "--paired")[1])
    assert paired == SCORES["paired"]
    assert "taught against base" in sightline("show", folder, "--paired")[1]


def test_paired_of_a_stage_that_compares_nothing(recipe: Path, sightline: Cli) -> None:
    sightline("run", recipe)
    code, _, err = sightline("show", "runs/small/data", "--paired")
    assert code == 1
    assert "this stage compares nothing" in err


def test_evaluate_prints_pure_json(tmp_path: Path, sightline: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    model = evaluation(tmp_path / "taught")
    asked: list[Recipe] = []

    def execute(recipe: Recipe, root: Path) -> dict[str, Path]:
        asked.append(recipe)
        print("progress")
        return {"evaluate": evaluation(root / recipe.name / "evaluate")}

    monkeypatch.setattr(stages, "execute", execute)
    words = ("evaluate", model, tmp_path, "--reader", "vqa_rad", "group=image", "--json", "--limit", 3)
    code, out, err = sightline(*words, "--runs", tmp_path / "runs")
    assert code == 0
    assert json.loads(out)[0]["model"] == "taught"
    assert "progress" in err
    assert "report.html" in err
    made = asked[0]
    assert made.name.startswith("evaluate-taught-")
    assert made.stages["data"].model_dump()["split"]["test"] == 1
    assert made.stages["data"].model_dump()["group"] == "image"
    assert made.stages["evaluate"].model_dump()["limit"] == 3


def test_a_measurement_is_named_by_what_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    evaluation(tmp_path / "taught")
    (tmp_path / "taught" / "model").mkdir()
    by_word = measure.recipe_of("taught", "a", "vqa_rad", {}, None)
    assert (
        measure.recipe_of(str(tmp_path / "taught" / "model"), "a", "vqa_rad", {}, None).name == by_word.name
    )
    assert measure.recipe_of("taught", "b", "vqa_rad", {}, None).name != by_word.name
    generated = measure.recipe_of("taught", "-", "phantom", {"patients": 3}, None).stages["data"]
    assert generated.model_dump()["root"] is None
    with pytest.raises(ModelError, match="no trained stage"):
        measure.recipe_of("absent", "a", "vqa_rad", {}, None)
    with pytest.raises(RecipeError, match="reads key=value"):
        measure.parse(["group"])
    assert measure.parse(["a=b=c", "n=3"]) == {"a": "b=c", "n": 3}


def test_audit_of_raw_files(tmp_path: Path, sightline: Cli) -> None:
    (tmp_path / "images").mkdir()
    Image.new("L", (8, 8), 90).save(tmp_path / "images" / "a.png")
    row = {"image_name": "a.png", "question": "Is it?", "answer": "yes"}
    (tmp_path / "trainset.json").write_text(json.dumps([{**row, "qid": "1"}]))
    (tmp_path / "testset.json").write_text(
        json.dumps([{**row, "qid": "2"}, {**row, "qid": "3", "answer": ""}])
    )
    code, out, _ = sightline("data", "audit", tmp_path, "--reader", "vqa_rad")
    assert code == 0
    assert "the official splits leak: 1 images stand in both train and test" in out
    assert "1 record(s) would be set aside" in out


def test_ls_lists_recipes_and_plugins(recipe: Path, sightline: Cli) -> None:
    out = sightline("ls")[1]
    assert "recipes/small.yaml" in out
    assert "a small data set" in out
    assert "losses      dpo" in out


def test_help_and_version(sightline: Cli) -> None:
    assert "not for clinical use" in sightline("--help")[1]
    assert sightline("--version")[1].startswith("sightline 0.")


def test_doctor_compares_with_the_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("constraints.txt").write_text("# pins\nrouge_score==0.0.1\nnumpy==1.0\n")
    found = dict(line.split(maxsplit=1) for _, line in machine.packages(machine.pins()))
    assert found["numpy"].endswith("tested with 1.0")
    assert found["rouge_score"].endswith("tested with 0.0.1")
    monkeypatch.setattr(machine, "NEEDED", ("no-such-package",))
    assert list(machine.packages({}))[-1] == ("missing", "no-such-package is not installed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_with_75_and_says_how_to_go_on(recipe: Path, number: signal.Signals) -> None:
    words = [
        sys.executable,
        "-u",
        "-m",
        "sightline",
        "run",
        str(recipe),
        "data.patients=5000",
        "data.size=256",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "data: prepare\n"
        running.send_signal(number)
        _, err = running.communicate(timeout=30)
    assert running.returncode == 75
    assert f"interrupted: stopped by {number.name}" in err
    assert "give the same command again to go on" in err
    assert "Traceback" not in err
    assert not Path("runs/small/data").exists()
