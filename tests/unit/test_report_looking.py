"""The page's words on covered findings and attention, and its confusion matrices."""

from __future__ import annotations

from sightline.report.confusion import confusion
from sightline.report.document import document
from sightline.report.looking import looking
from sightline.report.page import Page

ROWS = [
    {"model": model, "image": "clean", "metric": "looks_at_finding", "value": value, "low": low, "high": value + 0.2,
     "n": 120, "patients": 40}
    for model, value, low in (("base", 0.01, -0.1), ("taught", 1.25, 0.9))
]  # fmt: skip
TABLE = {
    "rows": ["Normal", "<Severe>"], "columns": ["Normal", "<Severe>", "no class named"],
    "counts": [[5, 1, 0], [2, 7, 3]],
}  # fmt: skip


def page() -> Page:
    return Page(
        title="t", rows=ROWS, looked=["taught: attention to the image is left out, for it does not foretell <it>."],
        tables={
            "taught, clean": {"grade_accuracy: confusion": TABLE}, "taught, black": {"grade_accuracy: confusion": {}}
        },
    )  # fmt: skip


def test_each_model_is_told_to_look_or_not() -> None:
    text = looking(page())
    assert "1.25 nats more" in text
    assert text.count("It looks where the finding is.") == 1
    assert text.count("That it looks where the finding is, is not shown.") == 1
    assert text.index("base") < text.index("taught")
    assert "does not foretell &lt;it&gt;." in text
    assert "120 questions, 40 patients" in text


def test_the_matrix_has_right_answers_in_bold_and_escapes_names() -> None:
    text = confusion(page())
    assert text.count("<table") == 1
    assert text.count("<b>") == 2
    assert "<b>5</b>" in text
    assert "<b>7</b>" in text
    assert "&lt;Severe&gt;" in text
    assert "Grade: what taught named" in text


def test_both_stand_in_the_document_and_are_left_out_without_figures() -> None:
    whole = document(page())
    assert "With the finding covered" in whole
    assert "what taught named" in whole
    bare = Page(title="t", rows=[{**ROWS[0], "metric": "accuracy"}])
    assert (looking(bare), confusion(bare)) == ("", "")
    assert "With the finding covered" not in document(bare)
