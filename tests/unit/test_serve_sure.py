"""How sure an answer is, and the threshold that an evaluation calibrated for exactly this model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from sightline import runs
from sightline.errors import RunError
from sightline.serve.backend import End
from sightline.serve.sure import Held, find, judged, read

ENTRY = {"threshold": 0.75, "of": "choices", "alpha": 0.1, "promise": "held", "patients": 9}


def end(choices: dict[str, float] | None = None, logp: float | None = -0.5) -> End:
    return End("stop", 5, 2, logp, choices or {})


def held(of: str, threshold: float = 0.75) -> Held:
    return Held(threshold=threshold, of=of, alpha=0.1, promise="held")


def test_yes_against_no_is_the_share_of_its_probability() -> None:
    """As `metrics.calibration.picks` counts it: two thirds here, whatever else might have been said."""
    choices = {"yes": math.log(0.2), "no": math.log(0.1)}
    found = judged(end(choices), held("choices", 0.6))
    assert found == {
        "kind": "choices",
        "confidence": pytest.approx(2 / 3),
        "verdict": "given",
        "threshold": 0.6,
    }
    assert judged(end(choices), held("choices", 0.7))["verdict"] == "needs_review"


def test_at_the_threshold_a_human_is_asked() -> None:
    found = judged(end(logp=math.log(0.5)), held("sequence", 0.5))
    assert (found["confidence"], found["verdict"]) == (pytest.approx(0.5), "needs_review")


def test_a_threshold_says_nothing_of_another_kind_of_confidence() -> None:
    open_answer = judged(end(), held("choices"))
    assert open_answer == {
        "kind": "sequence",
        "confidence": pytest.approx(math.exp(-0.5)),
        "verdict": "uncalibrated",
    }
    assert judged(end({"yes": -1.0, "no": -2.0}), held("sequence"))["verdict"] == "uncalibrated"
    assert judged(end(), None)["verdict"] == "uncalibrated"
    assert judged(end(logp=None), held("sequence"))["confidence"] is None


def stage(folder: Path, parents: dict[str, Path], **files: Any) -> Path:
    """A finished stage with these files."""
    with runs.start(folder, section={"stage": "x"}, seed=0, version=1, parents=parents) as run:
        for name, value in files.items():
            runs.write_json(run.work / f"{name}.json", value)
    return folder


def test_the_threshold_of_the_same_run_and_the_same_model(tmp_path: Path) -> None:
    taught = stage(tmp_path / "taught", {}, weights=[1])
    assert find(taught) is None
    stage(tmp_path / "evaluate", {"taught": taught}, abstain={"models": {"taught": ENTRY}})
    assert find(taught) == held("choices")
    (taught / "manifest.json").unlink()
    (taught / "weights.json").write_text("[2]")
    runs.seal(taught, {"stage": "x"})
    assert find(taught) is None  # the model was taught anew since


def test_a_threshold_of_another_precision_is_not_taken(tmp_path: Path) -> None:
    taught = stage(tmp_path / "taught", {}, weights=[1])
    section = {"stage": "x", "generate": {"precision": "bfloat16"}}
    with runs.start(
        tmp_path / "evaluate", section=section, seed=0, version=1, parents={"taught": taught}
    ) as run:
        runs.write_json(run.work / "abstain.json", {"models": {"taught": ENTRY}})
    assert find(taught) is None
    assert find(taught, "bfloat16") == held("choices")


def test_a_threshold_by_its_place(tmp_path: Path) -> None:
    runs.write_json(tmp_path / "abstain.json", {"models": {"taught": ENTRY}})
    assert read(tmp_path, "taught") == read(tmp_path / "abstain.json", "taught") == held("choices")
    with pytest.raises(RunError) as caught:
        read(tmp_path, "aligned")
    assert (caught.value.found, caught.value.expected) == ("taught", "aligned")
