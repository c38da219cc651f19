"""What evaluate keeps of confidence: bins and curves for the report, and thresholds that are tried on test answers."""

import numpy as np
import pytest

from sightline.errors import DataError
from sightline.report import Page, render
from sightline.settings import Abstain
from sightline.stages.confidence import calibrated, thresholds
from sightline.types import Prediction


def answers(seed, patients, each=4, skill=1.0, prefix="p"):
    """Log-odds whose sign is right the more often, the larger they are; calibrated at skill 1."""
    random = np.random.default_rng(seed)
    made = []
    for i in range(patients * each):
        lead = random.normal(0, 2)
        gold = "Yes" if random.random() < 1 / (1 + np.exp(-skill * lead)) else "No"
        made.append(
            Prediction(
                sample=f"{prefix}{i:05d}", patient=f"{prefix}{i // each}", turn=0, question="Is there an effusion?",
                answer=gold, text="Yes" if lead > 0 else "No", choices={"yes": float(lead), "no": 0.0},
            )
        )  # fmt: skip
    return made


def test_bins_hold_all_answers_and_cover_a_calibrated_model():
    found = calibrated(answers(0, 200), seed=0, resamples=200)
    assert (found["n"], found["patients"]) == (800, 200)
    assert set(found["measures"]) == {"ece", "ece_width", "brier", "aurc"}
    assert [b["n"] for b in found["bins"]] == [80] * 10
    assert sorted(b["confidence"] for b in found["bins"]) == [b["confidence"] for b in found["bins"]]
    within = [b["low"] <= b["confidence"] <= b["high"] for b in found["bins"]]
    assert sum(within) >= 8
    assert found["curve"][-1] == [1.0, pytest.approx(np.mean([_wrong(p) for p in answers(0, 200)]))]
    assert len(found["curve"]) == 100
    assert calibrated([p for p in answers(0, 3) if not p.choices] or [_open()], seed=0, resamples=100) == {}


def _wrong(p):
    return p.text != p.answer


def _open():
    return Prediction(
        sample="s", patient="p", turn=0, question="Where?", answer="lung", text="liver", logp=-1.0
    )


def test_equal_confidences_share_a_bin():
    made = [Prediction(**{**_fields(p), "choices": {"yes": 0.5, "no": 0.0}}) for p in answers(1, 20)]
    (single,) = calibrated(made, seed=0, resamples=100)["bins"]
    assert single["n"] == 80


def _fields(p):
    return {name: getattr(p, name) for name in p.__dataclass_fields__}


def test_thresholds_are_calibrated_on_one_split_and_tried_on_the_other():
    held, made = {"taught": answers(2, 300)}, {"taught": answers(3, 300, prefix="q")}
    found = thresholds(held, made, Abstain(alpha=0.1), 0, 200)
    assert (found["alpha"], found["split"]) == (0.1, "valid")
    one = found["models"]["taught"]
    assert one["of"] == "choices"
    assert 0.5 < one["threshold"] < 0.8
    assert one["bound"] <= 0.1
    assert one["patients"] == 300
    assert "at most 0.1" in one["promise"]
    test = one["test"]
    assert test["answered"]["low"] < test["answered"]["value"] < test["answered"]["high"]
    given = [p for p in made["taught"] if 1 / (1 + np.exp(-abs(p.choices["yes"]))) > one["threshold"]]
    assert test["answered"]["value"] == pytest.approx(len(given) / 1200)
    assert test["wrong"]["value"] == pytest.approx(sum(map(_wrong, given)) / 1200)
    assert test["error"]["value"] == pytest.approx(sum(map(_wrong, given)) / len(given))
    assert test["kept"] is (test["wrong"]["value"] <= 0.1)
    assert test["wrong"]["value"] == pytest.approx(0.1, abs=0.03)


def test_a_model_that_never_answers_and_one_with_open_answers():
    few = thresholds({"m": answers(4, 5)}, {"m": answers(5, 50, prefix="q")}, Abstain(alpha=0.1), 0, 100)[
        "models"
    ]["m"]
    assert few["threshold"] == 1.0
    assert few["promise"].startswith("no answer may be given: 5 patients")
    assert few["test"]["answered"]["value"] == 0.0
    assert few["test"]["error"]["value"] is None
    sequence = thresholds({"m": [_open()]}, {"m": [_open()]}, Abstain(alpha=0.9), 0, 100)["models"]["m"]
    assert sequence["of"] == "sequence"
    silent = Prediction(sample="s", patient="p", turn=0, question="Where?", answer="lung", text="liver")
    with pytest.raises(DataError, match="nothing to calibrate a threshold on"):
        thresholds({"m": [silent]}, {"m": [silent]}, Abstain(), 0, 100)


def test_the_report_draws_them(tmp_path):
    made = answers(6, 40)
    found = {m: calibrated(made, seed=0, resamples=100) for m in ("base", "taught")}
    rows = [
        {"model": m, "image": "clean", "metric": "accuracy", "value": 0.7, "low": 0.6, "high": 0.8}
        for m in found
    ]
    known = thresholds({"taught": answers(7, 60)}, {"taught": made}, Abstain(alpha=0.1), 0, 100)
    paired = {
        "question": "taught minus base", "metric": "accuracy", "difference": 0.1, "low": -0.1, "high": 0.3, "p": 0.2,
        "n": 160, "patients": 40, "effect": 0.2, "odds_ratio": 1.5, "odds_low": 0.8, "odds_high": 2.9,
        "patients_needed": 1234,
    }  # fmt: skip
    page = Page(title="t", rows=rows, calibration=found, abstain=known, paired=[paired])
    render(page, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert 'id="confidence"' in text
    assert text.count("accuracy by confidence:") == 2
    assert text.count("<polyline") == 2
    assert "ECE" in text
    assert "When to abstain" in text
    assert "odds ratio 1.50 [0.80, 2.90]" in text
    assert "1\u202f234 needed" in text
    render(Page(title="t", rows=rows), tmp_path / "plain.html")
    assert 'id="confidence"' not in (tmp_path / "plain.html").read_text(encoding="utf-8")


def test_every_patient_weighs_the_same():
    held = {"m": answers(8, 100)}
    made = [
        p for i, p in enumerate(answers(9, 30, prefix="q")) if i % 8 in (0, 1, 2, 3, 4)
    ]  # four or one each
    one = thresholds(held, {"m": made}, Abstain(alpha=0.1), 0, 100)["models"]["m"]
    given = [1 / (1 + np.exp(-abs(p.choices["yes"]))) > one["threshold"] for p in made]
    shares = [0.25 if i % 5 < 4 else 1.0 for i in range(len(made))]
    assert one["test"]["answered"]["value"] == pytest.approx(np.dot(given, shares) / 30)
    assert one["test"]["answered"]["value"] != pytest.approx(np.mean(given), abs=1e-3)


def test_fewer_answers_than_bins_have_a_bin_each():
    found = calibrated(answers(2, 2, each=1), seed=0, resamples=100)
    assert [b["n"] for b in found["bins"]] == [1, 1]
