"""The rule labeller, sentence by sentence: what is affirmed, denied, in doubt, where, how much, since when."""

from __future__ import annotations

import pytest

from sightline.metrics.labels.errors import errors
from sightline.metrics.labels.reading import Fact, read
from sightline.metrics.labels.rules import DEVICES, FINDINGS, RULES
from sightline.metrics.labels.sections import observations, sections, speaks_of_prior


def said(text: str) -> dict[str, int]:
    """The findings that a text names."""
    return {name: fact.status for name, fact in read(text).findings.items()}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No pneumothorax.", {"pneumothorax": 0}),
        ("No focal consolidation, large pleural effusion, or pneumothorax is identified.",
         {"consolidation": 0, "pleural_effusion": 0, "pneumothorax": 0}),
        ("No pneumothorax, small left effusion.", {"pneumothorax": 0, "pleural_effusion": 1}),
        ("No pneumothorax, but there is a left effusion.", {"pneumothorax": 0, "pleural_effusion": 1}),
        ("Cardiomegaly without edema.", {"cardiomegaly": 1, "edema": 0}),
        ("The effusion has resolved.", {"pleural_effusion": 0}),
        ("Pneumothorax is no longer seen.", {"pneumothorax": 0}),
        ("Interval removal of the endotracheal tube.", {"support_devices": 0}),
        ("No significant change in the left effusion.", {"pleural_effusion": 1}),
        ("Pericardial effusion.", {}),
        ("No focal opacity to suggest pneumonia.", {"lung_opacity": 0, "pneumonia": 0}),
        ("No acute, displaced rib fractures are seen.", {"fracture": 0}),
        ("Not only an effusion but also a nodule.", {"pleural_effusion": 1, "lung_lesion": 1}),
    ],
)  # fmt: skip
def test_denials_reach_as_far_as_they_should(text: str, expected: dict[str, int]) -> None:
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Possible left effusion.", {"pleural_effusion": -1}),
        ("Pneumonia cannot be excluded.", {"pneumonia": -1}),
        ("Cannot exclude a small pneumothorax.", {"pneumothorax": -1}),
        ("Bibasilar opacities which may represent pneumonia.", {"lung_opacity": 1, "pneumonia": -1}),
        ("Borderline heart size.", {"cardiomegaly": -1}),
        ("Atelectasis versus pneumonia.", {"atelectasis": -1, "pneumonia": -1}),
        ("Opacity consistent with pneumonia.", {"lung_opacity": 1, "pneumonia": 1}),
        ("Question edema?", {"edema": -1}),
    ],
)
def test_doubt_is_neither_yes_nor_no(text: str, expected: dict[str, int]) -> None:
    assert said(text) == expected


@pytest.mark.parametrize(
    ("text", "finding", "status"),
    [
        ("The heart is normal in size.", "cardiomegaly", 0),
        ("Heart size and mediastinal contours are within normal limits.", "cardiomegaly", 0),
        ("Heart size and mediastinal contours are within normal limits.", "enlarged_cardiomediastinum", 0),
        ("The heart is not enlarged.", "cardiomegaly", 0),
        ("The cardiac silhouette is mildly enlarged.", "cardiomegaly", 1),
        ("Heart size is at the upper limits of normal.", "cardiomegaly", 0),
        ("The mediastinum is widened.", "enlarged_cardiomediastinum", 1),
        ("The lungs are clear.", "consolidation", 0),
        ("Costophrenic angles are sharp.", "pleural_effusion", 0),
        ("The bony structures are intact.", "fracture", 0),
        ("Pulmonary vasculature is normal.", "edema", 0),
        ("Mild pulmonary vascular congestion.", "edema", 1),
        ("Biapical pleural thickening.", "pleural_other", 1),
        ("Scarring in the lingula.", "lung_opacity", 1),
        ("Sequelae of old granulomatous infection.", "pneumonia", None),
    ],
)
def test_normal_things_deny_and_abnormal_ones_affirm(text: str, finding: str, status: int | None) -> None:
    assert read(text).labels()[finding] == status


@pytest.mark.parametrize(
    ("text", "finding", "sides", "degree"),
    [
        ("Small left pleural effusion.", "pleural_effusion", {"left"}, 1),
        ("There is a moderate effusion on the right.", "pleural_effusion", {"right"}, 2),
        ("Bilateral effusions, left greater than right.", "pleural_effusion", {"left", "right"}, 0),
        ("Opacity in the right middle lobe.", "lung_opacity", {"right"}, 0),
        ("Nodule in the lingula.", "lung_lesion", {"left"}, 0),
        ("Bibasilar atelectasis.", "atelectasis", {"left", "right"}, 0),
        ("The left effusion is large.", "pleural_effusion", {"left"}, 3),
        ("Severe cardiomegaly.", "cardiomegaly", set(), 3),
        ("The heart is mildly enlarged.", "cardiomegaly", set(), 1),
        ("Small right effusion and large left pneumothorax.", "pneumothorax", {"left"}, 3),
        ("Small right effusion and large left pneumothorax.", "pleural_effusion", {"right"}, 1),
    ],
)
def test_sides_and_degrees_belong_to_their_finding(
    text: str, finding: str, sides: set[str], degree: int
) -> None:
    assert read(text).findings[finding] == Fact(1, frozenset(sides), degree)


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("Left chest wall pacemaker with leads in the right atrium.", {"pacemaker": {"left"}}),
        ("Right PICC with tip in the SVC.", {"central_line": {"right"}}),
        ("The endotracheal tube is 4 cm above the carina.", {"endotracheal_tube": set()}),
        ("A nasogastric tube is seen.", {"enteric_tube": set()}),
        ("Left chest tube in place.", {"chest_tube": {"left"}}),
        ("Prosthetic aortic valve.", {"valve": set()}),
        ("Device in place.", {"other_device": set()}),
        ("The minor fissure line is seen; the trachea is midline.", {}),
    ],
)
def test_devices_are_told_apart(text: str, devices: dict[str, set[str]]) -> None:
    assert {name: set(fact.sides) for name, fact in read(text).devices.items() if fact.status == 1} == devices


@pytest.mark.parametrize(
    ("text", "prior", "changes"),
    [
        ("Left effusion.", False, set()),
        ("No prior study is available. Left effusion.", False, set()),
        ("Left effusion, unchanged.", True, {"same"}),
        ("The left effusion has increased since the prior study.", True, {"worse"}),
        ("Interval improvement of the left effusion.", True, {"better"}),
        ("New left effusion.", True, {"new"}),
        ("COMPARISON: none. FINDINGS: Left effusion.", False, set()),
        ("COMPARISON: chest radiograph of last week. FINDINGS: Left effusion.", True, set()),
        ("Compared with the previous radiograph, the effusion is stable.", True, {"same"}),
    ],
)
def test_earlier_studies_and_changes_are_noticed(text: str, prior: bool, changes: set[str]) -> None:
    found = read(text)
    assert (found.prior, set(found.findings["pleural_effusion"].changes)) == (prior, changes)


def test_only_observations_are_read() -> None:
    text = "INDICATION: Rule out pneumonia.\nFINDINGS: Left effusion.\nIMPRESSION: Effusion. No edema."
    assert [name for name, _ in sections(text)] == ["indication", "findings", "impression"]
    assert observations(text) == "Left effusion.\nEffusion. No edema."
    assert said(text) == {"pleural_effusion": 1, "edema": 0}


def test_marks_of_deidentification_are_not_read() -> None:
    assert said("XXXX left effusion. No ___ pneumothorax. [**Name**] nodule") == said(
        "left effusion. No pneumothorax. nodule"
    )


def test_labels_have_all_fourteen_findings_and_silence_is_not_health() -> None:
    assert read("").labels() == dict.fromkeys(FINDINGS)
    assert read("The lungs are clear.").labels()["no_finding"] == 1
    assert read("Pacemaker in place. Lungs clear.").labels()["no_finding"] == 1
    assert read("Possible nodule.").labels()["no_finding"] == 0
    assert set(RULES) == set(FINDINGS) - {"no_finding", "support_devices"}
    assert len(DEVICES) == 11


def test_the_surer_mention_wins_and_places_add_up() -> None:
    fact = read("Left effusion. Possible right effusion. No effusion. Large right effusion.").findings
    assert fact["pleural_effusion"] == Fact(1, frozenset({"left", "right"}), 3)


def test_equal_reports_have_no_errors() -> None:
    text = "Small left effusion, unchanged. Pacemaker. Possible nodule."
    assert errors(read(text), read(text)) == {}
    assert speaks_of_prior("Has the effusion changed since the prior study?")
    assert not speaks_of_prior("Describe the findings.")
