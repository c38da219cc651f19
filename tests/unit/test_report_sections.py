"""Parts of the report: errors by finding, regressions, subgroups, the blinded reader, the model card."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loaded import STUDY, load_file
from sightline.report import Card, Page, model_card, render
from sightline.report.card import in_order, kind_of, rank
from sightline.report.groups import groups, worst_groups
from sightline.report.mistakes import mistakes
from sightline.report.model_card import limits, unmeasured
from sightline.report.reader import reader
from sightline.report.regressions import balance, regressions
from sightline.report.verdict import verdicts
from sightline.stages.cases import BUDGET

STYLES = Path(model_card.__file__).parent
TEXT, LARGE = 4.5, 3.0  # least contrast of text and of large text or shapes, WCAG 2.2


@pytest.fixture(scope="module")
def study() -> Any:
    return load_file(STUDY)


@pytest.fixture(scope="module")
def whole(study: Any) -> Page:
    return study.page(cases=8)


LONG = "The heart is normal in size. The lungs are clear without effusion, nodule or pneumothorax. " * 4
REPORT = {
    "question": "Write the report.", "topic": "report", "answer": LONG,
    "answers": dict.fromkeys(("base", "taught", "aligned"), LONG), "right": {},
}  # fmt: skip
PIXEL = b"\x89PNG\r\n\x1a\n"


def turn(name: str, before: bool, after: bool, **more: Any) -> dict[str, Any]:
    return {
        "sample": name, "turn": 0, "question": f"{name}?", "topic": "nodule", "answer": "yes",
        "answers": {"taught": "yes" if before else "no", "aligned": "yes" if after else "no"},
        "right": {"taught": before, "aligned": after}, **more,
    }  # fmt: skip


def card(name: str, *turns: dict[str, Any]) -> Card:
    wrong = sum(not t["right"]["aligned"] for t in turns)
    return Card(sample=name, patient="p", picture=PIXEL, turns=turns, errors=wrong)


def test_counts_are_doors_to_their_cases() -> None:
    counts = {
        "base": {"nodule": {"tp": 3, "fn": 2, "fp": 4, "tn": 1}, "report:device": {"tp": 5, "tn": 5}},
        "taught": {"nodule": {"tp": 5, "tn": 4, "fp": 1}, "where": {"ok": 1, "no": 3}},
    }
    rows = [{"model": m, "image": "clean", "metric": "accuracy", "value": 0.5} for m in counts]
    shown = mistakes(Page(title="x", rows=rows, counts=counts))
    doors = re.findall(r'<a href="#cases=([^"]+)" aria-label="([^"]+)">([^<]+)</a>', shown)
    assert doors == [
        ("1no,where", "3 wrong, taught, where: show the cases", "3"),
        ("0fp,nodule", "4 false positives, base, nodule: show the cases", "4"),
        ("0fn,nodule", "2 missed, base, nodule: show the cases", "2"),
        ("1fp,nodule", "1 false positives, taught, nodule: show the cases", "1"),
    ]
    assert "10<span" in shown, "ten were asked, five of them present"
    assert "5 present" in shown
    assert "Named in reports" in shown
    assert "Neither yes nor no" not in shown, "no answer was unreadable"
    assert mistakes(Page(title="x", rows=rows, counts={"base": {"nodule": {"tp": 3}}})) == ""


def test_every_count_of_the_study_is_the_number_of_its_rows(whole: Page, tmp_path: Path) -> None:
    render(whole, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    marks = re.findall(r'data-marks="([^"]*)"', text)
    doors = re.findall(r'<a href="#cases=(\d[a-z]+),([^"]+)"[^>]*>(\d+)</a>', text)
    assert len(doors) > 20
    for kind, topic, count in doors:
        assert sum(f"{kind}@{topic}" in each.split("\n") for each in marks) == int(count)


def test_the_worst_regression_comes_first() -> None:
    cards = [
        card("mild", turn("mild", True, False, drop=0.4)),
        card("wrong", turn("wrong", False, False), turn("wrong2", False, False)),
        card("sure", turn("sure", True, False, confidence={"aligned": 0.9})),
        card("bad", turn("bad", True, False, drop=3.2), turn("fine", True, True)),
        card("unsure", turn("unsure", True, False, confidence={"aligned": 0.5})),
        card("fixed", turn("fixed", False, True)),
    ]
    order = [c.sample for c in in_order(cards, ["taught", "aligned"])]
    assert order == ["bad", "mild", "sure", "unsure", "wrong", "fixed"]
    assert rank(turn("x", True, False), "aligned") == (2, 0.0)
    page = Page(title="x", gallery=cards, changes={"turns": 7, "fixed": 1, "broke": 4})
    shown = regressions(page)
    assert re.findall(r'class="said">(\w+)\?</bdi>', shown) == ["bad", "mild", "sure", "unsure"]
    assert re.findall(r'href="#case=(\d)"', shown) == ["0", "1", "2", "3"]
    assert "The right answer lost 3.20 nats" in shown
    assert "All 4 broken answers" in shown
    assert (
        balance(page) == "Of 7 answers, aligned mends 1 that taught had wrong and breaks 4 that it had right."
    )


def test_no_regression_is_said_and_one_model_has_none() -> None:
    page = Page(title="x", gallery=[card("fixed", turn("fixed", False, True))])
    assert "No answer that was right with taught is wrong with aligned." in regressions(page)
    alone = replace(
        page, gallery=[Card(sample="a", patient="p", picture=PIXEL, turns=[{"answers": {"one": "x"}}])]
    )
    assert regressions(alone) == ""
    assert balance(alone) == ""


def test_groups_name_the_worst_the_gap_and_who_is_left_out(whole: Page) -> None:
    shown = groups(whole)
    assert shown.count("<figure>") == 1
    assert shown.index("female") < shown.index("male</bdi>"), "the worst group first"
    assert shown.count('class="tag bad"') == 1
    assert (
        "a gap of 0.03 [0.00, 0.06] (p = 0.030, where groups that do not differ show 0.01 on average); equity"
        in shown
    )
    assert shown.count("no difference between the groups is shown") == 1, "only the base's p is not small"
    assert "equity-scaled score 0.86 [0.84, 0.88]." in shown
    assert "aligned minus taught: gap by sex: 0.000 [−0.010, +0.010], p = 0.80." in shown
    assert "<bdi>other</bdi> has 2 patient(s), fewer than 10 (2 patients, 12 answers)." in shown
    assert worst_groups(whole) == [
        "By sex, aligned has its worst balanced accuracy for female (0.87) and its best for male (0.90): a gap of 0.03 "
        "[0.00, 0.06] (p = 0.030, where groups that do not differ show 0.01 on average)."
    ]
    assert any(v.text.startswith("By sex, aligned") for v in verdicts(whole))
    assert groups(replace(whole, groups={})) == ""


def test_metrics_beyond_the_main_ones_are_folded(whole: Page) -> None:
    more = [dict(r, metric=m) for r in whole.groups["rows"] for m in ("accuracy", "auc", "bleu")]
    shown = groups(replace(whole, groups={**whole.groups, "rows": [*whole.groups["rows"], *more]}))
    assert shown.count("<figure>") == 4
    assert "2 more metrics by sex" in shown
    assert shown.index("2 more metrics") < shown.index("<b>Accuracy</b>")


def test_the_reader_sees_no_names_and_no_scores(whole: Page, tmp_path: Path) -> None:
    render(whole, tmp_path / "reader.html", blinded=True)
    text = (tmp_path / "reader.html").read_text(encoding="utf-8")
    body = re.sub(
        r"<script>.*?</script>|data:image/[a-z]+;base64,[^\"]*", "", text.split("<body>")[1], flags=re.DOTALL
    )
    for name in ("base", "taught", "aligned", "0.89", "accuracy"):
        assert name not in body
    assert body.count('<template class="item">') == len(whole.reading.items)
    assert body.count("<img") == len(whole.reading.items) + 1, "each with its picture, and the dialog's"
    assert text.count("<h1>") == 1
    inside = reader(whole)
    assert "<img" not in inside, "in the report the pictures are those of the cases"
    assert reader(replace(whole, reading=None)) == ""


def test_items_hold_both_answers_in_their_order(whole: Page) -> None:
    shown = reader(whole).split('<template class="item">')[1:]
    assert len(shown) == len(whole.reading.items) > 4
    for item, text in zip(whole.reading.items, shown, strict=True):
        said = re.findall(r'<h4>Answer (.)</h4><bdi class="said">(\w+)</bdi>', text)
        assert said == [("A", item.texts[0]), ("B", item.texts[1])]
        assert f'data-sample="{item.sample}" data-turn="{item.turn}"' in text


def test_the_card_says_what_was_measured_and_what_was_not(whole: Page) -> None:
    text = model_card.markdown(whole)
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert titles == [
        "What it is", "Intended use", "Data", "Training", "Figures", "Known limits", "Not measured",
        "To be filled in by people",
    ]  # fmt: skip
    assert text.startswith(
        "# Model card: aligned (Quickstart: six findings on phantom radiographs)\n\n**For research"
    )
    assert "- Balanced accuracy: 0.89 [0.87, 0.91], 1 080 answers of 180 patients\n" in text
    assert "p = 0.003 on the same answers." in text
    assert (
        "- data: reader phantom; generated; train 1 430, test 408; split by patient; 3 records set aside\n"
        in text
    )
    assert "always the commonest answer: 0.71" in text
    assert "Diagnosis, treatment, triage" in text
    assert "p \\< 0.001" in text
    assert "<" not in text.replace("\\<", "")
    missing = unmeasured(whole)
    assert any(m.startswith("Other sources") for m in missing)
    assert not any(m.startswith("Subgroups") for m in missing), "the study has them"
    assert any(m.startswith("Subgroups") for m in unmeasured(replace(whole, groups={})))
    assert not any(m.startswith("Whether it looks") for m in missing)


def test_the_card_warns_of_few_patients_and_made_pictures(whole: Page) -> None:
    few = replace(whole, rows=[dict(r, patients=99) for r in whole.rows])
    assert "Only 99 patients were measured, so the intervals are wide and rare cases are absent." in limits(
        few
    )
    assert not any(
        "Only" in each for each in limits(replace(few, rows=[dict(r, patients=100) for r in few.rows]))
    )
    assert any("generated by a program" in each for each in limits(whole))
    real = replace(whole, about={**whole.about, "data": []})
    assert not any("generated by a program" in each for each in limits(real))


@pytest.mark.parametrize(
    ("data", "kind"),
    [(PIXEL, "png"), (b"\xff\xd8\xff\xe0", "jpeg"), (b"RIFF....WEBPVP8 ", "webp"), (b"RIFF....WAVEfmt ", None),
     (b"GIF89a", None), (b"", None)],
)  # fmt: skip
def test_pictures_are_known_by_their_first_bytes(data: bytes, kind: str | None) -> None:
    assert kind_of(data) == kind


def test_cases_beyond_the_first_are_in_templates_and_the_rest_is_named(study: Any, tmp_path: Path) -> None:
    page = study.page(cases=15)
    render(replace(page, cases=40), tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert text.count('<template class="spare"><article class="card"') == 3
    assert text.count('<article class="card"') == 15
    assert "15 of 40 cases are in this file" in text
    assert json.loads(re.search(r'data-models="([^"]*)"', text)[1].replace("&quot;", '"')) == [  # type: ignore[index]
        "base", "taught", "aligned",
    ]  # fmt: skip


def test_five_hundred_cases_stay_below_20_mb(study: Any, tmp_path: Path) -> None:
    few = study.page(cases=20)
    heavy = PIXEL + bytes(BUDGET // 500)
    cards = [
        replace(
            few.gallery[i % 20],
            sample=f"{i}",
            picture=heavy,
            shown={},
            turns=[*few.gallery[i % 20].turns, REPORT],
        )
        for i in range(500)
    ]
    render(replace(few, gallery=cards, cases=500), tmp_path / "r.html")
    assert 15e6 < (tmp_path / "r.html").stat().st_size < 20e6


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_have_contrast(scheme: str) -> None:
    text = (STYLES / "page.css").read_text(encoding="utf-8")
    block = re.findall(r":root \{(.*?)\}", text, re.DOTALL)[scheme == "dark"]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    assert len(colours) == 19
    for ground in ("paper", "card", "faint"):
        for ink in ("ink", "soft", "accent"):
            assert contrast(colours[ink], colours[ground]) >= TEXT, (ink, ground)
    for mark in ("good", "bad", "warn"):
        assert contrast(colours[mark], colours["card"]) >= TEXT, mark
        assert contrast(colours[mark], colours[f"{mark}-wash"]) >= TEXT, mark
    for series in range(6):
        assert contrast(colours[f"s{series}"], colours["card"]) >= LARGE
