"""The report: escaping, missing pieces, sentences that keep to their intervals, and no outside address."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from loaded import STUDY, load_file
from sightline.errors import DataError, ImageError
from sightline.report import Card, Page, render
from sightline.report.card import states
from sightline.report.charts import curve, points_of, scale
from sightline.report.markup import Html, chance, digits, duration, el
from sightline.report.verdict import verdicts

HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>&amp;</style></textarea>\u202e\ud800"


study = load_file(STUDY)


class Tags(HTMLParser):
    """Counts tags, keeps attributes, and checks that elements close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in ("meta", "img", "col", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def whole() -> Page:
    return study.page(cases=3)


def shown(page: Page, folder: Path) -> str:
    render(page, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_well_formed_and_the_same_twice(whole: Page, tmp_path: Path) -> None:
    first, second = shown(whole, tmp_path / "a" / "b"), shown(whole, tmp_path)
    assert first == second
    tags = Tags(first)
    assert tags.open == []
    assert tags.tags.count("h1") == 1
    assert tags.tags.count("script") == tags.tags.count("style") == 1
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["report.html"]


def test_no_outside_address_and_a_closed_policy(whole: Page, tmp_path: Path) -> None:
    text = shown(whole, tmp_path)
    assert not re.search(r"https?:|//[a-z]+\.|@import|url\(", text)
    attributes = Tags(text).attributes
    policy = next(v for tag, name, v in attributes if tag == "meta" and v.startswith("default-src"))
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy
    assert all(v.startswith("data:image/png;base64,") for _, name, v in attributes if name == "src")
    assert all(v.startswith("#") for _, name, v in attributes if name == "href")
    assert not [name for _, name, _ in attributes if name == "style" or name.startswith("on")]


def poison(value: Any) -> Any:
    if isinstance(value, str):
        return value + HOSTILE
    if isinstance(value, dict):
        return {poison(k): poison(v) for k, v in value.items()}
    return [poison(v) for v in value] if isinstance(value, (list, tuple)) else value


def soil(value: Any) -> Any:
    """Poison in texts, none in keys."""
    if isinstance(value, dict):
        return {k: soil(v) for k, v in value.items()}
    return [soil(v) for v in value] if isinstance(value, list) else poison(value)


def test_hostile_strings_in_every_field(whole: Page, tmp_path: Path) -> None:
    def values(entries: Any) -> list[dict[str, Any]]:
        return [{k: poison(v) for k, v in entry.items()} for entry in entries]

    cards = [
        Card(
            sample=poison(c.sample),
            patient=poison(c.patient),
            picture=c.picture,
            errors=c.errors,
            shown={poison(k): v for k, v in c.shown.items()},
            turns=values(c.turns),
        )
        for c in whole.gallery
    ]
    page = Page(
        title=HOSTILE,
        notice=HOSTILE,
        recipe=HOSTILE,
        command=HOSTILE,
        rows=values(whole.rows),
        gallery=cards,
        parts={
            (m + HOSTILE, "clean" + HOSTILE, k + HOSTILE): poison(v) for (m, _, k), v in whole.parts.items()
        },
        paired=values(whole.paired),
        curves={
            s + HOSTILE: [poison(r) | {"step": i} for i, r in enumerate(c)] for s, c in whole.curves.items()
        },
        stages=values(whole.stages),
        notes=[HOSTILE],
        audit=poison(whole.audit),
        made=poison(whole.made),
        about=soil(whole.about),
        groups=soil(whole.groups),
        counts={
            m + HOSTILE: {t + HOSTILE: kinds for t, kinds in each.items()} for m, each in whole.counts.items()
        },
        reading=replace(
            whole.reading,
            items=tuple(
                replace(i, sample=i.sample + HOSTILE, question=HOSTILE, answer=HOSTILE, before=HOSTILE)
                for i in whole.reading.items
            ),
        ),
    )
    text = shown(page, tmp_path)
    assert text.count('<template class="item">') == len(whole.reading.items) > 1
    tags = Tags(text)
    assert tags.open == []
    assert tags.tags.count("script") == tags.tags.count("style") == 1
    assert not [name for _, name, _ in tags.attributes if name.startswith("on")]
    assert any("<script>alert(1)</script>" in text for text in tags.words)
    pictures = sum(1 + len(c.shown) for c in cards)
    repeated = 4  # the worst regressions show their pictures again
    assert tags.tags.count("img") == pictures + repeated + 1


@pytest.mark.parametrize(
    "gone",
    [
        "rows",
        "parts",
        "paired",
        "curves",
        "gallery",
        "stages",
        "notes",
        "recipe",
        "command",
        "about",
        "groups",
    ],
)
def test_any_piece_may_be_missing(whole: Page, tmp_path: Path, gone: str) -> None:
    empty = (
        "" if gone in ("recipe", "command") else {} if gone in ("parts", "curves", "about", "groups") else ()
    )
    more = {"counts": {}} if gone == "parts" else {}  # both stand in one section
    text = shown(replace(whole, **{gone: empty, "audit": None, **more}), tmp_path)
    section = {
        "rows": "scores",
        "parts": "findings",
        "curves": "training",
        "gallery": "cases",
        "about": "card",
    }.get(gone, gone)
    assert Tags(text).open == []
    assert f'id="{section}"' not in text
    assert f'href="#{section}"' not in text


def test_nothing_but_a_title(tmp_path: Path) -> None:
    text = shown(Page(title="Empty"), tmp_path)
    assert "draws no conclusion" in text
    assert text.count("For research only.") == 2


def test_one_model_and_one_curve_point(tmp_path: Path) -> None:
    page = Page(
        title="One",
        rows=study.rows(("taught",)),
        curves={"taught": [{"step": 1, "loss": 0.5, "lr": float("nan")}]},
    )
    text = shown(page, tmp_path)
    assert "taught, loss: from 0.5 at step 1 to 0.5 at step 1" in text
    assert "Learning rate" not in text
    assert "nan" not in text.lower().split("<body>")[1]


def test_the_sentences_of_a_good_run(whole: Page) -> None:
    said = verdicts(whole)
    assert said[0].tone == "good"
    assert said[0].text == (
        "aligned is better than taught: balanced accuracy +0.030 [+0.012, +0.048], p = 0.003 on the same answers."
    )
    assert said[1].text.startswith(
        "taught is better than base: balanced accuracy +0.360 [+0.335, +0.385], p < 0.001"
    )
    level = next(
        v for v in said if v.text.startswith("With its image, aligned answers 0.89 [0.87, 0.91] of findings")
    )
    assert level.tone == "good"
    assert "before training it was 0.50 [0.48, 0.52]" in level.text
    blind = next(v for v in said if v.text.startswith("Without its image, taught"))
    assert blind.text.endswith("the answers depend on the image.")
    assert any("Always giving the commonest answer would be right 0.71 of the time" in v.text for v in said)


def test_a_blind_model_is_said_to_be_blind() -> None:
    rows = [
        dict(r, value=0.7, low=0.68, high=0.72)
        for r in study.rows(("base", "taught"))
        if r["metric"] == "balanced_accuracy"
    ]
    said = verdicts(Page(title="Blind", rows=rows))
    assert any(v.tone == "caution" and "no sign in these figures" in v.text for v in said)
    assert any("were not compared in pairs" in v.text for v in said)


@pytest.mark.parametrize("image", ["swapped_prior", "occluded", "occluded_elsewhere"])
def test_an_image_of_which_most_is_there_is_not_counted_as_none(whole: Page, image: str) -> None:
    rows = [dict(r, image=image) if r["image"] == "black" else r for r in whole.rows]
    changed = replace(whole, rows=rows)
    assert image in changed.blind
    assert image not in changed.unseen
    (said,) = [v.text for v in verdicts(changed) if v.text.startswith("Without its image, taught")]
    assert "black" not in said
    assert "prior" not in said
    assert "covered" not in said
    assert "random noise" in said


def test_an_interval_over_zero_is_no_improvement(whole: Page) -> None:
    paired = [dict(e, low=-0.01) if e["question"] == "aligned minus taught" else e for e in whole.paired]
    said = verdicts(replace(whole, paired=paired))
    assert said[0].tone == "plain"
    assert said[0].text.startswith("aligned is not shown to differ from taught")
    assert said[0].text.endswith("the interval includes 0.")


def test_a_p_value_that_is_not_small_is_no_improvement(whole: Page) -> None:
    paired = [dict(e, p=0.05) if e["question"] == "aligned minus taught" else e for e in whole.paired]
    said = verdicts(replace(whole, paired=paired))
    assert said[0].tone == "plain"
    assert said[0].text.endswith("p is not below 0.05, corrected for all tests.")


def test_a_loss_is_a_loss_and_less_of_an_error_is_a_gain(whole: Page) -> None:
    worse = [
        dict(e, difference=-0.03, low=-0.05, high=-0.01) if "aligned" in e["question"] else e
        for e in whole.paired
    ]
    said = verdicts(replace(whole, paired=worse))[0]
    assert (said.tone, said.text[:28]) == ("caution", "aligned is worse than taught")
    fewer = [dict(e, metric="unparsed") for e in worse]
    sides = (("aligned", "clean"), ("taught", "clean"))
    assert replace(whole, paired=worse).shown(*sides, "balanced_accuracy") == -1
    assert replace(whole, paired=fewer).shown(*sides, "unparsed") == 1
    assert replace(whole, paired=fewer).shown(*sides[::-1], "unparsed") == -1


def test_bold_needs_a_paired_interval(whole: Page, tmp_path: Path) -> None:
    assert '<strong class="value"' in shown(whole, tmp_path)
    assert '<strong class="value"' not in shown(replace(whole, paired=()), tmp_path)


def test_pairs_are_read_from_words_either_way(whole: Page) -> None:
    forth = whole.pair(("aligned", "clean"), ("taught", "clean"), "balanced_accuracy")
    back = whole.pair(("taught", "clean"), ("aligned", "clean"), "balanced_accuracy")
    assert forth == pytest.approx((0.03, 0.012, 0.048))
    assert back == pytest.approx((-0.03, -0.048, -0.012))
    assert whole.pair(("taught", "clean"), ("taught", "noise"), "margin") is not None
    assert whole.pair(("taught", "clean"), ("taught", "noise"), "bleu") is None
    assert whole.sides({"question": "anything at all"}) is None
    assert whole.sides({"question": "aligned minus taught on noise"}) == (
        ("aligned", "noise"),
        ("taught", "noise"),
    )
    assert whole.sides({"question": "clean: aligned minus taught"}) == (
        ("aligned", "clean"),
        ("taught", "clean"),
    )


def test_findings_are_findings() -> None:
    parts = {("taught", "clean", "auc"): {"device": 0.9, "lost": float("nan"), "dropped_resamples": 3.0}}
    assert Page(title="x", parts=parts).findings("taught", "auc") == {"device": 0.9}


def test_cards_come_with_errors_first(whole: Page, tmp_path: Path) -> None:
    cards = [
        replace(card, errors=i, turns=[dict(t, right=dict(t["right"], taught=False)) for t in card.turns])
        for i, card in enumerate(whole.gallery)
    ]
    text = shown(replace(whole, gallery=cards), tmp_path)
    places = [text.index(f"<h3><bdi>{card.sample}</bdi>") for card in cards]
    assert places == sorted(places, reverse=True)


def test_states_of_a_turn() -> None:
    models = ["base", "taught", "aligned"]
    assert states({"right": {"taught": False, "aligned": True}}, models) == ["fixed"]
    assert states({"right": {"taught": True, "aligned": False}}, models) == ["errors", "broken"]
    assert states({"right": {"taught": False, "aligned": False}}, models) == ["errors"]
    assert states({"right": {}}, models) == states({"right": {"base": True}}, []) == []


def test_a_picture_must_be_one_that_browsers_show() -> None:
    with pytest.raises(ImageError) as caught:
        Card(sample="s1", patient="p1", picture=b"GIF89a..")
    assert "case s1, image clean" in str(caught.value)
    assert "GIF89a" in str(caught.value)


def test_rows_name_what_they_lack() -> None:
    with pytest.raises(DataError) as caught:
        Page(title="x", rows=[{"model": "base", "metric": "auc", "value": 1}])
    assert caught.value.where == "rows[0]"
    assert "lack image" in str(caught.value)


def test_escaping_is_by_construction() -> None:
    assert el("p", "<b>", Html("<i></i>"), class_='"x"') == '<p class="&quot;x&quot;">&lt;b&gt;<i></i></p>'
    assert el("img", src="", alt=None, hidden=True) == '<img src="" hidden>'


def test_numbers_read_well() -> None:
    assert [digits(v) for v in (0.5, -0.001, 12.34, 250, None, float("nan"))] == [
        "0.50",
        "0.00",
        "12.3",
        "250",
        "–",
        "–",
    ]
    assert digits(-0.0304, signed=True) == "−0.030"
    assert [chance(p) for p in (0.0002, 0.0431, 0.5)] == ["< 0.001", "0.043", "0.50"]
    assert [duration(s) for s in (8.41, 419, 7500)] == ["8.4 s", "6 min 59 s", "2 h 05 min"]


@pytest.mark.parametrize(
    "values", [[0.5], [0.47, 0.91], [-3.0, 1e-3], [1e-9, 2e-9], [1e12, 3e12], [0.0, 0.0], [], [None]]
)
def test_a_scale_holds_its_values(values: list[float | None]) -> None:
    axis = scale(values)
    assert axis.low < axis.high
    assert all(axis.low <= v <= axis.high for v in values if v is not None)
    assert 1 <= len(axis.ticks) <= 8
    assert all(axis.low <= t <= axis.high for t in axis.ticks)


def test_a_long_curve_is_smoothed_and_a_short_one_is_not() -> None:
    long = [(float(i), float(i % 2)) for i in range(60)]
    assert curve(long, name="x").count("<polyline") == 2
    assert curve(long, name="x", smooth=False).count("<polyline") == 1
    assert curve(long[:5], name="x").count("<polyline") == 1
    assert points_of([{"step": 2, "a": 1}, {"step": 1, "a": 3}, {"step": 3}, {"a": 1}], "a") == [
        (1, 3),
        (2, 1),
    ]
