"""The whole life of `recipes/mmed_rag_phantom.yaml` with tiny parts: what each stage hands to the next."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import models
import models_encoders
import small
from sightline import recipe, runs, stages
from sightline.cli.data import painted, text_of
from sightline.cli.listing import shown
from sightline.cli.plan import needs, plan
from sightline.data import prepare
from sightline.data.line import Row
from sightline.errors import RunError
from sightline.stages import sft
from sightline.types import Degrade, Preference

SHIPPED = Path(__file__).parents[2] / "recipes" / "mmed_rag_phantom.yaml"
SECOND = ("cross_modality", "over_reliance", "under_use")
FULL = {"full": {"lr": 1e-2}}
LORA = {"language": {"lora": {"r": 2, "alpha": 4, "lr": 1e-2}}}
SHORT = {"max_new_tokens": 6, "batch": 32}
FRONT = "Reports of similar images: 1. "


def document(language: Path, encoder: Path) -> dict[str, Any]:
    """The shipped recipe with tiny parts, few patients and few steps; whatever else it says stays."""
    made: dict[str, Any] = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    part = {k: v for k, v in models.section(language).items() if k != "path"}
    split = {"train": 0.4, "valid": 0.4, "test": 0.2}
    align = {"max_tokens": 2048, "trainable": LORA, "train": {"steps": 2, "batch": 2}}
    change: dict[str, dict[str, Any]] = {
        "data": {"patients": 16, "size": 64, "split": split},
        "encoder": {
            "model": {"encoder": "clip", "path": str(encoder)},
            "loss": {"name": "clip"},
            "trainable": {"vision": "frozen", "text": FULL, "heads": FULL},
            "validate_every": 10,
            "train": {"steps": 20, "batch": 8, "warmup": 1},
        },
        "taught": {
            "reports": 0.5,  # the recipe shows none; that a share is shown is looked at here
            "model": part,
            "max_tokens": 2048,
            "trainable": {"connector": {"full": {"lr": 5e-2}}, **LORA},  # so much that the image counts
            "train": {"steps": 20, "batch": 4},
        },
        # All of each kind, for so small a model errs seldom.
        "pairs": {"even": False, "generate": SHORT, "kinds": dict.fromkeys(("noised", *SECOND), 1)},
        "aligned_image": align,
        "aligned": align,
        "evaluate": {"generate": SHORT, "resamples": 100},
    }
    for name, more in change.items():
        made["stages"][name].update(more)
    return {**made, "name": "life", "seed": 3}


@dataclass(frozen=True)
class Life:
    """A finished run: its recipe as a mapping, the folder of runs, of stages, and the rows that `taught` learned."""

    document: dict[str, Any]
    root: Path
    folders: dict[str, Path]
    learned: Sequence[Row]

    def execute(self, root: Path, change: Callable[[dict[str, Any]], Any] | None = None) -> list[str]:
        """Run the recipe below another folder, changed; returns what was said."""
        own, said = json.loads(json.dumps(self.document)), list[str]()
        if change is not None:
            change(own["stages"])
        stages.execute(recipe.check(own, "test"), root, say=said.append)
        return said

    def copy(self, root: Path) -> Path:
        """The same runs in another folder."""
        shutil.copytree(self.root, root)
        return root

    def told(self, stage: str, name: str) -> Any:
        return json.loads((self.folders[stage] / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory, language: Path) -> Life:
    encoder = models_encoders.write_clip(tmp_path_factory.mktemp("parts") / "encoder")
    own, root, learned = document(language, encoder), tmp_path_factory.mktemp("runs"), list[Row]()
    real = sft.encode_samples

    def spy(*given: Any) -> Any:
        rows, aside = real(*given)
        learned.extend(rows)
        return rows, aside

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft, "encode_samples", spy)
        folders = stages.execute(recipe.check(own, "test"), root, say=lambda line: None)
    return Life(own, root, folders, learned)


def retrieved(life: Life) -> list[dict[str, Any]]:
    text = (life.folders["retrieved"] / "retrieved.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def pairs(life: Life) -> Sequence[Preference]:
    return list(prepare.load(life.folders["pairs"]).preferences("train"))


def test_nobody_is_shown_a_report_of_their_own_or_of_the_test_split(life: Life) -> None:
    data = prepare.load(life.folders["retrieved"])
    split_of = {s.patient: split for split in data.counts for s in data.samples(split)}
    rows = retrieved(life)
    assert Counter(row["split"] for row in rows) == data.counts
    assert all(len(row["reports"]) == 2 for row in rows)
    assert {row["kept"] for row in rows if row["split"] == "train"} == {1, 2}
    assert all(row["patient"] not in {r["patient"] for r in row["reports"]} for row in rows)
    assert {split_of[r["patient"]] for row in rows for r in row["reports"]} == {"train"}
    assert life.told("retrieved", "audit.json")["index and test"]["leaks"] is False


def test_half_of_what_was_learned_shows_its_reports(life: Life) -> None:
    data = prepare.load(life.folders["retrieved"])
    samples = {s.id: s for s in data.samples("train")}
    tokenizer = models.bytes_tokenizer()
    texts = {row.id: tokenizer.decode(row.encoded.ids) for row in life.learned}
    assert set(texts) == set(samples)
    helped = {name for name, text in texts.items() if FRONT in text}
    assert 0 < len(helped) < len(samples)
    assert helped == {name for name in samples if sft.part(name, 3) < 0.5}
    for name, text in texts.items():
        first = samples[name].messages[0].text
        listed = " ".join(f"{i}. {t}" for i, t in enumerate(samples[name].references, start=1))
        shown_ = f"Reports of similar images: {listed}\n" if name in helped else ""
        assert f"{shown_}{first}<|im_end|>" in text
        assert samples[name].references


def test_pairs_come_from_valid_patients_and_hold_reports_where_their_kind_has_them(life: Life) -> None:
    data, found = prepare.load(life.folders["retrieved"]), pairs(life)
    samples = {s.id: s for s in data.samples("valid")}
    kinds = Counter(pair.why for pair in found)
    assert set(kinds) == {"noised", *SECOND}
    assert kinds["cross_modality"] <= (kinds["over_reliance"] + kinds["under_use"]) / 2
    assert life.told("pairs", "dataset.json")["kinds"] == kinds
    for pair in found:
        sample = samples[pair.id.partition("/")[0]]
        assert pair.patient == sample.patient
        assert pair.prompt[0].text.startswith(f"{FRONT}{sample.references[0]}") == (pair.why in SECOND)
        spoiled = Degrade(kind="replace", strength=1.0, seed=3)
        assert pair.rejected_images == (spoiled if pair.why in ("noised", "cross_modality") else None)
    assert len(json.loads((life.folders["pairs"] / "mmed_rag.json").read_text("utf-8"))) == len(found)
    (leak,) = life.told("pairs", "audit.json").values()
    assert leak["leaks"] is False


def test_each_alignment_learns_its_kinds(life: Life) -> None:
    kinds = Counter(pair.why for pair in pairs(life))
    rows = {
        name: small.events(life.folders[name], "training")[0]["rows"] for name in ("aligned_image", "aligned")
    }
    assert rows == {"aligned_image": kinds["noised"], "aligned": sum(kinds[k] for k in SECOND)}
    for name in rows:
        first, second = small.curve(life.folders[name])
        assert first["loss"] == pytest.approx(0.6931, abs=1e-3)  # log 2: it begins as its parent
        assert second["loss"] != first["loss"]


def test_scores_say_what_reports_do(life: Life) -> None:
    scores = life.told("evaluate", "scores.json")
    values = {(r["model"], r["image"], r["metric"]): r["value"] for r in scores["rows"]}
    paired = {(r["question"], r["metric"]): r for r in scores["paired"]}
    for model in ("taught", "aligned"):
        for rate in ("over_reliance", "harm", "help", "copy_reference"):
            assert 0 <= values[model, "clean", rate] <= 1
        sides = [values[model, image, "accuracy"] for image in ("clean", "unaided")]
        row = paired[f"{model}: clean minus unaided", "accuracy"]
        assert [row["a"], row["b"]] == sides
        assert row["difference"] == pytest.approx(sides[0] - sides[1])
        assert row["low"] <= row["difference"] <= row["high"]
        assert {image for m, image, _ in values if m == model} == {"clean", "unaided", "noise", "black"}
    assert ("aligned minus taught", "over_reliance") in paired
    folder = life.folders["evaluate"] / "predictions"
    said = {
        image: [
            json.loads(line)["choices"]
            for line in (folder / f"taught-{image}.jsonl").read_text("utf-8").splitlines()
        ]
        for image in ("clean", "unaided")
    }
    assert said["clean"] != said["unaided"]


def test_the_page_shows_reliance_and_every_audit(life: Life) -> None:
    page = (life.folders["evaluate"] / "report.html").read_text(encoding="utf-8")
    assert "With and without retrieved reports" in page
    for words in ("Over-reliance", "own", "index and test", "pairs and test", "Are the right reports found?"):
        assert words in page
    assert page.count('class="map"') == 1
    assert "encoder, valid split" in page
    for name in life.folders:
        assert name == "evaluate" or f">{name}<" in page


def test_a_second_run_makes_nothing(life: Life) -> None:
    before = {name: runs.content(folder) for name, folder in life.folders.items()}
    assert life.execute(life.root) == [f"{name}: up to date" for name in life.folders]
    assert {name: runs.content(folder) for name, folder in life.folders.items()} == before


def test_another_k_retrieves_again_and_neither_tunes_nor_indexes(life: Life, tmp_path: Path) -> None:
    root = life.copy(tmp_path / "runs")
    before = {name: runs.content(root / "life" / name) for name in life.folders}

    def change(own: dict[str, Any]) -> None:
        own["retrieved"]["choose"].update(k=3)
        # Whether three reports mislead so small a model hangs on how a machine rounds.
        del own["aligned_image"], own["aligned"]
        own["evaluate"]["models"] = ["taught"]

    said = life.execute(root, change)
    kept, behind = ["data", "encoder", "index"], ["retrieved", "taught", "pairs", "evaluate"]
    again = [f"{name}: {life.document['stages'][name]['stage']}" for name in behind]
    assert said == [*(f"{name}: up to date" for name in kept), *again]
    changed = {name for name in before if runs.content(root / "life" / name) != before[name]}
    assert changed == set(behind)


def test_an_alignment_without_pairs_says_what_is_missing(life: Life, tmp_path: Path) -> None:
    root = life.copy(tmp_path / "runs")
    with pytest.raises(RunError) as caught:
        life.execute(root, lambda own: own["aligned"].update(where={"kind": ["judged", "degraded"]}))
    error, kinds = caught.value, Counter(pair.why for pair in pairs(life))
    assert error.what == "there is no pair to align with"
    assert error.where == "stage aligned"
    assert error.found == ", ".join(f"{count} {kind} pairs" for kind, count in kinds.items())
    assert error.expected == "at least one pair with kind: judged or degraded"
    assert "stage 'pairs'" in error.remedy


def test_every_result_can_be_looked_at(life: Life) -> None:
    def look(stage: str) -> str:
        return shown(life.folders[stage], as_json=False, paired=False)

    assert look("index").splitlines()[4].startswith("holds    8 reports, 8 different ones in 8 groups; exact")
    table = look("retrieved")
    assert "holds    samples: " in table
    assert "train 16" in table
    assert "prompt   reports in the words of 'plain'" in table
    kept = [row["kept"] for row in retrieved(life) if row["split"] == "valid"]
    assert f"shown    valid: {sum(kept) / len(kept):.2f} reports on average\n" in table
    assert f"noised {sum(pair.why == 'noised' for pair in pairs(life))}, cross_modality" in look("pairs")
    assert look("encoder").splitlines()[0].split()[-1] == "chance"
    assert "warning" not in "".join(map(look, life.folders))
    with pytest.raises(RunError, match="this stage compares nothing"):
        shown(life.folders["encoder"], as_json=False, paired=True)
    checked = recipe.check(life.document, "test")
    assert {step.state for step in plan(checked, life.root)} == {"up to date"}
    assert "(taught: 139 M weights" in needs(recipe.load(SHIPPED), life.root)[0]


def test_a_retrieved_sample_is_shown_with_its_reports(life: Life) -> None:
    data = prepare.load(life.folders["retrieved"])
    sample = data.samples("train")[0]
    assert f"\n  reference 1: {sample.references[0]}\n" in text_of(sample)
    bare = painted(sample, str(life.folders["taught"]), data)
    for mark in ("\x1b[2m", "\x1b[0m", "\x1b[1;32m", "\x1b[44m"):
        bare = bare.replace(mark, "")
    assert f"{FRONT}{sample.references[0]}" in bare
    plain = painted(sample, str(life.folders["taught"]), prepare.load(life.folders["data"]))
    assert "R\x1b" not in plain
