"""The report's page on retrieval: scores with and without reports, and the rates of reliance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sightline.report import Page, render
from sightline.report.retrieval import headline, retrieval
from sightline.report.verdict import verdicts


def row(model: str, image: str, metric: str, value: float, reach: float = 0.05) -> dict[str, Any]:
    return {
        "model": model, "image": image, "metric": metric, "value": value, "low": value - reach,
        "high": value + reach, "n": 100, "patients": 20,
    }  # fmt: skip


def paired(model: str, difference: float, reach: float) -> dict[str, Any]:
    return {
        "question": f"{model}: clean minus unaided", "metric": "accuracy", "a": 0.8, "b": 0.8 - difference,
        "difference": difference, "low": difference - reach, "high": difference + reach, "p": 0.01, "n": 100,
        "patients": 20,
    }  # fmt: skip


def page(difference: float = 0.1, reach: float = 0.05) -> Page:
    rows = []
    for model, over in (("taught", 0.43), ("aligned", 0.08)):
        rows += [
            row(model, image, "accuracy", value)
            for image, value in (("clean", 0.8), ("unaided", 0.7), ("noise", 0.5))
        ]
        rows += [row(model, "clean", "over_reliance", over), row(model, "clean", "copy_reference", 0.55)]
        rows += [row(model, "clean", "harm", 0.12), row(model, "clean", "help", 0.4)]
    counts = {"right_to_wrong": 8, "wrong_to_right": 12, "wrong_aided": 20, "right_unaided": 70}
    parts = {
        ("taught", "clean", "over_reliance"): counts,
        ("taught", "clean", "copy_reference"): {"noise": 0.55, "black": 0.5},
    }
    return Page(
        title="t",
        rows=rows,
        parts=parts,
        paired=[paired("taught", 0.1, 0.05), paired("aligned", difference, reach)],
    )


def test_one_column_a_model_with_scores_rates_and_counts() -> None:
    shown = retrieval(page())
    assert headline(page()) == "accuracy"
    assert shown.count("<tr>") == 1 + 3 + 4
    for text in (
        "Accuracy with reports",
        "0.80",
        "0.70",
        "+0.100",
        "[+0.050, +0.150]",
        "0.43",
        "[0.38, 0.48]",
        "0.55",
    ):
        assert text in shown
    for text in ("8 of 20 errors", "8 of 70 right answers", "12 of 30 wrong answers"):
        assert shown.count(text) == 1  # counts are known for the first model only
    assert "Over-reliance" in shown
    assert "Copy-reference" in shown


def test_a_page_without_retrieval_has_no_such_section(tmp_path: Path) -> None:
    bare = Page(title="t", rows=[row("m", "clean", "accuracy", 0.8), row("m", "noise", "accuracy", 0.5)])
    assert retrieval(bare) == ""
    render(bare, tmp_path / "bare.html")
    assert "retrieved reports" not in (tmp_path / "bare.html").read_text(encoding="utf-8")
    render(page(), tmp_path / "whole.html")
    whole = (tmp_path / "whole.html").read_text(encoding="utf-8")
    for text in ('id="retrieval"', "With and without retrieved reports", "errors that the reports caused"):
        assert text in whole


def test_the_image_without_reports_is_not_a_blind_one() -> None:
    whole = page()
    assert whole.images == ["clean", "unaided", "noise"]
    assert whole.blind == ["noise"]
    assert not any(
        "without retrieved reports" in v.text for v in verdicts(whole) if "Without its image" in v.text
    )
    assert whole.findings("taught", "copy_reference") == {}


def test_the_sentence_claims_what_its_interval_allows() -> None:
    def said(difference: float, reach: float) -> tuple[str, str]:
        (found,) = [v for v in verdicts(page(difference, reach)) if "retrieved reports change" in v.text]
        return found.tone, found.text

    assert said(0.1, 0.05) == (
        "good", "The retrieved reports change the accuracy of aligned by +0.100 [+0.050, +0.150]: they help.",
    )  # fmt: skip
    assert said(-0.1, 0.05)[0] == "caution"
    assert said(-0.1, 0.05)[1].endswith("they harm.")
    assert said(0.01, 0.05)[0] == "plain"
