"""prefer, evaluate and sft on data with retrieved reports: four answer sets, a judge, a killed run, `unaided`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import models
import small
from sightline import recipe, runs, stages
from sightline.data import prepare, reliance
from sightline.data.prepare import Prepared
from sightline.data.readers.llava_json import llava_json
from sightline.data.source import Source
from sightline.errors import RunError
from sightline.inference import Ledger, Manner
from sightline.metrics.answers import yes_no
from sightline.models import checkpoint
from sightline.models.chance import Chance
from sightline.settings import Generate
from sightline.stages import answers, sft
from sightline.types import Prediction, Preference

PLAIN = {"name": "plain", "role": "radiologist", "image": "X-ray"}
KINDS = {"noised": 1, "cross_modality": 1, "over_reliance": 1, "under_use": 1}
TOLD = ("Effusion.", "No effusion.", "Nodule and line.")
Run = Callable[..., dict[str, Path]]


def write_raw(root: Path) -> None:
    """Twelve patients in MMed-RAG's retrieval output: two questions and a report each."""
    lines: list[dict[str, Any]] = []
    for i in range(12):
        models.picture(root, f"{i}.png", seed=i)
        common = {
            "image": f"{i}.png",
            "subject_id": f"p{i}",
            "reference_reports": [TOLD[i % 3]],
            "retrieve_k": 1,
        }
        for j, word in enumerate(("line", "tube")):
            answer = ("Yes", "No")[(i + j) % 2]
            lines.append(
                {
                    "question_id": f"q{i}-{j}",
                    "question": f"Is there a {word}?\n<image>",
                    "answer": answer,
                    **common,
                }
            )
        lines.append({"id": f"r{i}", "report": TOLD[(i + 1) % 3], **common})
    (root / "asked.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")


def document(language: Path, raw: Path, **stages_: dict[str, Any]) -> dict[str, Any]:
    taught = {
        **small.document(language)["stages"]["taught"],
        "trainable": {"connector": {"full": {"lr": 1e-2}}},
        "train": {"steps": 1, "batch": 2},
    }
    split = {"train": 0.6, "valid": 0, "test": 0.4}
    data = {"stage": "prepare", "reader": "mmed_rag", "root": str(raw), "split": split}
    return {"name": "tiny", "seed": 3, "stages": {"data": data, "taught": taught, **stages_}}


def pairs(**more: Any) -> dict[str, Any]:
    judge = {"metric": "rouge_l"}
    generate = {"max_new_tokens": 6, "batch": 8}
    return {
        "stage": "prefer",
        "data": "data",
        "model": "taught",
        "kinds": KINDS,
        "judge": judge,
        "generate": generate,
        **more,
    }


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    write_raw(root)
    return root


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def retrieved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every prepared data set says that its references were retrieved, as one of a `retrieve` stage does."""
    real = prepare.load

    def load(folder: Path) -> Prepared:
        found = real(folder)
        return replace(found, template=PLAIN) if found.kind == "samples" else found

    monkeypatch.setattr(prepare, "load", load)


@pytest.fixture
def make(language: Path, raw: Path, root: Path) -> Run:
    def run(where: Path = root, **stages_: dict[str, Any]) -> dict[str, Path]:
        checked = recipe.check(document(language, raw, **stages_), "test")
        return stages.execute(checked, where, say=lambda line: None)

    return run


def by_kind(folder: Path) -> dict[str, list[Preference]]:
    found: dict[str, list[Preference]] = {kind: [] for kind in KINDS}
    for pair in prepare.load(folder).preferences("train"):
        found.setdefault(pair.why, []).append(pair)
    return found


@pytest.mark.usefixtures("retrieved")
def test_four_answer_sets_become_the_kinds_of_mmed_rag(
    make: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[reliance.Study] = []
    build = reliance.build
    monkeypatch.setattr(reliance, "build", lambda study, shares: seen.append(study) or build(study, shares))
    led: list[Any] = []
    real = answers.ask
    monkeypatch.setattr(answers, "ask", lambda *given: led.append(given[-1]) or real(*given))
    folder = make(pairs=pairs())["pairs"]
    made, (study,) = by_kind(folder), seen
    assert led == [Manner(right=True)] * 4  # every turn after right answers, as it stands in its pair
    said = study.said
    assert set(said) == set(reliance.SETS)
    closed = [s for s in study.samples if s.messages[1].topic != "report"]
    right = {
        name: {s.id: yes_no(texts[s.id, 0]) == s.messages[1].text.lower() for s in closed}
        for name, texts in said.items()
    }
    assert any(right["aided"][s.id] != right["unaided"][s.id] for s in closed)  # reports do change answers
    expected = {
        "noised": {i for i, ok in right["unaided"].items() if ok and not right["unaided_degraded"][i]},
        "over_reliance": {i for i, ok in right["unaided"].items() if ok and not right["aided"][i]},
        "under_use": {i for i, ok in right["aided"].items() if ok and not right["unaided"][i]},
    }
    for kind, ids in expected.items():
        assert {p.id.partition("/")[0] for p in made[kind] if p.id.startswith("q")} == ids
    assert len(made["cross_modality"]) <= (len(made["over_reliance"]) + len(made["under_use"])) // 2
    samples = {s.id: s for s in study.samples}
    for kind, each in made.items():
        for pair in each:
            sample = samples[pair.id.partition("/")[0]]
            shown = f"Reports of similar images: 1. {sample.references[0]}\n" if kind != "noised" else ""
            assert pair.prompt[0].text == shown + sample.messages[0].text
            assert (pair.rejected_images is not None) == (kind in ("noised", "cross_modality"))
            if sample.messages[1].topic == "report":
                assert pair.chosen == sample.messages[1].text
    about = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
    assert about["kinds"] == {kind: len(each) for kind, each in made.items()}
    assert about["turns"]["noised"]["turns"] == len(study.samples)
    (turns,) = small.events(folder, "turns")
    assert turns["noised"] == about["turns"]["noised"]
    assert {e["image"]: e["samples"] for e in small.events(folder, "answered")} == dict.fromkeys(
        reliance.SETS, len(study.samples)
    )


@pytest.mark.usefixtures("retrieved")
def test_the_original_json_reads_back(make: Run) -> None:
    folder = make(pairs=pairs())["pairs"]
    source = Source(root=folder, seed=0, images=folder)
    found = [record for record, _, _ in llava_json(source, file="mmed_rag.json")]
    made = list(prepare.load(folder).preferences("train"))
    assert source.rejected == []
    assert len(found) == len(made) > 5
    for read, pair in zip(found, made, strict=True):
        assert isinstance(read, Preference)
        assert (read.id, read.chosen, read.rejected) == (pair.id, pair.chosen, pair.rejected)
        assert [m.parts for m in read.prompt] == [m.parts for m in pair.prompt]
        assert (read.rejected_images is None) == (pair.rejected_images is None)
    rows = json.loads((folder / "mmed_rag.json").read_text(encoding="utf-8"))
    fields = ["id", "image", "conversations", "rejected_conversations", "rejected_noised"]
    assert all(list(row) == fields for row in rows)


@pytest.mark.usefixtures("retrieved")
def test_pairs_and_test_share_no_patient(make: Run) -> None:
    folder = make(pairs=pairs())["pairs"]
    audit = json.loads((folder / "audit.json").read_text(encoding="utf-8"))["pairs and test"]
    (overlap,) = audit["overlaps"]
    assert (overlap["patients"], overlap["images"], overlap["records"]) == (0, 0, 0)
    assert audit["splits"]["pairs"]["patients"] > 0
    assert audit["splits"]["test"]["patients"] > 0


@pytest.mark.usefixtures("retrieved")
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    make: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = make(pairs=pairs())["pairs"]
    add, added = Ledger.add, []

    def dying(self: Ledger, sample: str, made: list[Prediction]) -> None:
        if len(added) == 30:
            raise KeyboardInterrupt
        added.append(sample)
        add(self, sample, made)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "add", dying)
        with pytest.raises(KeyboardInterrupt):
            make(where=tmp_path, pairs=pairs())
    asked: list[str] = []
    monkeypatch.setattr(
        Ledger, "add", lambda self, sample, made: asked.append(sample) or add(self, sample, made)
    )
    again = make(where=tmp_path, pairs=pairs())["pairs"]
    study = len(prepare.load(tmp_path / "tiny" / "data").samples("train"))
    assert len(added) + len(asked) == 4 * study
    for name in ("train.parquet", "mmed_rag.json", "dataset.json", "audit.json"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.usefixtures("retrieved")
def test_another_threshold_needs_no_model(make: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    make(pairs=pairs())

    def refuse(*_: Any) -> None:
        raise AssertionError("a model was opened")

    monkeypatch.setattr(checkpoint, "load", refuse)
    folder = make(other=pairs(judge={"metric": "bleu", "threshold": 0.5}))["other"]
    assert runs.read_json(folder / "dataset.json")["counts"]["train"] > 0


@pytest.mark.usefixtures("retrieved")
def test_a_judge_chooses_among_drawn_answers(make: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Chance, "pick", _short(Chance.pick))
    section = pairs(kinds={"judged": 1}, judge={"model": "taught", "candidates": 3})
    folder = make(judged=section)["judged"]
    made = by_kind(folder)["judged"]
    turns = runs.read_json(folder / "dataset.json")["turns"]["judged"]
    assert len(made) == turns["made"] > 0
    assert sum(n for what, n in turns.items() if what != "turns") == turns["turns"]
    assert {p.id[0] for p in made} == {"r"}  # yes/no questions are left to the other kinds
    for pair in made:
        assert pair.chosen != pair.rejected
        assert pair.rejected_images is None
        assert pair.prompt[0].text.startswith("Reports of similar images: 1. ")
    names = [e["image"] for e in small.events(folder, "answered")]
    assert names == ["aided, attempt 1", "aided, attempt 2", "aided, attempt 3", "judged"]
    assert (folder / "train.parquet").read_bytes() == (
        make(twin=section)["twin"] / "train.parquet"
    ).read_bytes()


def _short(pick: Callable[..., int]) -> Callable[..., int]:
    """Draws among letters, so that an untaught model writes words."""
    return lambda self, words, logits: pick(self, words, logits[69:95]) + 69


def evaluation(**more: Any) -> dict[str, Any]:
    return {
        "stage": "evaluate", "data": "data", "models": ["taught"], "images": ["clean", "unaided", "noise"],
        "generate": {"max_new_tokens": 6, "batch": 8}, "resamples": 100, **more,
    }  # fmt: skip


@pytest.mark.usefixtures("retrieved")
def test_evaluate_asks_with_and_without_reports(make: Run) -> None:
    folder = make(evaluate=evaluation())["evaluate"]
    scores = runs.read_json(folder / "scores.json")
    values = {(r["image"], r["metric"]): r["value"] for r in scores["rows"]}
    assert {("clean", "accuracy"), ("unaided", "accuracy"), ("noise", "accuracy")} <= set(values)
    said = {
        image: [
            json.loads(line)
            for line in (folder / "predictions" / f"taught-{image}.jsonl").read_text().splitlines()
        ]
        for image in ("clean", "unaided")
    }
    shut = [[p for p in each if p["topic"] != "report"] for each in said.values()]
    good = [[yes_no(p["text"]) == p["answer"].lower() for p in each] for each in shut]
    lost = sum(before and not after for after, before in zip(*good, strict=True))
    errors = good[0].count(False)
    assert values["clean", "over_reliance"] == pytest.approx(lost / errors)
    assert {p["question"] for p in said["clean"] if p["topic"] != "report"} == {
        "Is there a line?",
        "Is there a tube?",
    }
    assert [p["choices"] for p in shut[0]] != [p["choices"] for p in shut[1]]
    asked = {(r["question"], r["metric"]) for r in scores["paired"]}
    assert ("taught: clean minus unaided", "accuracy") in asked
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "With and without retrieved reports" in page


def test_unaided_needs_retrieved_reports(make: Run) -> None:
    with pytest.raises(RunError) as caught:
        make(alone=evaluation())
    assert "'unaided' in `images` needs the reports" in caught.value.what
    assert caught.value.where == "stage alone"
    with pytest.raises(RunError, match="a kind that compares answers with and without reports"):
        make(second=pairs(kinds={"over_reliance": 1}))


def test_stage_one_needs_no_reports(make: Run) -> None:
    made = by_kind(make(first=pairs(kinds={"noised": 1}))["first"])["noised"]
    assert made
    assert not any("Reports of similar images" in p.prompt[0].text for p in made)


@pytest.fixture
def shown(root: Path, make: Run, retrieved: None) -> Prepared:
    make()
    return prepare.load(root / "tiny" / "data")


def test_sft_shows_reports_to_the_share_that_was_asked_for(shown: Prepared) -> None:
    samples = list(shown.samples("train"))

    def helped(share: float, seed: int = 0) -> set[str]:
        read = sft.read(shown, samples, share, seed)
        assert [s.id for s in read] == [s.id for s in samples]
        return {s.id for s in read if s.messages[0].text.startswith("Reports of similar images: 1. ")}

    assert helped(1.0) == {s.id for s in samples}
    assert helped(0.0) == set()
    half = helped(0.5)
    assert 0 < len(half) < len(samples)
    assert half < helped(0.8)
    assert half != helped(0.5, seed=1)


def test_sft_trains_on_what_it_reads(make: Run, monkeypatch: pytest.MonkeyPatch, retrieved: None) -> None:
    seen: list[str] = []
    encode = sft.encode_samples

    def spy(samples: Any, *rest: Any) -> Any:
        seen.extend(s.messages[0].text for s in samples)
        return encode(samples, *rest)

    monkeypatch.setattr(sft, "encode_samples", spy)
    own = small.document(Path())["stages"]["taught"]
    language = {"trainable": {"connector": {"full": {"lr": 1e-2}}}, "train": {"steps": 1, "batch": 2}}
    stage = {**own, **language, "model": "taught", "reports": 0.5}
    make(third=stage)
    count = sum(text.startswith("Reports") for text in seen)
    assert 0 < count < len(seen)


def test_answers_keep_their_name(tmp_path: Path) -> None:
    """Answers of earlier runs are found again: model, images, seed, settings, version, then the samples as read."""
    sample = models.sample("s", [("Is it?", "Yes")], [models.PICTURES[0]])
    desk = answers.Desk(root=tmp_path, home=tmp_path, generate=Generate(max_new_tokens=6))
    turns = [["user", [0, "Is it?"], ""], ["assistant", ["Yes"], "topic0"]]
    settings = {"max_new_tokens": 6, "batch": 64, "precision": "float32"}
    words = [{"line": ["a"]}, settings, ["s", "patient-s", ["picture 0"], turns]]
    model, shown, asked = (runs.canonical(word) for word in words)
    name = answers.key_of(desk, words[0], [sample], lambda s: s, shown="clean", seed=3)
    assert name == runs.digest(model, "clean", "3", shown, "1", asked)
    other = answers.key_of(
        desk, words[0], [sample], lambda s: replace(s, messages=s.messages[:1]), shown="clean", seed=3
    )
    assert other != name
