"""One image and one question in one call: the same reports and answers that a data set's samples get, nothing kept."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

import models_encoders
import models_new
import models_umbrella
from serving import CHAT, question, running, url
from sightline import NOTICE, cli, recipe, runs, stages
from sightline.data import prepare
from sightline.errors import DataError, ImageError, RecipeError, RunError, SightlineError
from sightline.images.brain import Brain
from sightline.models import checkpoint
from sightline.models.family import Bundle
from sightline.serve.backend import Identity
from sightline.serve.company import open_beside, wording
from sightline.serve.engine import Prompt
from sightline.serve.local import Local
from sightline.serve.opening import How
from sightline.serve.sources import find
from sightline.settings import Generate, Template
from sightline.stages import consultation
from sightline.stages.answers import aided
from sightline.stages.consultation import Reply, Shelf, consult
from sightline.types import Message, Sample

FULL = {"full": {"lr": 1e-2}}
SHORT = Generate(max_new_tokens=6, batch=8)


def document(language: Path) -> dict[str, Any]:
    found = {"stage": "retrieve", "data": "data", "prompt": {"name": "plain"}}
    return {
        "name": "asked",
        "seed": 3,
        "stages": {
            "data": {
                "stage": "prepare", "reader": "phantom", "patients": 14, "size": 64,
                "split": {"train": 0.5, "valid": 0.2, "test": 0.3},
            },
            "encoder": {
                "stage": "contrast", "data": "data", "model": models_new.siglip(language),
                "trainable": {"vision": FULL, "text": FULL, "heads": FULL},
                "train": {"steps": 2, "batch": 4, "warmup": 0},
            },
            "reports": {"stage": "index", "data": "data", "model": "encoder"},
            "more": {"stage": "index", "data": "data", "model": "encoder", "split": ["valid"]},
            "found": {**found, "index": "reports", "choose": {"rule": "ratio", "k": 3, "gamma": 1.0005}},
            "held": {**found, "index": "reports", "choose": {"rule": "calibrated", "k": 3, "alpha": 0.99}},
            "both": {**found, "index": {"own": "reports", "other": "more"}, "choose": {"k": 2}},
            "taught": {
                "stage": "sft", "data": "found", "reports": 0.5, "model": models_new.mllama(language),
                "max_tokens": 2048, "trainable": {"language": {"lora": {"r": 2, "alpha": 4, "lr": 1e-2}}},
                "train": {"steps": 2, "batch": 2},
            },
            "evaluate": {
                "stage": "evaluate", "data": "found", "models": ["taught"], "images": ["clean", "unaided"],
                "generate": SHORT.model_dump(), "resamples": 100,
            },
        },
    }  # fmt: skip


@dataclass(frozen=True)
class Life:
    """A finished run and its model, open."""

    home: Path
    bundle: Bundle

    def lines(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.home / name).read_text(encoding="utf-8").splitlines()]

    def said(self, image: str) -> dict[tuple[str, int], dict[str, Any]]:
        """What the evaluation's model answered, by sample and turn."""
        return {(p["sample"], p["turn"]): p for p in self.lines(f"evaluate/predictions/taught-{image}.jsonl")}

    def place(self, sample: Sample) -> Path:
        return prepare.load(self.home / "data").root / sample.images[0].path

    def ask(self, sample: Sample, shelf: Shelf | None) -> Reply:
        """The first question of a sample, as a stranger would ask it."""
        first, answer = sample.messages[:2]
        kind = "report" if answer.topic == "report" else "closed"
        return consult(self.bundle, [self.place(sample)], first.text, shelf, kind=kind, generate=SHORT)


@pytest.fixture(scope="module")
def life(language: Path, tmp_path_factory: pytest.TempPathFactory) -> Life:
    root = tmp_path_factory.mktemp("runs")
    folders = stages.execute(recipe.check(document(language), "test"), root, say=lambda line: None)
    return Life(root / "asked", checkpoint.load(folders["taught"] / "model"))


@pytest.fixture(scope="module")
def shelf(life: Life) -> Shelf:
    return Shelf.open(life.home / "found")


def samples(life: Life, split: str) -> list[Sample]:
    return list(prepare.load(life.home / "data").samples(split))


def test_a_stranger_s_question_gets_the_reports_and_the_answer_of_the_data_set(
    life: Life, shelf: Shelf
) -> None:
    retrieved, said = {row["id"]: row for row in life.lines("found/retrieved.jsonl")}, life.said("clean")
    kept = set()
    for sample in samples(life, "test")[:6]:
        row, reply, evaluated = retrieved[sample.id], life.ask(sample, shelf), said[sample.id, 0]
        assert [r.id for r in reply.reports] == [r["id"] for r in row["reports"]]
        assert [r.similarity for r in reply.reports] == pytest.approx(
            [r["similarity"] for r in row["reports"]], abs=2e-6
        )
        assert [r.shown for r in reply.reports] == [i < row["kept"] for i in range(3)]
        assert reply.answer == evaluated["text"]
        assert dict(reply.choices) == pytest.approx(evaluated["choices"], abs=1e-5)
        sure = max(evaluated["choices"].values()) if evaluated["choices"] else evaluated["logp"]
        assert reply.logp == pytest.approx(sure, abs=1e-5)
        kept.add(row["kept"])
    assert len(kept) > 1


def test_without_a_shelf_nothing_is_retrieved(life: Life, shelf: Shelf) -> None:
    said, moved = life.said("unaided"), 0
    for sample in samples(life, "test")[:4]:
        reply = life.ask(sample, None)
        assert (reply.reports, reply.index) == ((), "")
        assert reply.answer == said[sample.id, 0]["text"]
        assert dict(reply.choices) == pytest.approx(said[sample.id, 0]["choices"], abs=1e-5)
        moved += reply.logp != life.ask(sample, shelf).logp
    assert moved == 4


def test_nothing_is_written(life: Life) -> None:
    def files() -> dict[str, tuple[int, int]]:
        found = [p for p in life.home.rglob("*") if p.is_file()]
        return {str(p): (p.stat().st_mtime_ns, p.stat().st_size) for p in found}

    before = files()
    for sample in samples(life, "test")[-2:]:
        life.ask(sample, Shelf.open(life.home / "both"))
    assert files() == before


def test_a_picture_never_finds_its_own_report(life: Life) -> None:
    train = samples(life, "train")
    of_picture = {s.id: s.images[0].sha256 for s in train}
    count = len(set(of_picture.values()))  # each picture has one report
    shelf = Shelf.open(life.home / "reports", k=count)
    assert (shelf.choose.rule, shelf.template.name) == ("top", "plain")
    for sample in train[:3]:
        reply = life.ask(sample, shelf)
        assert len(reply.reports) == count - 1
        assert all(r.shown for r in reply.reports)
        assert sample.images[0].sha256 not in {of_picture[r.id] for r in reply.reports}


def test_what_the_model_reads(life: Life, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[Message, ...]] = []
    real = consultation.items

    def spy(*given: Any) -> Any:
        read.append(given[-1](given[0][0]).messages)
        return real(*given)

    monkeypatch.setattr(consultation, "items", spy)
    sample = samples(life, "test")[0]
    reply = life.ask(sample, shelf)
    listed = " ".join(f"{i}. {r.text}" for i, r in enumerate([r for r in reply.reports if r.shown], start=1))
    assert read[-1][0].parts == (0, f"Reports of similar images: {listed}\n{sample.messages[0].text}")
    worded = Shelf.open(life.home / "reports", k=2, prompt="mmed_rag")
    life.ask(sample, worded)
    assert read[-1][0].text.startswith(
        "You are provided with a chest X-ray image, a image-related question and 2 "
    )
    assert "choose from the following two options: [yes, no]" in read[-1][0].text
    consult(life.bundle, [life.place(sample)], "What is shown?", worded, generate=SHORT)
    assert "two options" not in read[-1][0].text


def test_kinds_of_questions(life: Life, tmp_path: Path) -> None:
    place = life.place(samples(life, "test")[0])
    wide = tmp_path / "wide.png"
    Image.fromarray(models_encoders.pictures(3)[2]).save(wide)
    opened = consult(life.bundle, [place], "Is there a nodule?", generate=SHORT)
    closed = consult(life.bundle, [place], "Is there a nodule?", kind="closed", generate=SHORT)
    two = consult(life.bundle, [place, wide], "Is there a nodule?", kind="closed", generate=SHORT)
    assert opened.choices == {}
    assert opened.logp is not None
    assert opened.logp < 0
    assert set(closed.choices) == {"yes", "no"}
    assert closed.answer.lower() == max(closed.choices, key=lambda word: closed.choices[word])
    assert two.choices["yes"] != closed.choices["yes"]
    assert json.loads(json.dumps(closed.to_dict())) == {**closed.to_dict(), "reports": []}


def test_a_link_is_followed(life: Life, shelf: Shelf, tmp_path: Path) -> None:
    sample = samples(life, "test")[0]
    link = tmp_path / "link.png"
    link.symlink_to(life.place(sample))
    found = consult(life.bundle, [link], "Is it?", shelf, kind="closed", generate=SHORT)
    assert found == consult(life.bundle, [life.place(sample)], "Is it?", shelf, kind="closed", generate=SHORT)


def test_scans_of_three_and_four_axes_are_asked_about(language: Path, tmp_path: Path) -> None:
    bundle = models_umbrella.bundle(language)
    for name, times in (("t1.nii.gz", 0), ("fmri.nii", 6)):
        models_umbrella.head(tmp_path, name, Brain(side="left", sex="male"), times=times)
    said = [
        consult(bundle, [tmp_path / name], "Is the bright spot on the left?", kind="closed", generate=SHORT)
        for name in ("t1.nii.gz", "fmri.nii")
    ]
    assert [set(reply.choices) for reply in said] == [{"yes", "no"}] * 2
    assert said[0].choices["yes"] != said[1].choices["yes"]


def test_a_calibrated_stage_shows_as_many_as_it_found_out(life: Life) -> None:
    shelf = Shelf.open(life.home / "held")
    k = runs.read_json(life.home / "held" / "calibration.json")["k"]
    assert (shelf.choose.rule, shelf.choose.k) == ("top", k)
    assert Shelf.open(life.home / "held", k=2).choose.k == 2


def test_the_picture_decides_among_several_indexes(life: Life) -> None:
    shelf = Shelf.open(life.home / "both")
    assert shelf.library.router is not None
    assert shelf.library.router.names == ("other", "own")
    retrieved = {row["id"]: row for row in life.lines("both/retrieved.jsonl")}
    for sample in samples(life, "test")[:3]:
        reply, row = life.ask(sample, shelf), retrieved[sample.id]
        assert (reply.index, [r.id for r in reply.reports]) == (
            row["index"],
            [r["id"] for r in row["reports"]],
        )


@pytest.mark.parametrize(
    ("ask", "kind", "what"),
    [
        (lambda life: consult(life.bundle, [], "Is it?"), DataError, "nothing can be asked so"),
        (lambda life: consult(life.bundle, [life.home / "x.png"], " "), DataError, "nothing can be asked so"),
        (
            lambda life: consult(life.bundle, [life.home / "x.png"], "?", kind="choice"), DataError,
            "nothing can be asked so",
        ),
        (lambda life: consult(life.bundle, [life.home / "x.png"], "Is it?"), ImageError, "there is no such image"),
        (
            lambda life: consult(life.bundle, [life.home / "found" / "dataset.json"], "Is it?"), ImageError,
            "this kind of image is not read",
        ),
        (lambda life: Shelf.open(life.home / "taught"), RunError, "no reports can be found in this folder"),
        (lambda life: Shelf.open(life.home), RunError, "no reports can be found in this folder"),
        (lambda life: Shelf.open(life.home / "found", prompt="rag"), RecipeError, "no wording 'rag'"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked(
    life: Life, ask: Callable[[Life], Any], kind: type[SightlineError], what: str
) -> None:
    with pytest.raises(kind) as caught:
        ask(life)
    assert caught.value.what == what


def test_an_index_that_was_made_anew_is_refused(life: Life, tmp_path: Path) -> None:
    home = tmp_path / "asked"
    shutil.copytree(life.home, home)
    about = runs.read_json(home / "reports" / "manifest.json")
    runs.write_json(home / "reports" / "manifest.json", {**about, "content": "0" * 64})
    with pytest.raises(RunError, match="an index was made anew") as caught:
        Shelf.open(home / "found")
    assert caught.value.where == str(home / "reports")


def test_from_the_command_line(life: Life) -> None:
    sample = samples(life, "test")[0]
    words = ["ask", str(life.home / "taught"), "--image", str(life.place(sample)), "--max-new-tokens", "6"]
    asked = [
        *words,
        "--index",
        str(life.home / "found"),
        "--question",
        sample.messages[0].text,
        "--kind",
        "closed",
    ]
    done = CliRunner().invoke(cli.app, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    told, evaluated = json.loads(done.stdout), life.said("clean")[sample.id, 0]
    assert told["answer"] == evaluated["text"]
    assert told["choices"] == pytest.approx(evaluated["choices"], abs=1e-5)
    assert told["notice"] == NOTICE
    assert told["model"] == checkpoint.fingerprint(life.home / "taught" / "model")
    assert [set(r) for r in told["reports"]] == [{"id", "similarity", "text", "behind", "shown"}] * 3

    shown = CliRunner().invoke(cli.app, asked).stdout.splitlines()
    used = sum(r["shown"] for r in told["reports"])
    assert shown[:2] == [
        told["answer"],
        f"log p: yes {told['choices']['yes']:.3f}, no {told['choices']['no']:.3f}",
    ]
    assert shown[3] == f"similar reports, {used} of 3 in the prompt (*):"
    assert shown[4].split()[:3] == ["*", f"{told['reports'][0]['similarity']:.3f}", told["reports"][0]["id"]]
    assert shown[-1] == NOTICE

    bare = CliRunner().invoke(cli.app, [*words, "--question", "What is it?"]).stdout
    assert "mean log p of its words: -" in bare
    assert "similar reports" not in bare
    refused = CliRunner().invoke(cli.app, [*words, "--question", "What is it?", "-k", "2"])
    assert isinstance(refused.exception, RecipeError)
    assert CliRunner().invoke(cli.app, words).exit_code == 2


def test_a_server_finds_the_same_reports_and_writes_the_same_prompt(life: Life) -> None:
    own = find(life.home / "taught")
    beside = open_beside(own, index=life.home / "found", before=None, how=How(), slots=1)
    assert beside.template == Template(name="plain")
    backend = Local(life.bundle, Identity(name="asked/taught"), 1)
    real, read = backend.prompt, list[Prompt]()
    backend.prompt = lambda question: read.append(real(question)) or read[-1]  # type: ignore[method-assign, func-returns-value]
    retrieved = {row["id"]: row for row in life.lines("found/retrieved.jsonl")}
    read_by = aided(prepare.load(life.home / "found"))
    told = {s.id: s for s in prepare.load(life.home / "found").samples("test")}
    with running(backend, beside=beside) as made, made.client() as client:
        for sample in samples(life, "test")[:3]:
            image = url(life.place(sample).read_bytes())
            asked = question(sample.messages[0].text, image, model="asked/taught", max_tokens=1)
            found = client.post(CHAT, json=asked).json()["sightline"]["reports"]
            row = retrieved[sample.id]
            assert [r["id"] for r in found] == [r["id"] for r in row["reports"]]
            assert [r["similarity"] for r in found] == pytest.approx(
                [r["similarity"] for r in row["reports"]], abs=2e-6
            )
            assert [r["in_prompt"] for r in found] == [i < row["kept"] for i in range(3)]
            words = replace(told[sample.id], messages=told[sample.id].messages[:2])
            right = backend.chat.encode(read_by(words).messages[:1], [()], prompt=True).ids
            assert read[-1].ids == right


def test_a_server_s_models_and_what_they_were_taught_to_read(life: Life, tmp_path: Path) -> None:
    own = find(life.home / "taught")
    beside = open_beside(own, index=None, before=life.home / "taught", how=How(), slots=2)
    assert beside.before is not None
    assert (beside.before.name, beside.before.template) == ("asked/taught", Template(name="plain"))
    assert (beside.finder, beside.before.held) == (None, None)
    with pytest.raises(RecipeError, match="both models have one name"):
        beside.models(Local(life.bundle, beside.before.backend.identity, 1), None)
    home = tmp_path / "asked"
    for name in ("taught", "found", "data"):
        shutil.copytree(life.home / name, home / name)
    about = runs.read_json(home / "taught" / "manifest.json")
    assert wording(home / "taught" / "model") == Template(name="plain")
    about["section"]["reports"] = 0.0
    runs.write_json(home / "taught" / "manifest.json", about)
    assert wording(home / "taught") is None  # taught on the same data, and never with reports
    about["section"]["reports"] = 0.5
    runs.write_json(home / "taught" / "manifest.json", about)
    shutil.rmtree(home / "found")
    assert wording(home / "taught") is None  # nobody knows any more
