"""Pages of a finished evaluation: written by the stage, made anew without it, and rated by blinded readers."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import small_report
from sightline import runs
from sightline.cli import app
from sightline.cli.ratings import rated, shown
from sightline.errors import DataError, RunError
from sightline.report.reader import COLUMNS
from sightline.stages.rebuild import open_page, rebuild

Choice = Callable[[Any], dict[str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_report.evaluation(tmp_path_factory.mktemp("runs"))


def test_the_same_pages_come_again(place: Path, tmp_path: Path) -> None:
    made = rebuild(place, tmp_path)
    assert [p.name for p in made] == ["report.html", "model_card.md", "reader.html"]
    for name in ("report.html", "model_card.md"):
        assert (tmp_path / name).read_bytes() == (place / name).read_bytes()
    assert runs.faults(place) == []
    assert "data:image/webp;base64" in (tmp_path / "reader.html").read_text(encoding="utf-8")
    card = (place / "model_card.md").read_text(encoding="utf-8")
    assert "- taught: sft on data. steps 2, batch 2, precision float32. connector full lr 0.001\n" in card
    assert "- Connector: mlp2x_gelu\n" in card


def test_the_page_holds_every_case_and_counts_all_answers(place: Path) -> None:
    page = open_page(place)
    assert page.cases == len(page.gallery) == 13
    assert page.changes == {"turns": 91, "fixed": 41, "broke": 5}
    for model in ("base", "taught"):
        topics = page.counts[model]
        assert sum(topics["nodule"].values()) == 13
        assert sum(topics["report:nodule"].values()) == 13
    assert page.about["external"] is False
    assert page.reading is not None
    assert page.reading.differ == len(page.reading.items)


def test_a_finished_evaluation_is_not_written_into(place: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not written into"):
        rebuild(place, place)
    with pytest.raises(RunError, match="no finished evaluation here"):
        rebuild(place.parent / "data", tmp_path)


def saved(path: Path, place: Path, name: str, choose: Choice, *, last: int | None = None) -> Path:
    """A file as the page saves it, of a reader who chooses by what an item is."""
    found = open_page(place).reading
    assert found is not None
    with path.open("w", encoding="utf-8", newline="") as stream:
        lines = csv.DictWriter(stream, COLUMNS, quoting=csv.QUOTE_ALL)
        stream.write(",".join(COLUMNS) + "\r\n")
        for number, item in enumerate(found.items[:last], 1):
            row = dict.fromkeys(COLUMNS, "") | choose(item)
            lines.writerow(
                row | {"set": found.name, "reader": name, "place": str(number), "sample": item.sample,
                       "turn": str(item.turn)}
            )  # fmt: skip
    return path


def after_better(item: Any) -> dict[str, str]:
    """Prefers the model after; finds it right and the other wrong."""
    side, other = ("a", "b") if item.after_first else ("b", "a")
    return {"better": side, f"correct_{side}": "yes", f"correct_{other}": "no", f"harmful_{other}": "yes"}


def always_a(item: Any) -> dict[str, str]:
    """Prefers what stands first, whatever it is."""
    return {"better": "a", "correct_a": "yes", "correct_b": "yes"}


def values(found: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {(row["reader"], row["question"]): row["value"] for row in found["rows"]}


def test_ratings_get_their_names_back(place: Path, tmp_path: Path) -> None:
    found = rated([saved(tmp_path / "r.csv", place, "kl", after_better)], place, resamples=100)
    assert (found["before"], found["after"]) == ("base", "taught")
    reading = open_page(place).reading
    assert reading is not None
    assert found["asked"] == len(reading.items) == 46
    rows = values(found)
    assert rows["kl", "after preferred"] == 1.0
    assert (rows["kl", "correct after"], rows["kl", "correct before"]) == (1.0, 0.0)
    assert rows["kl", "correct: after minus before"] == 1.0
    assert ("kl", "harmful after") not in rows, "both sides must be rated"
    assert found["agreement"] == []
    first = next(row for row in found["rows"] if row["question"] == "after preferred")
    assert first["p"] < 0.01
    assert first["n"] == 46


def test_who_prefers_a_place_prefers_no_model_and_two_readers_are_compared(
    place: Path, tmp_path: Path
) -> None:
    files = [
        saved(tmp_path / "one.csv", place, "", after_better),
        saved(tmp_path / "two.csv", place, "", always_a, last=20),
    ]
    reading = open_page(place).reading
    assert reading is not None
    heads = sum(i.after_first for i in reading.items[:20])
    found = rated(files, place, resamples=100)
    rows = values(found)
    assert rows["two", "after preferred"] == pytest.approx(heads / 20)
    assert rows["two", "correct: after minus before"] == 0.0
    together = (heads * 1.0 + (20 - heads) * 0.5 + 26) / 46
    assert rows["all readers", "after preferred"] == pytest.approx(together)
    better = next(row for row in found["agreement"] if row["question"] == "better")
    assert better["readers"] == ["one", "two"]
    assert (better["n"], better["same"]) == (20, heads / 20)
    assert better["kappa"] == 0.0, "one of the two said one word only, so they agree as chance would"
    text = shown(found)
    assert "before: base; after: taught; 46 questions were asked" in text
    assert "one and two" in text


def test_ties_count_half_and_unrated_questions_not_at_all(place: Path, tmp_path: Path) -> None:
    def choose(item: Any) -> dict[str, str]:
        return {"better": "tie"} if item.turn % 2 else {"comment": 'well, "so"'}

    found = rated([saved(tmp_path / "r.csv", place, "kl", choose)], place, resamples=100)
    reading = open_page(place).reading
    assert reading is not None
    assert values(found) == {("kl", "after preferred"): 0.5}
    assert found["rows"][0]["n"] == sum(i.turn % 2 for i in reading.items)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace('"kl","1"', '"kl","1","more"'), "cannot be read"),
        (lambda t: t.replace('"tie"', '"c"'), "cannot be read"),
        (lambda t: t.replace("better", "best"), "no file of ratings"),
        (lambda t: "", "no file of ratings"),
        (lambda t: t.replace(t.split('"')[1], "0123456789ab"), "of another reading"),
        (lambda t: t + t.split("\r\n")[1] + "\r\n", "stands there twice"),
        (lambda t: t.replace("-questions", "-answers"), "was not asked"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    place: Path, tmp_path: Path, change: Callable[[str], str], message: str
) -> None:
    path = saved(tmp_path / "r.csv", place, "kl", lambda item: {"better": "tie"})
    text = path.read_bytes().decode()
    changed = change(text)
    assert changed != text
    path.write_bytes(changed.encode())
    with pytest.raises(DataError, match=message):
        rated([path], place, resamples=100)


def test_ratings_need_an_evaluation_and_a_file(place: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "r.csv", place, "kl", after_better)
    with pytest.raises(RunError, match="two models or more"):
        rated([path], place.parent / "data")
    with pytest.raises(DataError, match="no such file"):
        rated([tmp_path / "none.csv"], place)


def test_the_commands(place: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(place), "--out", str(tmp_path / "pages")])
    assert done.exit_code == 0, done.output
    assert str(tmp_path / "pages" / "reader.html") in done.output
    files = [str(saved(tmp_path / f"{n}.csv", place, n, after_better)) for n in ("one", "two")]
    done = CliRunner().invoke(app, ["ratings", *files, str(place), "--json", "--resamples", "100"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert [row["reader"] for row in found["rows"] if row["question"] == "after preferred"] == [
        "one", "two", "all readers",
    ]  # fmt: skip
    better = next(row for row in found["agreement"] if row["question"] == "better")
    assert (better["same"], better["kappa"]) == (1.0, None), (
        "both said one word only: nothing beyond chance to see"
    )
