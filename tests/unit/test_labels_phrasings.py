"""The labeller on reports of generated pictures in two sets of phrasings, neither of which it was written on.

`phrasings.json` came first: macro F1 was 0.93 on it, its faults were mended, and it is 1.00 since. The rules were then
frozen and `phrasings_unseen.json` was written: it was scored once, macro F1 0.978, and no rule was changed after that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sightline.images.phantom import FINDINGS, SIDED
from sightline.metrics.labels.reading import Reading, read

FOLDER = Path(__file__).parents[1] / "fixtures" / "report"
Ways = dict[str, Any]
REPORTS = 600
Truth = dict[str, int]


def say(ways: Ways, random: np.random.Generator, name: str, degree: int, side: str) -> str:
    """One sentence that affirms or denies a finding."""
    known = ways[name]["present" if degree else "absent"]
    sentence = str(known[random.integers(len(known))])
    return sentence.format(side=side, degree=ways["degrees"][degree], how=ways["hows"][degree])


def write(ways: Ways, random: np.random.Generator) -> tuple[str, Truth]:
    """A report in these phrasings, and its truth: severity per finding of the phantoms."""
    present, degree = random.random(len(FINDINGS)) < 0.4, random.integers(1, 4, len(FINDINGS))
    truth = {name: int(p * d) for name, p, d in zip(FINDINGS, present, degree, strict=True)}
    side = {name: ("left", "right")[int(random.integers(2))] for name in SIDED}
    lines = [
        say(ways, random, "effusion", truth[f"effusion_{s}"], s)
        for s in ("left", "right")
        if truth[f"effusion_{s}"]
    ]
    silent = [name for name in ("cardiomegaly", "nodule", "pneumothorax", "device") if not truth[name]]
    silent += [] if lines else ["effusion"]
    if len(silent) >= 3 and random.random() < 0.5:  # several denials in one sentence
        chosen = [silent.pop(int(random.integers(len(silent)))) for _ in range(3)]
        pattern = ways["together"][random.integers(len(ways["together"]))]
        lines.append(
            pattern.format(**dict(zip("abc", (ways["names"][name] for name in chosen), strict=True)))
        )
    lines += [say(ways, random, name, 0, "") for name in silent]
    lines += [
        say(ways, random, name, truth[name], side.get(name, "")) for name in FINDINGS[2:] if truth[name]
    ]
    lines += [ways["beside"][i] for i in random.choice(len(ways["beside"]), size=2, replace=False)]
    random.shuffle(lines)
    text = " ".join(f"{line[0].upper()}{line[1:]}" for line in (" ".join(line.split()) for line in lines))
    return text, truth


def found(reading: Reading) -> dict[str, bool]:
    """What a reading affirms, as findings of the phantoms."""
    facts = {name: fact for name, fact in reading.findings.items() if fact.status == 1}
    sides = facts["pleural_effusion"].sides if "pleural_effusion" in facts else frozenset()
    return {
        "effusion_left": "left" in sides,
        "effusion_right": "right" in sides,
        "cardiomegaly": "cardiomegaly" in facts,
        "nodule": "lung_lesion" in facts,
        "pneumothorax": "pneumothorax" in facts,
        "device": "support_devices" in facts,
    }


def f1_of(ways: Ways) -> dict[str, float]:
    """F1 of each finding over all reports."""
    random = np.random.default_rng(2026)
    counts = {name: np.zeros(3) for name in FINDINGS}  # hits, misses, false alarms
    for _ in range(REPORTS):
        text, truth = write(ways, random)
        for name, said in found(read(text)).items():
            counts[name] += [
                truth[name] > 0 and said,
                truth[name] > 0 and not said,
                truth[name] == 0 and said,
            ]
    return {
        name: float(2 * hit / (2 * hit + missed + extra)) for name, (hit, missed, extra) in counts.items()
    }


@pytest.mark.parametrize(
    ("file", "macro", "lowest"), [("phrasings.json", 1.0, 1.0), ("phrasings_unseen.json", 0.978, 0.868)]
)
def test_f1_on_phrasings_that_the_rules_were_not_written_on(file: str, macro: float, lowest: float) -> None:
    f1 = f1_of(json.loads((FOLDER / file).read_text(encoding="utf-8")))
    assert np.mean(list(f1.values())) == pytest.approx(macro, abs=0.001)
    assert np.mean(list(f1.values())) >= 0.95
    assert min(f1.values()) == pytest.approx(lowest, abs=0.001)


@pytest.mark.parametrize("file", ["phrasings.json", "phrasings_unseen.json"])
def test_there_are_many_phrasings(file: str) -> None:
    ways = json.loads((FOLDER / file).read_text(encoding="utf-8"))
    kinds = ("effusion", "cardiomegaly", "nodule", "pneumothorax", "device")
    counted = {name: (len(set(ways[name]["present"])), len(set(ways[name]["absent"]))) for name in kinds}
    assert counted == dict.fromkeys(kinds, (10, 8))
    assert len(ways["together"]) == 5
